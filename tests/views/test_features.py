"""Log-mel and masks: against an independent reference, CED's own features, and across front ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitstore.errors import UsageError
from logitstore.views.mel import CED, Centers, FrontEnd, LogMel, apply_masks, band_mask, time_mask
from logitstore.views.ops import mel_step_hz
from logitstore.views.recipe import Masks
from tests.references import log_mel

PANNS = FrontEnd(
    sample_rate=32000,
    n_fft=1024,
    win_length=1024,
    hop_length=320,
    n_mels=64,
    f_min=50.0,
    f_max=14000.0,
    mel_scale="slaney",
    norm="slaney",
    top_db=None,
)


def _noise(samples: int, seed: int = 0, clips: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (clips, samples)).astype(np.float32)


@pytest.mark.parametrize(
    "front_end",
    [CED, PANNS, FrontEnd(n_fft=512, win_length=400, hop_length=320, n_mels=40, f_min=60.0, f_max=7600.0, top_db=40.0)],
    ids=["ced", "panns", "short-window"],
)
def test_log_mel_is_that_of_an_independent_reference(front_end: FrontEnd) -> None:
    clips = _noise(9000)
    ours = LogMel(front_end)(torch.from_numpy(clips)).numpy()
    theirs = np.stack([log_mel(clip, front_end) for clip in clips])
    assert ours.shape == theirs.shape == (2, front_end.n_mels, front_end.n_frames(9000))
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_the_filter_bank_is_the_one_stored_in_a_ced_checkpoint(ced_reference: Path) -> None:
    checkpoint = torch.load(ced_reference / "checkpoint.pt", weights_only=True)
    stored = checkpoint["model"]["front_end.0.mel_scale.fb"].numpy()
    np.testing.assert_allclose(CED.filter_bank(), stored, atol=1e-5)


@pytest.mark.parametrize("length", ["1p0", "10p0"])
def test_log_mel_is_ceds(ced_reference: Path, length: str) -> None:
    """Cells within 80 dB of the loudest: further down, float32 FFTs of two processors differ by their own rounding."""
    io = np.load(ced_reference / "io.npz")
    ours, theirs = LogMel()(torch.from_numpy(io[f"wave_{length}"])).numpy(), io[f"logmel_{length}"]
    audible = theirs > theirs.max(axis=(1, 2), keepdims=True) - 80
    np.testing.assert_allclose(ours[audible], theirs[audible], atol=5e-3)
    np.testing.assert_allclose(ours, theirs, atol=0.25)


_EVERY_CELL = """
import sys, numpy as np, torch
from logitstore.views.mel import LogMel
io = np.load(sys.argv[1])
for length in ("1p0", "10p0"):
    ours = LogMel()(torch.from_numpy(io["wave_" + length])).numpy()
    print(np.abs(ours - io["logmel_" + length]).max())
