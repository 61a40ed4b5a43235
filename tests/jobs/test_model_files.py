"""Model files of other programs, ONNX and TensorFlow Lite, all the way: side files, a store, a student of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import logitstore
from logitstore.cli.main import cli
from logitstore.digests import digest
from logitstore.views.recipe import masks
from teachers.registry import load_teacher
from tests.stores import TONES, write_audio

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

NAMES = [f"tone {hz} Hz" for hz in TONES]
WINDOW, RATE = 8_000, 16_000

pytestmark = pytest.mark.usefixtures("one_thread")


def _waves() -> Any:
    """Sines and cosines of the tones: float32 (16, samples of a window)."""
    angles = 2 * np.pi * np.array(TONES)[:, None] * np.arange(WINDOW) / RATE
    return (np.concatenate([np.sin(angles), np.cos(angles)]) * 8 / WINDOW).astype(np.float32)


def _onnx(file: Path) -> Path:
    """How loud each tone is, less what is masked of it: sigmoid(6 |product| - 1), with masks as a second input."""
    helper, kinds, array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("MatMul", ["waveforms", "waves"], ["product"]),
        helper.make_node("Abs", ["product"], ["size"]),
        helper.make_node("MatMul", ["size", "both"], ["level"]),
        helper.make_node("Gather", ["masks", "low"], ["from"], axis=1),
        helper.make_node("Gather", ["masks", "high"], ["to"], axis=1),
        helper.make_node("LessOrEqual", ["from", "tones"], ["above"]),
        helper.make_node("Less", ["tones", "to"], ["below"]),
        helper.make_node("And", ["above", "below"], ["hidden"]),
        helper.make_node("Where", ["hidden", "nothing", "level"], ["heard"]),
        helper.make_node("Add", ["heard", "less"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    both = np.concatenate([np.eye(8), np.eye(8)]).astype(np.float32) * 6
    weights = {
        "waves": _waves().T, "both": both, "less": np.full(8, -1, np.float32), "nothing": np.zeros(1, np.float32),
        "tones": np.array([TONES], np.float32), "low": np.array([2]), "high": np.array([3]),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tones",
        [
            helper.make_tensor_value_info("waveforms", kinds.FLOAT, ["clips", WINDOW]),
            helper.make_tensor_value_info("masks", kinds.FLOAT, ["clips", 4]),
        ],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["clips", 8])],
        [array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def _init(file: Path, *arguments: str) -> dict[str, Any]:
    told = CliRunner().invoke(cli, ["teachers", "init", str(file), "--json", *arguments], catch_exceptions=False)
    return {line["key"]: (line["known"], line["value"]) for line in json.loads(told.stdout)["keys"]}


def _fill_in(file: Path, **values: Any) -> None:
    sidecar = file.with_name(f"{file.name}.json")
    document = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(document | values))


def test_files_become_teachers_a_store_and_a_student(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="the extra `tflite` is not installed")
    from tests.tflites import linear

    write_audio(tmp_path / "audio", 12)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    one, two = _onnx(tmp_path / "one.onnx"), linear(tmp_path / "two.tflite", 9 * _waves()[:8], last=None)
    found = _init(one)
    assert found["classes"] == ("guess", "labels.txt")
    assert (found["scores"], found["output"]) == (("told", "sigmoid"), ("told", "probabilities"))
    assert found["sample_rate"] == ("open", None)  # 8,000 samples may be 1 s, or half a second at 16 kHz
    _fill_in(one, sample_rate=RATE, hop_seconds=0.25, clip_seconds=1.0)
    assert _init(two)["scores"] == ("open", None)
    _fill_in(two, sample_rate=RATE, scores="sigmoid", pooling="max", licence="CC BY-NC 4.0", origin="here")
    specs, audio = [f"onnx:{one}", f"tflite:{two}"], str(tmp_path / "audio")
    asked = {"source": audio, "views": 2, "topk": 8, "workers": 1, "device": "cpu"}
    logitstore.build(out=str(tmp_path / "both"), teachers=specs, **asked)
    store = logitstore.open_store(str(tmp_path / "both"))
    assert (store.manifest.recipe.name, store.manifest.clip_samples) == ("wave", RATE)
    first, second = (member.contract for member in store.manifest.teachers)
    assert first["window"] == {"samples": WINDOW, "hop": 4000, "pooling": "mean", "least": 1}
    assert (second["window"]["pooling"], second["licence"], second["origin"]) == ("max", "CC BY-NC 4.0", "here")
    logitstore.build(out=str(tmp_path / "masked"), teachers=specs[:1], **asked)
    masked = logitstore.open_store(str(tmp_path / "masked"))
    assert masked.manifest.recipe.name == "ced"
    quiet = 1 / (1 + np.exp(1)) + 0.01  # what the model says of a tone that it cannot hear
    hidden: list[float] = []
    for view in range(2):
        drawn = masks(masked.manifest.recipe, masked.draws(view))
        assert drawn is not None
        classes, said = masked.targets(view, range(12))
        tones = np.array(TONES)[classes]
        hidden += said[(drawn.freq_low[:, None] <= tones) & (tones < drawn.freq_high[:, None])].tolist()
    assert hidden
    assert max(hidden) < quiet
    trained = logitstore.train_student(
        store=str(tmp_path / "both"), audio_root=audio, out=str(tmp_path / "run"), student="cnn4",
        model_args={"width": 2, "mels": 16, "hop_ms": 40}, steps=3, batch_size=8, device="cpu", workers=1,
    )  # fmt: skip
    assert trained.result.steps == 3


def test_a_sidecar_is_proposed_from_what_the_model_tells(tmp_path: Path) -> None:
    file = _onnx(tmp_path / "model.onnx")
    model = onnx.load(file)
    told = {"sample_rate": "16000", "classes": json.dumps(NAMES), "scores": "sometimes", "stride": "8"}
    onnx.helper.set_model_props(model, told)
    onnx.save(model, file)
    run = CliRunner().invoke(cli, ["teachers", "init", str(file)], catch_exceptions=False)
    lines = run.stdout.splitlines()
    assert lines[0].startswith(f"{file}: takes waveforms tensor(float) (clips, 8000), masks tensor(float) (clips, 4);")
    assert lines[1] == f"wrote {file}.json"
    assert lines[2].split(maxsplit=2)[:2] == ["classes", "told"]
    assert [line.split()[:3] for line in lines[3:]] == [
        ["scores", "told", '"sigmoid":'], ["sample_rate", "told", "16000:"], ["output", "told", '"probabilities":']
    ]  # fmt: skip
    assert load_teacher(f"onnx:{file}").classes == tuple(NAMES)
    before = digest(Path(f"{file}.json").read_bytes())
    again = CliRunner().invoke(cli, ["teachers", "init", str(file)])
    assert again.exit_code != 0
    assert "is there already; --force writes over it" in str(again.exception or again.output)
    assert digest(Path(f"{file}.json").read_bytes()) == before
    other = tmp_path / "model.pt"
    other.write_bytes(b"")
    wrong = CliRunner().invoke(cli, ["teachers", "init", str(other)])
    assert "sidecars are for files that end in .onnx or .tflite" in str(wrong.exception or wrong.output)


def test_a_sidecar_with_null_is_no_sidecar_yet(tmp_path: Path) -> None:
    file = _onnx(tmp_path / "model.onnx")
    found = _init(file)
    assert found["classes"] == found["sample_rate"] == ("open", None)
    with pytest.raises(logitstore.TeacherError, match=r"has no 'sample_rate', or null; it must have .*: fill it in"):
        load_teacher(f"onnx:{file}")
    _fill_in(file, sample_rate=RATE)
    with pytest.raises(
        logitstore.TeacherError, match=r"what its 8 scores are of, and no file of as many names is there"
    ):
        load_teacher(f"onnx:{file}")
    _fill_in(file, classes=NAMES)
    waveforms = torch.sin(2 * torch.pi * TONES[2] * torch.arange(WINDOW) / RATE)[None]
    assert int(load_teacher(f"onnx:{file}").probabilities(waveforms, None).argmax()) == 2
