"""``onnx:FILE`` through onnxruntime, with its sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from logitstore.errors import ModelOutputError, TeacherError
from logitstore.views.recipe import Masks, load_recipe
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


def test_windows_hop_pool_and_leave_out_a_rest_as_the_sidecar_says(tmp_path: Path) -> None:
    waveforms = _waveforms()
    windows = F.pad(waveforms, (0, 200)).unfold(1, 600, 300)  # (B, 5, 600)
    said = torch.stack([_expected(windows[:, at]) for at in range(windows.shape[1])], dim=1)
    file, hop, least = tmp_path / "model.onnx", 300 / 16000, 500 / 16000
    for batch in ("clips", 1, 2):
        teacher = load_teacher(_save(file, samples=600, batch=batch, hop_seconds=hop, least_seconds=least))
        assert teacher.contract.window == Window(samples=600, hop=300, least=500)
        torch.testing.assert_close(teacher.probabilities(waveforms, None), said[:, :4].mean(dim=1))
    loudest = load_teacher(_save(file, samples=600, hop_seconds=hop, pooling="max"))
    torch.testing.assert_close(loudest.probabilities(waveforms, None), said.amax(dim=1))
    asked = load_teacher(_save(file, window_seconds=600 / 16000))  # of a model of any length
    torch.testing.assert_close(asked.probabilities(waveforms, None), said[:, [0, 2, 4]].mean(dim=1))
    for wrong, message in (
        ({"samples": 600, "window_seconds": 1}, r"takes 600 samples \(0\.0375 s at 16,000 Hz\) .* window_seconds 1,"),
        ({"samples": 600, "hop_seconds": 1}, r"hop_seconds is 1; allowed is up to its window, 0\.0375 s"),
        ({"least_seconds": 1}, "hears any length as a whole; say window_seconds with least_seconds"),
        ({"pooling": "median"}, "the pooling is 'median'; allowed are 'mean' and 'max'"),
    ):
        with pytest.raises(TeacherError, match=message):
            load_teacher(_save(file, **wrong))


def _save_masked(file: Path, samples: Any = "samples", **sidecar: Any) -> str:
    """Three numbers: where the mask begins in seconds, up to what it reaches in 100 kHz, the sum of what was heard."""
    helper, kinds, array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    ends = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1e-5, 0]], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["waveforms", "axis"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["sum", "third"], ["heard"]),
            helper.make_node("MatMul", ["masks", "ends"], ["masked"]),
            helper.make_node("Add", ["masked", "heard"], ["scores"]),
        ],
        "masked",
        [
            helper.make_tensor_value_info("waveforms", kinds.FLOAT, ["clips", 1, samples]),
            helper.make_tensor_value_info("masks", kinds.FLOAT, ["clips", 4]),
        ],
        [helper.make_tensor_value_info("scores", kinds.FLOAT, ["clips", 3])],
        [array(np.array([2]), "axis"), array(np.array([[0, 0, 1]], dtype=np.float32), "third"), array(ends, "ends")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    file.with_name(file.name + ".json").write_text(json.dumps(SIDECAR | sidecar), encoding="utf-8")
    return f"onnx:{file}"


def test_a_second_input_takes_masks_in_seconds_and_hz(tmp_path: Path) -> None:
    teacher = load_teacher(_save_masked(tmp_path / "model.onnx"))
    assert teacher.takes_masks
    Ensemble([teacher], sample_rate=16000).check(load_recipe("ced"))
    ends = np.array([[0.02, 0.08, 100, 3000], [0, 0, 0, 0], [0.05, 0.06, 0, 0]])
    masks, waveforms = Masks(*ends.T), _waveforms()
    expected = torch.from_numpy(np.stack([ends[:, 0], ends[:, 3] / 1e5, waveforms.sum(dim=1)], axis=1)).float()
    torch.testing.assert_close(teacher.probabilities(waveforms, masks), expected)
    torch.testing.assert_close(teacher.probabilities(waveforms, masks.to("cpu")), expected)
    nothing = teacher.probabilities(waveforms, None)
    torch.testing.assert_close(nothing, expected * torch.tensor([0, 0, 1]))
    windows = load_teacher(_save_masked(tmp_path / "model.onnx", samples=800)).probabilities(waveforms, masks)
    expected[:, 0] -= 0.025  # the second of two windows begins at .05 s
    expected[:, 2] /= 2
    torch.testing.assert_close(windows, expected)


def test_inputs_and_answers_of_other_shapes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    for shape, message in (
        (
            ["clips", 64, "frames"],
            r"takes an input of shape \['clips', 64, 'frames'\].*a model of spectrograms is none",
        ),
        (["clips", 1, "frames"], r"answers frame by frame, \['clips', 1, 'frames'\].*\"pooling\": \"mean\" or \"max\""),
        (["clips", 7], r"gives scores of shape \['clips', 7\] and its sidecar names 3 classes"),
    ):
        with pytest.raises(TeacherError, match=message):
            load_teacher(_save_same(file, shape))
    teacher = load_teacher(_save_same(file, ["clips", "samples"]))
    with pytest.raises(
        ModelOutputError, match=r"gave scores of shape \(3, 1600\) for 3 clips; \(clips, 3 classes\) are"
    ):
        teacher.probabilities(_waveforms(), None)
    frames = load_teacher(_save_same(file, ["clips", "frames", 1], classes=["loud"], pooling="max"))
    torch.testing.assert_close(frames.probabilities(_waveforms(), None), _waveforms().amax(dim=1, keepdim=True))
    assert frames.contract.pooling == "max"


def _save_same(file: Path, shape: list[Any], **sidecar: Any) -> str:
    """A model that gives what it takes."""
    given, said = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("in", "out"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["in"], ["out"])], "same", [given], [said])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), file)
    file.with_name(file.name + ".json").write_text(json.dumps(SIDECAR | sidecar), encoding="utf-8")
    return f"onnx:{file}"


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
