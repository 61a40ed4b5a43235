"""Pictures of views: what is loud is bright, masks lie where the cells are that they hide, samples are kept exactly."""

import io

import numpy as np
import pytest
import soundfile

from logitstore.views import picture
from logitstore.views.recipe import Masks


def tone(hertz: float, rate: int, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("hertz", "rate"), [(440, 16_000), (3000, 16_000), (9000, 32_000), (700, 8_000)])
def test_a_tone_is_brightest_at_its_height(hertz, rate):
    from PIL import Image

    cells = picture.log_mel(tone(hertz, rate, 2.0), rate)
    image = Image.open(io.BytesIO(picture.png(cells))).convert("RGB")
    assert image.size == cells.shape[::-1]
    bright = np.asarray(image).sum(axis=2).mean(axis=1)
    place = 1 - (bright.argmax() + 0.5) / len(bright)
    assert place == pytest.approx(picture.height(hertz, rate), abs=0.02)


def test_a_quiet_view_is_darker_beside_its_original():
    loud = picture.log_mel(tone(500, 16_000, 1.0), 16_000)
    quiet = picture.log_mel(0.01 * tone(500, 16_000, 1.0), 16_000)
    assert picture.png(quiet) != picture.png(quiet, float(loud.max()))


def test_boxes_lie_where_the_mask_hides():
    hidden = Masks(np.array([1.0]), np.array([2.5]), np.array([0.0]), np.array([8000.0]))
    time, band = picture.boxes(hidden, 5.0, 16_000)
    assert (time.kind, time.left, time.width, time.top, time.height) == ("time", 0.2, pytest.approx(0.3), 0.0, 1.0)
    assert (band.kind, band.top, band.height, band.width) == ("frequency", 0.0, 1.0, 1.0)
    low = Masks(*(np.array([end]) for end in (1.0, 1.0, 0.0, 1000.0)))
    (band,) = picture.boxes(low, 5.0, 32_000)
    assert band.top + band.height == pytest.approx(1.0)
    assert band.height == pytest.approx(picture.height(1000, 32_000))
    assert picture.boxes(None, 5.0, 16_000) == []


def test_a_wav_file_holds_the_very_samples():
    samples = np.random.default_rng(0).normal(0, 2, 999).astype(np.float32)  # beyond [-1, 1] too
    back, rate = soundfile.read(io.BytesIO(picture.wav(samples, 22_050)), dtype="float32")
    assert rate == 22_050
    np.testing.assert_array_equal(back, samples)


@pytest.mark.parametrize("samples", [1, 20, 4000])
def test_short_views_have_pictures_too(samples):
    assert picture.png(picture.log_mel(np.zeros(samples, np.float32), 16_000)).startswith(b"\x89PNG")
