"""Models by name: sizes, shapes, masks, clip lengths; and the run folders that keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from logitstore.errors import RunError
from logitstore.models.registry import build, names
from logitstore.models.tagger import AFTER_NORM, BEFORE_NORM
from logitstore.training.runs import is_run, load_run, save_run
from logitstore.views.recipe import Masks

SMALL: dict[str, dict[str, Any]] = {
    "cnn4": {"width": 4},
    "cnn6": {},
    "mobile": {"width": 0.1},
    "ced-tiny": {"dim": 64, "depth": 2, "heads": 2},
}

CED_NAMES = ("ced-tiny", "ced-mini", "ced-small", "ced-base")


def _noise(seconds: float, rate: int = 16000, clips: int = 2) -> torch.Tensor:
    samples = int(seconds * rate)
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (clips, samples)).astype(np.float32))


def _one_mask(clips: int) -> Masks:
    return Masks(*(np.full(clips, value) for value in (0.3, 0.6, 500.0, 2000.0)))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cnn4", 0.17),
        ("cnn6", 4.84),
        ("cnn10", 5.22),
        ("mobile", 2.90),
        ("ced-tiny", 5.5),
        ("ced-mini", 9.7),
        ("ced-small", 21.6),
    ],
)
def test_sizes_are_the_published_ones(name: str, millions: float) -> None:
    count = sum(parameter.numel() for parameter in build(name, 527).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_names_are_those_of_the_documentation() -> None:
    assert {*CED_NAMES, "cnn4", "cnn6", "cnn10", "cnn14", "mobile"} <= set(names())


@pytest.mark.parametrize("name", SMALL)
def test_logits_frames_and_masks(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, 7, **SMALL[name]).eval()
    waveforms = _noise(1.0, model.front_end.sample_rate)
    with torch.inference_mode():
        logits = model(waveforms)
        assert logits.shape == (2, 7)
        frames = model.frame_features(waveforms)
        assert frames.shape[0] == 2
        assert frames.ndim == 3
        masked = model(waveforms, _one_mask(2))
        assert not torch.allclose(masked, logits)
        nothing = Masks(*(np.zeros(2) for _ in range(4)))
        torch.testing.assert_close(model(waveforms, nothing), logits, rtol=0, atol=0)
        torch.testing.assert_close(model(waveforms[:1]), logits[:1], rtol=1e-4, atol=1e-5)


def test_masks_are_filled_at_the_stage_of_the_contract() -> None:
    """PANNs and cnn4: a masked cell is 0 after the BatchNorm; CED: 0 dB before it."""
    for name, stage in (("cnn4", AFTER_NORM), ("ced-tiny", BEFORE_NORM)):
        model: Any = build(name, 3, **SMALL[name]).eval()
        norm = model.bn0 if name == "cnn4" else model.init_bn[1]
        norm.running_mean.fill_(-20.0)
        norm.running_var.fill_(100.0)
        waveforms = _noise(1.0)
        with torch.inference_mode():
            masked = model.masked(norm(model.log_mel(waveforms)), _one_mask(2)) if stage == AFTER_NORM else None
            inside = masked if masked is not None else model._features(waveforms, _one_mask(2), None)
        frame = 20 if name == "cnn4" else 40  # 0.4 s at hops of 20 and 10 ms
        expected = 0.0 if stage == AFTER_NORM else 20.0 / np.sqrt(100.0 + norm.eps)
        torch.testing.assert_close(inside[:, :, frame], torch.full((2, 64), float(expected)))
        assert model.contract()["fill"] == {"stage": stage, "value": 0.0}


@pytest.mark.parametrize("seconds", [0.05, 0.5, 10.15, 12.0, 20.3])
def test_ced_hears_clips_of_any_length(seconds: float) -> None:
    model = build("ced-tiny", 5, **SMALL["ced-tiny"])
    waveforms = _noise(seconds)
    logits = model.train()(waveforms)
    logits.sum().backward()
    assert logits.shape == (2, 5)
    assert bool(logits.isfinite().all())
    with torch.inference_mode():
        frames = model.eval().frame_features(waveforms)
    assert frames.shape[0] == 2
    assert frames.shape[2] == 64


def test_pieces_average_probabilities_for_softmax_scores_too() -> None:
    torch.manual_seed(0)
    model: Any = build("ced-tiny", 5, scores="softmax", **SMALL["ced-tiny"]).eval()
    waveforms = _noise(15.0)
    with torch.inference_mode():
        features = model._features(waveforms, None, None)  # 1,501 frames
        last = torch.zeros(2, 64, 1012)
        last[..., : 1501 - 1012] = features[..., 1012:]
        pieces = (features[..., :1012], last)
        expected = torch.stack([torch.softmax(model.head(model._tokens(piece)), dim=1) for piece in pieces]).mean(dim=0)
        torch.testing.assert_close(torch.softmax(model(waveforms), dim=1), expected)


def test_panns_key_names_are_the_published_ones() -> None:
    keys = set(build("cnn10", 2).state_dict())
    for key in (
        "bn0.weight",
        "conv_block1.conv1.weight",
        "conv_block4.bn2.running_var",
        "fc1.bias",
        "fc_audioset.weight",
    ):
        assert key in keys
    assert build("cnn10", 2, sample_rate=16000).front_end.hop_length == 160


def test_a_model_that_cannot_be_built_says_why() -> None:
    with pytest.raises(RunError, match=r"no model 'cnn5'; allowed are .*, cnn4, .*cnn6, .*, python:MODULE:FACTORY"):
        build("cnn5", 2)
    with pytest.raises(RunError, match="model 'cnn4' has no argument 'depth'; allowed are width"):
        build("cnn4", 2, depth=3)
    with pytest.raises(RunError, match="width is 'wide'; it must be a whole number"):
        build("cnn4", 2, width="wide")
    with pytest.raises(RunError, match="heads must divide dim"):
        build("ced-tiny", 2, heads=5)
    with pytest.raises(RunError, match="the PANNs exist at 32000, 16000, 8000 Hz"):
        build("cnn6", 2, sample_rate=44100)
    with pytest.raises(RunError, match="needs at least 1"):
        build("cnn4", 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run"
    save_run(folder, "cnn4", {"width": 4}, ["a", "b"], "sigmoid", 16000, build("cnn4", 2, width=4), {"seed": 3})
    return folder


def test_a_run_comes_back_as_it_was_saved(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    assert is_run(run)
    assert (loaded.classes, loaded.scores, loaded.sample_rate) == (("a", "b"), "sigmoid", 16000)
    assert loaded.config["seed"] == 3
    assert not loaded.model.training
    assert sorted(path.name for path in run.iterdir()) == ["model.safetensors", "run.json"]
    again = tmp_path / "again"
    save_run(again, "cnn4", {"width": 4}, ["a", "b"], "sigmoid", 16000, loaded.model, {"seed": 3})
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert load_run(again).digest == loaded.digest


def _edit(run: Path, **changes: Any) -> None:
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(config | changes), encoding="utf-8")


def test_folders_that_are_not_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
        load_run(tmp_path)
    _edit(run, version=99)
    with pytest.raises(RunError, match="has the version 99; this program reads 1"):
        load_run(run)
    _edit(run, version=1, model="cnn99")
    with pytest.raises(RunError, match="no model 'cnn99'"):
        load_run(run)
    (run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="is not a run folder of this project"):
        load_run(run)
    (run / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="is not readable JSON"):
        load_run(run)


def test_weights_that_are_not_the_runs(run: Path) -> None:
    weights = run / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="the weights are damaged or of another run"):
        load_run(run)
    weights.write_bytes(b"short")
    with pytest.raises(RunError, match="not a safetensors file"):
        load_run(run)
    weights.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        load_run(run)


def test_weights_of_another_model(run: Path) -> None:
    _edit(run, model_args={"width": 8})
    with pytest.raises(RunError, match=r"is not of the model 'cnn4' that run\.json names"):
        load_run(run)


def test_a_run_must_describe_its_model(tmp_path: Path) -> None:
    model = build("cnn4", 2, width=4)
    with pytest.raises(RunError, match="3 classes, sigmoid, 16000 Hz do not describe the model"):
        save_run(tmp_path / "run", "cnn4", {"width": 4}, ["a", "b", "c"], "sigmoid", 16000, model)
    with pytest.raises(RunError, match="the extra key 'classes' is one that"):
        save_run(tmp_path / "run", "cnn4", {"width": 4}, ["a", "b"], "sigmoid", 16000, model, {"classes": 1})
    assert not (tmp_path / "run").exists()


def test_weights_hold_no_front_end() -> None:
    keys = safetensors.torch.load(safetensors.torch.save(build("cnn4", 2, width=4).state_dict()))
    assert not [key for key in keys if "log_mel" in key]
