"""One draw, many front ends: the same seconds and the same Hz are lost; batch mixup acts where masks do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from logitstore.models.registry import build
from logitstore.views.ops import Place
from logitstore.views.recipe import CED, Draws, Masks, draw, masks

SECONDS = 5.0
#: As CED's, then far from it: few bands, many bands, other hops, windows, rates and edges.
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "64 bands at 16 kHz": {"mels": 64, "hop_ms": 10.0},
    "20 bands": {"mels": 20, "hop_ms": 20.0, "window_ms": 40.0},
    "128 bands": {"mels": 128, "hop_ms": 10.0},
    "128 bands at 32 kHz": {"mels": 128, "hop_ms": 12.5, "sample_rate": 32000, "f_min": 50.0, "f_max": 14000.0},
    "20 bands at 22.05 kHz": {"mels": 20, "hop_ms": 32.0, "window_ms": 64.0, "sample_rate": 22050},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def _model(name: str) -> Any:
    torch.manual_seed(0)
    return build("cnn4", 2, width=1, **FRONT_ENDS[name]).eval()


def _draws(count: int = 200) -> Draws:
    """Draws of CED's recipe whose masks are wide enough that a band of the coarsest front end fits in them."""
    lengths = np.full(count, int(SECONDS * 16000))
    keys = [(f"{clip}.wav", 0, int(length)) for clip, length in enumerate(lengths)]
    drawn = draw(CED, seed=7, keys=keys, view=0, lengths=lengths, place=Place(int(SECONDS * 16000), 16000))
    time, bands = drawn.columns["time_length"], drawn.columns["freq_steps"]
    kept = np.flatnonzero((time >= 30) & (bands >= 10))[:12]
    assert len(kept) == 12
    return drawn[kept]


def _hz(steps: Any) -> npt.NDArray[np.float64]:
    """Hz of 64ths of the HTK-mel axis from 0 to 8 kHz; may lie beyond either end."""
    mel = np.asarray(steps) / 64 * 2595 * np.log10(1 + 8000 / 700)
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_cells_that_a_draw_hides_are_those_whose_centres_lie_in_its_seconds_and_hz(name: str) -> None:
    model, drawn = _model(name), _draws()
    with torch.inference_mode():
        features = 1.0 + torch.rand(len(drawn), model.front_end.n_mels, model.front_end.n_frames(int(SECONDS * 16000)))
        hidden = (model.masked(features, masks(CED, drawn)) == 0).numpy()
    seconds = np.arange(features.shape[2]) * model.front_end.hop_length / model.front_end.sample_rate
    hz = model.front_end.band_centers()
    for row in range(len(drawn)):
        start, length, low, steps = (
            int(drawn.columns[column][row]) for column in ("time_start", "time_length", "freq_low", "freq_steps")
        )
        frames = (seconds >= start / 100) & (seconds < (start + length) / 100)
        bands = (hz >= _hz(low)) & (hz < _hz(low + steps))
        near = np.abs(hz[:, None] - _hz([low, low + steps])).min(axis=1) < 1e-6  # an edge that is a centre: rounding
        np.testing.assert_array_equal(hidden[row][~near], (frames[None] | bands[:, None])[~near])


def _tone(rate: int, second: float, hz: float) -> npt.NDArray[np.float32]:
    """A burst of 120 ms around one second, over faint noise."""
    at = np.arange(int(SECONDS * rate)) / rate
    burst = np.exp(-0.5 * ((at - second) / 0.03) ** 2) * np.sin(2 * np.pi * hz * at)
    return (0.5 * burst + np.random.default_rng(0).normal(0, 1e-4, len(at))).astype(np.float32)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_tone_inside_a_mask_is_lost_and_one_outside_is_heard_in_every_front_end(name: str) -> None:
    model, drawn = _model(name), _draws()
    spans = masks(CED, drawn)
    assert spans is not None
    checked = 0
    for row in range(len(drawn)):
        start, length, low, steps = (
            int(drawn.columns[column][row]) for column in ("time_start", "time_length", "freq_low", "freq_steps")
        )
        inside = (start + length / 2) / 100, float(_hz(low + steps / 2))
        later = (start + length) / 100 + 0.1
        outside = later if later < SECONDS - 0.2 else start / 100 - 0.1, float(_hz(low + steps + 5))
        if outside[1] > 7000:
            outside = outside[0], float(_hz(low - 5))
        if not (0.2 < outside[0] < SECONDS - 0.2 and outside[1] > 150):
            continue
        checked += 1
        for second, hz, lost in (
            (inside[0], outside[1], True),
            (outside[0], inside[1], True),
            (outside[0], outside[1], False),
        ):
            waveform = torch.from_numpy(_tone(model.front_end.sample_rate, second, hz))[None]
            with torch.inference_mode():
                features = model.log_mel(waveform)
                masked = model.masked(features, spans[row : row + 1])
            loudest = int(features.argmax())
            band, frame = divmod(loudest, features.shape[2])
            assert model.front_end.frame_centers(frame + 1)[frame] == pytest.approx(second, abs=0.035)
            assert (float(masked.flatten()[loudest]) == 0.0) is lost, (second, hz, band, frame)
            assert float(masked.max()) == (pytest.approx(float(features.max())) if not lost else masked.max())
    assert checked >= 6