"""


_HAS_MKL: Any = torch.backends.mkl.is_available


@pytest.mark.skipif(not _HAS_MKL(), reason="this torch has no MKL, whose FFT made the reference")
def test_every_cell_of_log_mel_is_ceds_with_the_same_fft_kernels(shared: Path) -> None:
    """MKL's processor-independent kernels are the ones that made the reference; then all cells agree."""
    finished = subprocess.run(
        [sys.executable, "-c", _EVERY_CELL, str(shared / "data/ced_reference/io.npz")],
        env=os.environ | {"MKL_CBWR": "COMPATIBLE"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    differences = [float(line) for line in finished.stdout.split()]
    assert len(differences) == 2
    assert max(differences) < 5e-3


def test_a_clip_is_clamped_below_its_own_maximum_whatever_its_batch() -> None:
    quiet, loud = _noise(16000, 1, 1) * 1e-2, _noise(16000, 2, 1)
    quiet[:, 8000:] = 0
    ours = LogMel(FrontEnd(top_db=60.0))
    alone = ours(torch.from_numpy(quiet))
    together = ours(torch.from_numpy(np.concatenate([quiet, loud])))[:1]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    assert float(alone.min()) == pytest.approx(float(alone.max()) - 60)


@given(st.integers(0, 1000), st.integers(0, 192), st.integers(0, 64), st.integers(0, 24))
def test_in_ceds_front_end_ticks_are_frames_and_steps_are_bands(tick: int, ticks: int, step: int, steps: int) -> None:
    end, high = min(tick + ticks, 1001), min(step + steps, 64)
    hz = mel_step_hz([step, high], 0.0, 8000.0)
    masks = Masks(*(np.array([value]) for value in (tick / 100, end / 100, hz[0], hz[1])))
    assert time_mask(CED, masks, 1001)[0].nonzero().flatten().tolist() == list(range(tick, end))
    assert band_mask(CED, masks)[0].nonzero().flatten().tolist() == list(range(step, high))


@given(st.floats(0, 9), st.floats(0, 2), st.floats(0, 7000), st.floats(0, 3000))
def test_two_front_ends_lose_the_same_sound(start: float, seconds: float, low: float, hertz: float) -> None:
    wide = FrontEnd(
        sample_rate=32000, n_fft=1024, win_length=800, hop_length=320, n_mels=128, f_max=14000.0, mel_scale="slaney"
    )
    masks = Masks(*(np.array([value]) for value in (start, start + seconds, low, low + hertz)))
    for front_end in (CED, wide):
        frames, bands = front_end.frame_centers(1001), front_end.band_centers()
        hidden = frames[time_mask(front_end, masks, 1001)[0].numpy()]
        np.testing.assert_array_equal(hidden, frames[(start <= frames) & (frames < start + seconds)])
        hidden = bands[band_mask(front_end, masks)[0].numpy()]
        np.testing.assert_array_equal(hidden, bands[(low <= bands) & (bands < low + hertz)])
        step = np.diff(front_end.band_edges()).max()
        assert abs(len(hidden) and np.ptp(hidden) - hertz) <= 2 * step or low + hertz > bands[-1]


def test_masks_fill_rows_and_columns_and_nothing_else() -> None:
    features = torch.full((2, 64, 101), 7.0)
    hz = mel_step_hz([10, 20], 0.0, 8000.0)
    masks = Masks(np.array([0.1, 0.0]), np.array([0.2, 0.0]), np.array([hz[0], 0.0]), np.array([hz[1], 0.0]))
    filled = apply_masks(features, CED, masks, -3.0)
    expected = features.clone()
    expected[0, :, 10:20] = -3.0
    expected[0, 10:20, :] = -3.0
    assert torch.equal(filled, expected)
    assert torch.equal(apply_masks(features, CED, masks.to("cpu"), -3.0), expected)
    assert apply_masks(features, CED, None, -3.0) is features
    assert bool((features == 7.0).all())


@pytest.mark.parametrize("front_end", [CED, PANNS, FrontEnd(sample_rate=22050, hop_length=441, center=False)], ids=str)
def test_masks_by_centres_in_float32_hide_what_the_front_end_hides(front_end: FrontEnd) -> None:
    random = np.random.default_rng(0)
    features = torch.ones(200, front_end.n_mels, 900)
    ticks = np.sort(random.integers(0, 900, (200, 2)), axis=1) / 100
    hertz = np.sort(random.uniform(0, front_end.f_max, (200, 2)), axis=1)
    masks = Masks(*ticks.T, *hertz.T)
    expected = apply_masks(features, front_end, masks, 0.0)
    offset = 0 if front_end.center else front_end.n_fft / 2
    seconds = (torch.arange(900) * front_end.hop_length + offset) / front_end.sample_rate
    assert seconds.dtype == torch.float32
    centers = Centers(seconds, torch.from_numpy(front_end.band_centers()))
    assert torch.equal(apply_masks(features, centers, masks, 0.0), expected)
    small = Masks(*(torch.from_numpy(ends).float() for ends in vars(masks).values()))  # as an ONNX file has them
    assert torch.equal(apply_masks(features, front_end, small, 0.0), expected)
    assert 0.2 < float(expected.mean()) < 0.8
    with pytest.raises(UsageError, match=r"centres of frames of shape \(7,\); 900 numbers are due"):
        apply_masks(features, Centers(seconds[:7], hertz), masks, 0.0)
    with pytest.raises(UsageError, match=r"3 centres for \d+ bands; features are \(clips, bands, frames\)"):
        apply_masks(features, Centers(seconds, [1.0, 2.0, 3.0]), masks, 0.0)


def test_a_front_end_survives_json_and_refuses_nonsense() -> None:
    assert FrontEnd.from_dict(PANNS.to_dict()) == PANNS
    with pytest.raises(UsageError, match="unknown field 'mels'"):
        FrontEnd.from_dict({"mels": 64})
    with pytest.raises(UsageError, match="bands from 0 to 9000 Hz"):
        FrontEnd(f_max=9000.0)
    with pytest.raises(UsageError, match="hop_length is 0"):
        FrontEnd(hop_length=0)
    with pytest.raises(UsageError, match="at least 257 samples"):
        LogMel()(torch.zeros(1, 100))
    one = np.zeros(1)
    with pytest.raises(UsageError, match="1 masks for 2 clips"):
        apply_masks(torch.zeros(2, 64, 10), CED, Masks(one, one, one, one), 0.0)
