"""``export-student``: files that say what the student says, at any length, and are teachers at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from logitstore.cli.export_student import export_student_command
from logitstore.cli.main import cli
from logitstore.errors import MissingExtraError, ModelOutputError, RunError, TeacherError
from logitstore.jobs.export_student import ExportOptions, export_student
from logitstore.models.registry import build
from logitstore.models.tagger import probabilities
from logitstore.training.runs import load_run, save_run
from logitstore.views.ops.base import Place
from logitstore.views.recipe import draw, load_recipe
from logitstore.views.recipe import masks as masks_of
from students import export
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

CLASSES = ("low", "high", "noise")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn4": ("softmax", {"width": 4}),
    "cnn6": ("sigmoid", {"sample_rate": 8000}),
    "mobile": ("sigmoid", {"width": 0.05}),
    "ced-tiny": ("sigmoid", {"dim": 32, "depth": 1, "heads": 2, "frames": 96}),
}
#: Whose files take waveforms alone; those of the others take masks too.
UNMASKED = "cnn6"


pytestmark = pytest.mark.usefixtures("one_thread")


def _run(folder: Path, name: str) -> str:
    """A run whose answers depend on what it hears: statistics of real batches, and a loud head."""
    scores, args = FAMILIES[name]
    torch.manual_seed(0)
    model: Any = build(name, 3, scores=scores, **args)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for seed in range(3):
            model.train()(_sounds(8, model.front_end.sample_rate // 2, seed))
        linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        logits = model.eval()(_sounds(16, model.front_end.sample_rate // 2, 99))
        linear.weight.mul_(1.0 / logits.std(dim=0)[:, None])
        linear.bias.copy_(-(logits - linear.bias).mean(dim=0) / logits.std(dim=0))
    training = {"store": {"clip_seconds": 0.5}}
    save_run(folder, name, args, CLASSES, scores, model.front_end.sample_rate, model, {"training": training})
    return str(folder)


def _sounds(clips: int, samples: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    tones = np.sin(np.arange(samples) * rng.uniform(0.02, 2.5, (clips, 1)))
    loudness = 10 ** rng.uniform(-2, -0.3, (clips, 1))
    return torch.from_numpy((loudness * (tones + rng.normal(0, 0.1, (clips, samples)))).astype(np.float32))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Path]]:
    """The run folder and the exported file of a family, made once."""

    @cache
    def make(name: str) -> tuple[str, Path]:
        folder = tmp_path_factory.mktemp(name)
        run = _run(folder / "run", name)
        found = export_student(ExportOptions(run=run, out=str(folder / "model.onnx"), masks=name != UNMASKED))
        assert found.files[0].agreement.largest < 1e-4
        assert len(found.files[0].agreement.batches) >= 6
        return run, folder / "model.onnx"

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_student_is_a_teacher_that_says_what_the_run_says(exported: Any, name: str) -> None:
    run, file = exported(name)
    model = load_run(run).model
    teacher = load_teacher(f"onnx:{file}")
    rate = model.front_end.sample_rate
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (CLASSES, model.scores, rate)
    assert teacher.contract.trained_seconds == 0.5
    answers = []
    for clips, samples in ((1, export.shortest(model)), (5, rate // 7), (4, rate), (2, 3 * rate + 1)):
        waveforms = _sounds(clips, samples, seed=samples)
        with torch.inference_mode():
            expected = probabilities(model(waveforms), model.scores)
        found = teacher.probabilities(waveforms, None)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        answers.append(found)
    assert float(torch.cat(answers).std(dim=0).max()) > 0.02  # not one answer for everything
    assert teacher.takes_masks == (name != UNMASKED)
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx", "model.onnx.json", "run"]
    content = file.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    with pytest.raises(ModelOutputError, match="failed on a batch"):
        teacher.probabilities(torch.zeros(2, export.shortest(model) - 1), None)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != UNMASKED])
def test_a_file_that_takes_masks_hears_what_the_run_hears(exported: Any, name: str) -> None:
    run, file = exported(name)
    model, teacher = load_run(run).model, load_teacher(f"onnx:{file}")
    recipe, place = load_recipe("ced"), Place(32000, 16000)
    Ensemble([teacher], sample_rate=16000).check(recipe, 2.0)
    keys = [(f"{number}.wav", 0, 32000) for number in range(24)]
    drawn = draw(recipe, seed=7, keys=keys, view=0, lengths=np.full(24, 32000), place=place)
    waveforms, masks = _sounds(24, 32000, seed=3), masks_of(recipe, drawn)
    assert masks is not None
    with torch.inference_mode():
        expected = probabilities(model(waveforms, masks.to("cpu")), model.scores)
        unmasked = probabilities(model(waveforms), model.scores)
    torch.testing.assert_close(teacher.probabilities(waveforms, masks), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(teacher.probabilities(waveforms, None), unmasked, rtol=0, atol=1e-4)
    assert float((expected - unmasked).abs().max()) > 0.01


def test_a_file_needs_no_sidecar_and_none_may_contradict_it(tmp_path: Path, exported: Any) -> None:
    run, file = exported("cnn4")
    alone = tmp_path / "student.onnx"
    alone.write_bytes(file.read_bytes())
    with_sidecar, teacher = load_teacher(f"onnx:{file}"), load_teacher(f"onnx:{alone}")
    assert teacher.contract == with_sidecar.contract
    assert teacher.contract.front_end == load_run(run).model.front_end.to_dict()
    assert teacher.contract.fill == {"stage": load_run(run).model.fill_stage, "value": 0.0}
    beside = tmp_path / "student.onnx.json"
    beside.write_text(json.dumps({"clip_seconds": 4, "licence": "CC BY-NC 4.0", "hop_seconds": None}))
    said = load_teacher(f"onnx:{alone}").contract
    assert (said.trained_seconds, said.licence, said.non_commercial) == (4.0, "CC BY-NC 4.0", True)
    for key, value, found in (
        ("sample_rate", 8000, "sample_rate 8000 and the model itself 16000"),
        ("classes", ["high", "low", "noise"], r"3 names \(high, low, noise\) and the model itself 3 names \(low"),
        ("output", "logits", "output 'logits' and the model itself 'probabilities'"),
    ):
        beside.write_text(json.dumps({key: value}))
        with pytest.raises(TeacherError, match=rf"{found}.*take '{key}' out of the sidecar"):
            load_teacher(f"onnx:{alone}")


def test_a_long_clip_is_cut_in_the_graph_as_the_model_cuts_it(exported: Any) -> None:
    """96 frames a piece: one, one and a frame, two full (the second is left out), two and a bit."""
    run, file = exported("ced-tiny")
    model, teacher = load_run(run).model, load_teacher(f"onnx:{file}")
    answers, whole = [], _sounds(2, 300 * 160, seed=1)
    for frames in (15, 95, 96, 97, 111, 191, 192, 193, 288, 300):
        waveforms = whole[:, : (frames - 1) * 160]
        with torch.inference_mode():
            expected = torch.sigmoid(model(waveforms))
        answers.append(teacher.probabilities(waveforms, None))
        torch.testing.assert_close(answers[-1], expected, rtol=0, atol=1e-5)
    assert float((answers[2] - answers[3]).abs().max()) > 1e-4  # a piece more is heard
    assert float((answers[2] - answers[6]).abs().max()) < 1e-2  # and here it is not


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,label,fold"]
    for number in range(9):
        label = CLASSES[number % 3]
        rng, at = np.random.default_rng(number), np.arange(8000)
        sound = {"low": np.sin(0.05 * at), "high": np.sin(1.5 * at), "noise": rng.normal(0, 0.3, 8000)}[label]
        soundfile.write(folder / f"{number}.wav", 0.3 * sound + rng.normal(0, 0.01, 8000), 16000)
        rows.append(f"{number}.wav,{label},{number // 3}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_8_bits_of_convolutions_are_measured_on_audio_and_their_cost_is_said(
    tmp_path: Path, exported: Any, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = exported("cnn4")
    monkeypatch.setattr(export, "graph_of", lambda *_: onnx.load(file))
    out = tmp_path / "new" / "student.onnx"
    arguments = [
        run, "--out", str(out), "--int8", "--eval", str(labelled / "labels.csv"), "--audio-root", str(labelled),
        "--label-column", "label", "--eval-where", "fold > 0", "--clip-seconds", "0.5", "--masks",
    ]  # fmt: skip
    told = CliRunner().invoke(export_student_command, [*arguments, "--json"], catch_exceptions=False)
    found = json.loads(told.stdout)
    plain, small = found["files"]
    assert small["path"] == str(out.with_name("student.int8.onnx"))
    assert small["method"] == "static"
    assert small["heard"].startswith("6 clips of ")
    assert (small["bytes"], plain["bytes"]) == (Path(small["path"]).stat().st_size, out.stat().st_size)
    weights = {item.name: item.data_type for item in onnx.load(small["path"]).graph.initializer}
    kinds = [kind for name, kind in weights.items() if "blocks" in name and name.endswith("weight_quantized")]
    assert kinds == [onnx.TensorProto.INT8] * 3
    assert weights["model.blocks.0.0.weight_int8"] == onnx.TensorProto.INT8  # the first, with its activations
    assert small["weights"]["eight_bits"] == 4 * 9 * (1 + 8 + 32 + 128) + 3 * 32
    assert list(small["weights"]["floating"]) == ["of the front end, not learnt", "biases and normalisation"]
    assert (small["agreement"]["top1"], small["warning"], plain["weights"]) == (1.0, None, None)
    assert 1e-6 < small["agreement"]["largest"] < 0.1
    told = CliRunner().invoke(
        export_student_command, [*arguments, "--activation-bits", "16", "--json"], catch_exceptions=False
    )
    nearer = json.loads(told.stdout)["files"][1]
    assert nearer["agreement"]["mean"] < 0.5 * small["agreement"]["mean"]
    assert nearer["bytes"] == pytest.approx(small["bytes"], rel=0.02)
    assert plain["mAP"] == pytest.approx(found["mAP"], abs=1e-6)
    assert 0 < small["mAP"] <= 1
    told = CliRunner().invoke(
        cli,
        ["evaluate", str(labelled / "labels.csv"), "--audio-root", str(labelled), "--label-column", "label", "--where",
         "fold > 0", "--teacher", f"onnx:{out}", "--clip-seconds", "0.5", "--json"],
        catch_exceptions=False,
    )  # fmt: skip
    assert json.loads(told.stdout)["members"][0]["mAP"] == pytest.approx(plain["mAP"], abs=1e-9)
    teacher = load_teacher(f"onnx:{small['path']}")
    said = teacher.probabilities(_sounds(3, 4000, 0), None)
    torch.testing.assert_close(said.sum(dim=1), torch.ones(3), rtol=0, atol=1e-4)
    with pytest.raises(RunError, match=r"needs audio to measure the ranges .* give --calibrate AUDIO"):
        export_student(ExportOptions(run=run, out=str(tmp_path / "x.onnx"), int8=True))
    assert not (tmp_path / "x.onnx").exists()


def test_8_bits_of_a_transformer_need_no_audio(tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, file = exported("ced-tiny")
    monkeypatch.setattr(export, "graph_of", lambda *_: onnx.load(file))
    out = tmp_path / "student.onnx"
    told = CliRunner().invoke(export_student_command, [run, "--out", str(out), "--int8"], catch_exceptions=False)
    lines = told.stdout.splitlines()
    assert (
        lines[0]
        == f"{run}: sigmoid probabilities of 3 classes, of any number of clips at 16000 Hz of 257 samples or more"
    )
    assert lines[1].startswith(f"wrote {out}: 0.")
    assert "8-bit weights, ranges of matrix products found as it runs" in lines[3]
    assert "on test signals: 10 batches of 1 to 3 clips, 0.02 to 15.00 s" in lines[4]
    assert " weights of 8 bits; floats: 16,962 of the front end, not learnt; " in lines[5]
    assert "added or looked up" in lines[5]
    patches = [node for node in onnx.load(tmp_path / "student.int8.onnx").graph.node if node.op_type == "Conv"]
    assert [node.input[1].endswith("_from_int8") for node in patches] == [True]
    small = load_teacher(f"onnx:{tmp_path / 'student.int8.onnx'}")
    plain = load_teacher(f"onnx:{out}")
    waveforms = _sounds(4, 40000, 5)  # three pieces
    torch.testing.assert_close(
        small.probabilities(waveforms, None), plain.probabilities(waveforms, None), rtol=0, atol=0.1
    )
    assert small.digest != plain.digest
    with pytest.raises(RunError, match=r"--activation-bits is for convolutions, and run .* is mostly matrix products"):
        export_student(ExportOptions(run=run, out=str(out), int8=True, activation_bits=16))


def test_a_file_that_says_something_else_is_never_put_in_place(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = exported("cnn4")
    monkeypatch.setattr(export, "graph_of", lambda *_: onnx.load(file))
    other = load_run(run)
    with torch.no_grad():
        other.model.output.bias.add_(torch.tensor([0.0, 0.001, 0.0]))  # type: ignore[union-attr, operator]
    with pytest.raises(RunError, match=r"differs from the student by 0\.000\d+ and may by 0\.0001; nothing was"):
        export.checked(other)
    out = tmp_path / "kept.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(RunError, match="nothing was written"):
        export_student(ExportOptions(run=run, out=str(out)))
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.onnx"]


def test_what_cannot_be_exported_is_one_clear_line(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = exported("cnn4")
    asked = ExportOptions(run=run, out=str(tmp_path / "student.onnx"))
    for changes, message in (
        ({"out": "student.pt"}, r"--out is 'student\.pt'; give a file that ends in \.onnx"),
        ({"calibrate": "audio"}, "--calibrate is for 8-bit files, and there is no --int8"),
        ({"activation_bits": 16}, "--activation-bits is for 8-bit files, and there is no --int8"),
        ({"int8": True, "activation_bits": 4}, "--activation-bits is 4; it must be one of 8, 16"),
        ({"label_column": "label"}, "--label-column says how to evaluate, and there is no --eval MANIFEST"),
        ({"eval_manifest": "labels.csv"}, "--eval is given without --label-column"),
        ({"run": str(tmp_path)}, r"is not a run folder: it has no run\.json"),
    ):
        with pytest.raises(RunError, match=message) as caught:
            export_student(replace(asked, **changes))
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(export, "graph_of", lambda *_: onnx.load(file))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written: "):
        export_student(replace(asked, out=str(tmp_path / "file" / "student.onnx")))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"exporting a student needs the package 'onnxscript'; .*\[onnx\]"):
        export_student(asked)
