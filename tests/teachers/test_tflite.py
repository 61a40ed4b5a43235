"""``tflite:FILE`` and ``birdnet:PATH`` through ai-edge-litert, on models written for the tests."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from logitstore.errors import MissingExtraError, ModelOutputError, TeacherError
from teachers.contract import Window
from teachers.registry import load_teacher
from tests.tflites import Sketch, linear

pytest.importorskip("ai_edge_litert", reason="the extra `tflite` is not installed")

SAMPLES = 50
CLASSES = ("a", "b", "c")
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(0, 0.5, (len(CLASSES), SAMPLES)).astype(np.float32)
SIDECAR = {"classes": list(CLASSES), "scores": "sigmoid", "sample_rate": 100, "output": "probabilities"}


def _sidecar(file: Path, **changes: Any) -> str:
    document = {key: value for key, value in (SIDECAR | changes).items() if value is not None}
    file.with_name(f"{file.name}.json").write_text(json.dumps(document), encoding="utf-8")
    return f"tflite:{file}"


def _waveforms(clips: int = 3, samples: int = SAMPLES) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(clips).normal(0, 0.3, (clips, samples)).astype(np.float32))


def _logits(waveforms: torch.Tensor, weights: Any = WEIGHTS) -> torch.Tensor:
    return waveforms @ torch.from_numpy(weights).T


@pytest.mark.parametrize("given", [(1, SAMPLES), (SAMPLES,), (1, 1, SAMPLES), (1, SAMPLES, 1)], ids=str)
@pytest.mark.parametrize("batches", [True, False], ids=["batches", "alone"])
def test_scores_are_the_models_in_every_layout(tmp_path: Path, given: tuple[int, ...], batches: bool) -> None:
    batches = batches and len(given) > 1
    file = linear(tmp_path / "model.tflite", WEIGHTS, given=given, batches=batches)
    teacher = load_teacher(_sidecar(file))
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (CLASSES, "sigmoid", 100)
    assert teacher.batch == (None if batches else 1)  # type: ignore[attr-defined]
    for clips in (1, 3, 2):
        waveforms = _waveforms(clips)
        torch.testing.assert_close(teacher.probabilities(waveforms, None), _logits(waveforms).sigmoid())


def test_a_batch_that_changes_the_answers_is_not_taken(tmp_path: Path) -> None:
    """The softmax of the mean over the clips: of two clips at once it is another one."""
    sketch = Sketch()
    first = sketch.tensor("waveforms", (1, SAMPLES), batches=True)
    axis = sketch.tensor("axis", (1,), np.array([0], dtype=np.int32), kind="INT32")
    mean = sketch.op("MEAN", [first, axis], sketch.tensor("mean", (1, SAMPLES)), "ReducerOptions", keepDims=True)
    less = sketch.op("SUB", [first, mean], sketch.tensor("less", (1, SAMPLES), batches=True), "SubOptions")
    more = sketch.op("SUB", [first, less], sketch.tensor("more", (1, SAMPLES), batches=True), "SubOptions")
    weights = sketch.tensor("weights", WEIGHTS.shape, WEIGHTS)
    said = sketch.tensor("said", (1, 3), batches=True)
    sketch.op("FULLY_CONNECTED", [more, weights, -1], said, "FullyConnectedOptions")
    sketch.save(tmp_path / "model.tflite", [first], [said])
    teacher = load_teacher(_sidecar(tmp_path / "model.tflite", output="logits"))
    assert teacher.batch == 1  # type: ignore[attr-defined]
    torch.testing.assert_close(teacher.probabilities(_waveforms(), None), _logits(_waveforms()).sigmoid())


def test_logits_and_softmax_and_frames_and_windows_as_the_sidecar_says(tmp_path: Path) -> None:
    file, waveforms = tmp_path / "model.tflite", _waveforms(2, 170)
    windows = F.pad(waveforms, (0, 5)).unfold(1, SAMPLES, 25)  # starts 0, 25, …, 125
    linear(file, WEIGHTS, last=None)
    teacher = load_teacher(_sidecar(file, output="logits", scores="softmax", hop_seconds=0.25, pooling="max"))
    assert teacher.contract.window == Window(samples=SAMPLES, hop=25, pooling="max")
    expected = _logits(windows).softmax(dim=2).amax(dim=1)
    torch.testing.assert_close(teacher.probabilities(waveforms, None), expected)
    weights = RANDOM.normal(0, 0.5, (12, SAMPLES)).astype(np.float32)
    linear(file, weights, frames=4)
    teacher = load_teacher(_sidecar(file, hop_seconds=0.25, least_seconds=0.48, pooling="mean"))
    assert (teacher.contract.pooling, teacher.contract.window) == ("mean", Window(samples=50, hop=25, least=48))
    frames = _logits(windows[:, :5], weights).sigmoid().reshape(2, 5, 4, 3)
    torch.testing.assert_close(teacher.probabilities(waveforms, None), frames.mean(dim=(1, 2)))
    with pytest.raises(TeacherError, match=r'frame by frame, \[-1, 4, 3\].*say "pooling": "mean" or "max"'):
        load_teacher(_sidecar(file))


@pytest.mark.parametrize(("kind", "zero"), [("INT8", 3), ("UINT8", 130)])
def test_integers_are_quantised_and_dequantised_by_the_scale_that_the_model_states(
    tmp_path: Path, kind: str, zero: int
) -> None:
    offset = 128 if kind == "UINT8" else 0
    file = linear(tmp_path / "m.tflite", WEIGHTS, scales=((0.02, zero), (1 / 256, offset - 128)), kind=kind)
    teacher = load_teacher(_sidecar(file))
    waveforms = _waveforms()
    heard = (torch.round(waveforms / 0.02) + zero).clamp(offset - 128, offset + 127)
    expected = _logits((heard - zero) * 0.02).sigmoid()
    torch.testing.assert_close(teacher.probabilities(waveforms, None), expected, rtol=0, atol=0.51 / 256)
    sketch = Sketch()
    first = sketch.tensor("samples", (1, SAMPLES), kind="INT16")
    sketch.op("CAST", [first], said := sketch.tensor("said", (1, SAMPLES)))
    sketch.save(file, [first], [said])
    with pytest.raises(TeacherError, match="its tensor 'samples' holds int16 without a scale; allowed are float32"):
        load_teacher(_sidecar(file, classes=[str(number) for number in range(SAMPLES)]))


def test_classes_come_from_the_sidecar_the_metadata_or_the_one_file_that_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = linear(tmp_path / "model.tflite", WEIGHTS, labels={"labels.txt": "x\ny\nz\n", "other.txt": "x\ny"})
    (tmp_path / "labels.txt").write_text("Dog bark\nCat, meow\nRain")  # no newline at the end
    (tmp_path / "readme.txt").write_text("Nothing.\n")
    with caplog.at_level(logging.INFO, "logitstore"):
        assert load_teacher(_sidecar(file, classes=None)).classes == ("x", "y", "z")
        linear(file, WEIGHTS)
        found = load_teacher(_sidecar(file, classes=None))
    assert found.classes == ("Dog bark", "Cat, meow", "Rain")
    assert "those of 'labels.txt' in its metadata" in caplog.text
    assert "labels.txt', which has as many names as it has outputs" in caplog.text
    named = load_teacher(_sidecar(file, classes="labels.txt"))
    assert named.classes == found.classes
    assert named.digest != load_teacher(_sidecar(file)).digest  # other classes are another teacher
    (tmp_path / "second.csv").write_text("index,name\n0,p\n1,q\n2,r\n")
    with pytest.raises(TeacherError, match=r"what its 3 scores are of, and 2 files of 3 names lie beside it; say"):
        load_teacher(_sidecar(file, classes=None))
    for wrong in ("../labels.txt", "none.txt", str(tmp_path / "labels.txt")):
        with pytest.raises(TeacherError, match=r"the classes are .*; allowed are a list of names, 'audioset', or"):
            load_teacher(_sidecar(file, classes=wrong))


def test_an_output_is_chosen_by_name_or_index(tmp_path: Path) -> None:
    sketch = Sketch()
    first = sketch.tensor("waveforms", (1, SAMPLES), batches=True)
    said = []
    for name, sign in (("minus", -1), ("plus", 1)):
        weights = sketch.tensor(f"{name} weights", WEIGHTS.shape, sign * WEIGHTS)
        target = sketch.tensor(name, (1, 3), batches=True)
        said.append(sketch.op("FULLY_CONNECTED", [first, weights, -1], target, "FullyConnectedOptions"))
    file = sketch.save(tmp_path / "model.tflite", [first], said)
    spec, expected = _sidecar(file, output="logits"), _logits(_waveforms()).sigmoid()
    for asked, sign in ((spec, -1), (f"{spec}?output=plus", 1), (f"{spec}?output=1", 1), (f"{spec}?output=0", -1)):
        said_now = load_teacher(asked).probabilities(_waveforms(), None)
        torch.testing.assert_close(said_now, expected if sign > 0 else 1 - expected)
    with pytest.raises(TeacherError, match="has no output 'third'; allowed are 0 'minus', 1 'plus', by index or name"):
        load_teacher(f"{spec}?output=third")
    chosen = load_teacher(_sidecar(file, output="logits", output_name="plus"))
    torch.testing.assert_close(chosen.probabilities(_waveforms(), None), expected)
    assert chosen.contract.arguments == {"output": "logits", "output_name": "plus"}


def test_files_that_are_not_what_the_spec_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = linear(tmp_path / "model.tflite", WEIGHTS)
    spec, content = _sidecar(file), file.read_bytes()
    for wrong, message in (
        (content[: len(content) // 2], "looks like a TensorFlow Lite model that is cut, damaged or"),
        (b"", "looks like an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, .* run `git lfs pull`"),
        (b"<!DOCTYPE html><html>", "a page of HTML or XML: what was downloaded is a web page"),
        (b"PK\x03\x04" + bytes(50), "looks like a ZIP archive, as torch.save"),
        (b"\x08\x08\x12\x07pytorch" + bytes(50), "looks like an ONNX model"),
    ):
        file.write_bytes(wrong)
        with pytest.raises(TeacherError, match=f"not a TensorFlow Lite model that ai-edge-litert can run; .*{message}"):
            load_teacher(spec)
    file.write_bytes(content)
    for changes, message in (
        ({"classes": ["a", "b"]}, r"gives scores of shape \[-1, 3\] and its sidecar names 2 classes"),
        ({"output": None}, "has no 'output', or null; it must have scores, sample_rate, output: fill it in"),
        ({"window_seconds": 1}, r"takes 50 samples \(0\.5 s at 100 Hz\) and its sidecar says window_seconds 1, which"),
    ):
        with pytest.raises(TeacherError, match=message):
            load_teacher(_sidecar(file, **changes))
    teacher = load_teacher(_sidecar(file))
    monkeypatch.setattr(teacher, "contract", teacher.restate(window=None).contract)
    with pytest.raises(ModelOutputError, match="failed on a batch"):
        teacher.probabilities(torch.zeros(1, 7), None)
    with pytest.raises(TeacherError, match=r"no file '.*none\.tflite'; give a TensorFlow Lite model"):
        load_teacher(f"tflite:{tmp_path / 'none.tflite'}")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'ai-edge-litert'; .*'logitstore\[tflite\]'"):
        load_teacher(spec)


def _birdnet(folder: Path, classes: int = 4) -> Any:
    """The weights of a model as BirdNET's: 3 s at 48 kHz in, logits out, labels without a newline at their end."""
    folder.mkdir()
    weights = np.random.default_rng(1).normal(0, 0.1, (classes, 144_000)).astype(np.float32)
    linear(folder / "Any_Model_FP32.tflite", weights, last=None)
    linear(folder / "Any_MData_Model.tflite", weights[:, :3], last=None)
    labels = [f"Genus species{number}_Common, name {number}" for number in range(classes)]
    (folder / "Any_Labels.txt").write_text("\n".join(labels))
    return weights


