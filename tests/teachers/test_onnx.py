"""``onnx:FILE`` through onnxruntime, with its sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.errors import TeacherError
from logitstore.views.recipe import load_recipe
from teachers.contract import Window
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher
from teachers.specs.onnx import external_files

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

SIDECAR = {"classes": ["a", "b", "c"], "scores": "sigmoid", "sample_rate": 16000}
WEIGHTS = np.array([[0.5, -0.5, 1.0]], dtype=np.float32)


def _save(file: Path, *, batch: Any = "clips", samples: Any = "samples", logits: bool = False, **sidecar: Any) -> str:
    """Mean absolute value times three weights, through a sigmoid or not."""
    helper, kinds = onnx.helper, onnx.TensorProto
    last = "logits" if logits else "scores"
    nodes = [
        helper.make_node("Abs", ["waveforms"], ["loud"]),
        helper.make_node("ReduceMean", ["loud", "axes"], ["level"], keepdims=1),
        helper.make_node("MatMul", ["level", "weights"], ["logits"]),
    ]
    nodes += [] if logits else [helper.make_node("Sigmoid", ["logits"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "level",
        [helper.make_tensor_value_info("waveforms", kinds.FLOAT, [batch, samples])],
        [helper.make_tensor_value_info(last, kinds.FLOAT, [batch, 3])],
        [onnx.numpy_helper.from_array(np.array([1]), "axes"), onnx.numpy_helper.from_array(WEIGHTS, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    file.with_name(file.name + ".json").write_text(json.dumps(SIDECAR | sidecar), encoding="utf-8")
    return f"onnx:{file}"


def _waveforms(clips: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (clips, 1600)).astype(np.float32))


def _expected(waveforms: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(waveforms.abs().mean(dim=1, keepdim=True) @ torch.from_numpy(WEIGHTS))


@pytest.mark.parametrize("batch", ["clips", 1, 2])
def test_scores_are_the_models_whatever_its_batch_size(tmp_path: Path, batch: Any) -> None:
    teacher = load_teacher(_save(tmp_path / "model.onnx", batch=batch))
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (("a", "b", "c"), "sigmoid", 16000)
    torch.testing.assert_close(teacher.probabilities(_waveforms(), None), _expected(_waveforms()))


def test_logits_become_probabilities_where_the_sidecar_says_so(tmp_path: Path) -> None:
    teacher = load_teacher(_save(tmp_path / "model.onnx", logits=True, output="logits"))
    torch.testing.assert_close(teacher.probabilities(_waveforms(), None), _expected(_waveforms()))


def test_masks_are_refused(tmp_path: Path) -> None:
    ensemble = Ensemble([load_teacher(_save(tmp_path / "model.onnx"))], sample_rate=16000)
    ensemble.check(load_recipe("none"))
    with pytest.raises(TeacherError, match="takes only waveforms"):
        ensemble.check(load_recipe("ced"))


def test_the_digest_follows_the_weights(tmp_path: Path) -> None:
    one, two = load_teacher(_save(tmp_path / "1.onnx")), load_teacher(_save(tmp_path / "2.onnx", logits=True))
    assert one.digest != two.digest
    assert one.digest == load_teacher(_save(tmp_path / "3.onnx")).digest


def test_a_model_of_one_length_hears_windows(tmp_path: Path) -> None:
    teacher = load_teacher(_save(tmp_path / "model.onnx", samples=700))
    assert teacher.contract.window == Window(samples=700, hop=700)
    waveforms = _waveforms()
    windows = torch.cat([waveforms, torch.zeros(3, 500)], dim=1).reshape(3, 3, 700)  # the last one filled up
    expected = torch.stack([_expected(windows[:, number]) for number in range(3)]).mean(dim=0)
    torch.testing.assert_close(teacher.probabilities(waveforms, None), expected)
    shorter = torch.cat([waveforms[:, :300], torch.zeros(3, 400)], dim=1)
    torch.testing.assert_close(teacher.probabilities(waveforms[:, :300], None), _expected(shorter))


def test_files_that_are_not_what_the_spec_says(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(TeacherError, match="no file"):
        load_teacher(f"onnx:{file}")
    spec = _save(file, classes=["a", "b"])
    with pytest.raises(TeacherError, match="its sidecar names 2 classes"):
        load_teacher(spec)
    spec = _save(file, sample_rate="fast")
    with pytest.raises(TeacherError, match="the sample rate is 'fast'"):
        load_teacher(spec)
    spec = _save(file, clip_seconds=0)
    with pytest.raises(TeacherError, match="clip_seconds is 0; it must be a number of seconds above 0"):
        load_teacher(spec)
    spec = _save(file, labels=[])
    with pytest.raises(TeacherError, match="unknown key 'labels'; allowed are classes, scores, sample_rate, output"):
        load_teacher(spec)
    sidecar = file.with_name("model.onnx.json")
    sidecar.write_text('{"classes": ["a"]}', encoding="utf-8")
    with pytest.raises(TeacherError, match="has no 'scores'"):
        load_teacher(spec)
    sidecar.write_text("{", encoding="utf-8")
    with pytest.raises(TeacherError, match="not readable JSON"):
        load_teacher(spec)
    sidecar.unlink()
    with pytest.raises(TeacherError, match=r"needs a sidecar 'model\.onnx\.json' beside it"):
        load_teacher(spec)
    sidecar.write_text(json.dumps(SIDECAR), encoding="utf-8")
    file.write_bytes(b"not an ONNX file")
    with pytest.raises(TeacherError, match="is not an ONNX model that onnxruntime can run") as caught:
        load_teacher(spec)
    assert "\n" not in str(caught.value)


def _save_apart(file: Path, factor: float, where: str) -> str:
    """The model with its weights in another file."""
    spec = _save(file)
    model = onnx.load(file)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(onnx.numpy_helper.from_array(WEIGHTS * np.float32(factor), "weights"))
    onnx.external_data_helper.set_external_data(weights, where)
    (file.parent / where).parent.mkdir(parents=True, exist_ok=True)
    (file.parent / where).unlink(missing_ok=True)
    onnx.save(model, file)
    return spec


@pytest.mark.parametrize("where", ["model.onnx.data", "weights.bin", "model.onnx_data", "weights", "deep/er/weights"])
def test_the_digest_follows_tensors_in_other_files(tmp_path: Path, where: str) -> None:
    found = []
    for factor in (1, 1, -2):
        teacher = load_teacher(_save_apart(tmp_path / "model.onnx", factor, where))
        torch.testing.assert_close(
            teacher.probabilities(_waveforms(), None),
            torch.sigmoid(factor * torch.logit(_expected(_waveforms()))),
        )
        found.append((teacher.digest, teacher.earlier_digests()[0]))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert (found[0][0] == found[0][1]) == (where == "model.onnx.data")  # as earlier releases had it


def test_tensors_of_an_inner_graph_are_found(tmp_path: Path) -> None:
    helper, kinds = onnx.helper, onnx.TensorProto
    inner = helper.make_tensor("x", kinds.FLOAT, [1], [1.0])
    inner.ClearField("float_data")
    inner.data_location = kinds.EXTERNAL
    inner.external_data.add(key="location", value="inner.bin")
    node = helper.make_node("Constant", [], ["y"], value=inner)
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("y", kinds.FLOAT, [1])])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([choice], "g", [], [helper.make_tensor_value_info("y", kinds.FLOAT, [1])])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    (tmp_path / "inner.bin").write_bytes(b"\0\0\0\0")
    assert external_files(tmp_path / "model.onnx", "onnx:model.onnx") == [tmp_path / "inner.bin"]


@pytest.mark.parametrize("location", ["../weights.bin", "a/../../weights.bin", "{}/weights.bin", "link.bin"])
def test_tensors_outside_of_the_models_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    spec = _save_apart(folder / "model.onnx", 1, "weights.bin")
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in (entry for tensor in model.graph.initializer for entry in tensor.external_data[:1]):
        entry.value = location.format(tmp_path)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(TeacherError, match=r"keeps tensors in '.*\.bin', outside of its folder"):
        load_teacher(spec)


def test_tensors_that_are_not_there_are_named(tmp_path: Path) -> None:
    spec = _save_apart(tmp_path / "model.onnx", 1, "weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(TeacherError, match=r"keeps tensors in 'weights\.bin', and there is no such file"):
        load_teacher(spec)


def test_a_cache_that_links_model_and_tensors_to_one_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "contents").mkdir()
    (tmp_path / "snapshot").mkdir()
    _save_apart(tmp_path / "contents" / "model.onnx", 1, "weights.bin")
    for name in ("model.onnx", "weights.bin", "model.onnx.json"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "contents" / name)
    found = external_files(tmp_path / "snapshot" / "model.onnx", "onnx:model.onnx")
    assert found == [tmp_path / "snapshot" / "weights.bin"]


def test_the_order_of_a_members_classes_stands_in_its_contract(tmp_path: Path) -> None:
    def contracts(*second: str) -> list[dict[str, Any]]:
        specs = [_save(tmp_path / "1.onnx"), _save(tmp_path / "2.onnx", classes=list(second))]
        ensemble = Ensemble([load_teacher(spec) for spec in specs], sample_rate=16000)
        return [member["contract"] for member in ensemble.describe()]

    assert contracts("a", "b", "c") == [{"output": "probabilities"}] * 2
    assert contracts("b", "a", "c")[0] == {"output": "probabilities"}
    assert contracts("b", "a", "c")[1] != contracts("c", "a", "b")[1]