def _reference_mix(filled: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    rows = [mix[i] * filled[i] + (1 - mix[i]) * filled[len(filled) - 1 - i] for i in range(len(filled))]
    return torch.stack(rows)


class _Always(torch.nn.Module):
    """Gives the same features, whatever it is given."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.features


SMALL: dict[str, dict[str, Any]] = {
    "cnn4": {"width": 2},
    "mobile": {"width": 0.1},
    "cnn6": {},
    "ced-tiny": {"dim": 32, "depth": 1, "heads": 2},
}


def _stirred(name: str) -> Any:
    """A small model in eval mode whose first BatchNorm does something."""
    torch.manual_seed(0)
    model: Any = build(name, 3, **SMALL[name]).eval()
    norm = model.init_bn[1] if name == "ced-tiny" else model.bn0
    norm.running_mean.normal_(-20.0, 5.0)
    norm.running_var.uniform_(50.0, 150.0)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.normal_(0.0, 1.0)
    return model


def _clips(clips: int, rate: int, seconds: float = 0.5) -> torch.Tensor:
    noise = np.random.default_rng(3).normal(0, 0.1, (clips, int(rate * seconds)))
    return torch.from_numpy((noise * np.logspace(-2, 0, clips)[:, None]).astype(np.float32))


@pytest.mark.parametrize("name", SMALL)
def test_clip_i_is_mixed_with_clip_b_minus_1_minus_i_where_masks_are_filled(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CED: masked decibels are mixed, and the BatchNorm sees the mix. The others: what comes after it is."""
    model = _stirred(name)
    waveforms = _clips(3, model.front_end.sample_rate)
    mix = torch.tensor([0.9, 0.6, 0.7])
    spans = Masks(*(np.array(values) for values in ([0.1] * 3, [0.2] * 3, [300.0] * 3, [900.0] * 3)))
    plain = model.log_mel(waveforms)
    norm: Any = (lambda maps: model.bn0(maps[..., None])[..., 0]) if name == "cnn6" else getattr(model, "bn0", None)
    with torch.inference_mode():
        if name == "ced-tiny":
            mixed = model.init_bn(_reference_mix(model.masked(plain, spans), mix))
        else:
            mixed = _reference_mix(model.masked(norm(plain), spans), mix)
        found = model.outputs(waveforms, spans, mix)
        # The same weights hear the reference: whatever comes before the network is replaced by it.
        monkeypatch.setattr(model, "masked", lambda features, masks, mix: features)
        monkeypatch.setattr(model, "log_mel", _Always(mixed))
        monkeypatch.setattr(model, "init_bn" if name == "ced-tiny" else "bn0", torch.nn.Identity())
        expected = model.outputs(waveforms)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_the_logits_and_the_frame_features_of_one_pass(name: str) -> None:
    model = _stirred(name)
    waveforms = _clips(2, model.front_end.sample_rate, 1.0)
    mix = torch.tensor([0.8, 0.6])
    with torch.inference_mode():
        for given in (None, mix):
            logits, frames = model.outputs(waveforms, None, given)
            torch.testing.assert_close(logits, model(waveforms, mix=given), rtol=0, atol=0)
            torch.testing.assert_close(frames, model.frame_features(waveforms, None, given), rtol=0, atol=0)
        assert not torch.allclose(model(waveforms), model(waveforms, mix=mix))
        torch.testing.assert_close(model(waveforms, mix=torch.ones(2)), model(waveforms), rtol=1e-5, atol=1e-5)
        swapped = model(waveforms, mix=torch.zeros(2))
        torch.testing.assert_close(swapped, model(waveforms).flip(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
def test_gradients_reach_every_weight_at_any_length(name: str, seconds: float) -> None:
    torch.manual_seed(0)
    model = build(name, 3, **SMALL[name]).train()
    logits, frames = model.outputs(_clips(3, model.front_end.sample_rate, seconds))
    loss: Any = logits.square().sum() + frames.square().sum()
    loss.backward()
    assert bool(logits.isfinite().all())
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert bool(parameter.grad.isfinite().all()), weight
    assert frames.shape[:1] == (3,)