def test_birdnet_is_heard_as_its_own_analyzer_hears(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = _birdnet(tmp_path / "model")
    with caplog.at_level(logging.WARNING, "logitstore"):
        teacher = load_teacher(f"birdnet:{tmp_path / 'model'}")
    assert "under the licence CC BY-NC-SA 4.0: not for commercial use" in caplog.text
    says = teacher.contract
    assert (says.name, says.sample_rate, says.trained_seconds, says.non_commercial) == ("birdnet", 48_000, 3.0, True)
    assert says.stored()["licence"] == "CC BY-NC-SA 4.0"
    assert teacher.classes[1] == "Genus species1_Common, name 1"
    for seconds, chunks in ((1.0, 1), (3.0, 1), (4.4, 1), (4.5, 2), (7.6, 3)):
        waveforms = _waveforms(2, round(seconds * 48_000))
        heard = F.pad(waveforms, (0, 9 * 48_000))[:, : chunks * 144_000].reshape(2, chunks, 144_000)
        logits = _logits(heard, weights)
        assert float(logits.abs().max()) > 1
        expected = (1 / (1 + torch.exp(-logits.clamp(-15, 15)))).mean(dim=1)
        torch.testing.assert_close(teacher.probabilities(waveforms, None), expected, rtol=0, atol=1e-4)
    cut = teacher._as_probabilities(torch.tensor([-40.0, 40.0]))  # type: ignore[attr-defined]
    torch.testing.assert_close(cut, 1 / (1 + torch.exp(torch.tensor([15.0, -15.0]))), rtol=1e-5, atol=0)
    loudest = load_teacher(f"birdnet:{tmp_path / 'model'}?pooling=max")
    assert loudest.digest != teacher.digest
    for rest, message in (
        ("?pooling=sum", "pooling is 'sum'; allowed are mean and max"),
        ("/Any_MData_Model.tflite", r"takes 3 samples \(.*\) and its sidecar says window_seconds 3, which is 144000"),
    ):
        with pytest.raises(TeacherError, match=message):
            load_teacher(f"birdnet:{tmp_path / 'model'}{rest}")
    (tmp_path / "model" / "Any_Model_FP32.tflite").unlink()
    with pytest.raises(TeacherError, match=r"has 0 files \*\.tflite \(none\); name the one"):
        load_teacher(f"birdnet:{tmp_path / 'model'}")
