"""``--init``: students that start from published CED checkpoints and from runs, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.classes import audioset
from logitstore.errors import RunError, TeacherError
from logitstore.models.registry import build
from logitstore.training.runs import save_run
from students.init import InitReport, load_init
from teachers.registry import load_teacher

SMALL: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 3}
NAMES = tuple(row.display_name for row in audioset())
ABC = ("a", "b", "c")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(ced_reference: Path) -> Path:
    return ced_reference / "checkpoint.pt"


def _ced(classes: int = 3, seed: int = 1, **args: Any) -> Any:
    torch.manual_seed(seed)
    return build("ced-tiny", classes, **(SMALL | args))


def _saved(file: Path, model: Any, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> str:
    """A checkpoint as pretraining leaves it: the state of a model, changed."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({"model": state if change is None else change(state)}, file)
    return f"ced:{file}"


def _headless(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("outputlayer.")}


def _weights(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_published_checkpoint_is_heard_as_the_original_hears_it(checkpoint: Path) -> None:
    io = np.load(checkpoint.with_name("io.npz"))
    model = _ced(527)
    report = load_init(model, f"ced:{checkpoint}", False, NAMES)
    with torch.inference_mode():
        found = torch.sigmoid(model.eval()(torch.from_numpy(io["wave_1p0"]))).numpy()
    np.testing.assert_allclose(found, io["output_1p0"], atol=1e-4, rtol=0)
    assert report.loaded == {
        "blocks": 24, "freq_pos_embed": 1, "init_bn": 5, "norm": 2, "outputlayer": 4, "patch_embed": 2,
        "time_pos_embed": 1,
    }  # fmt: skip
    assert (report.adapted, report.made_anew, report.left_out) == ({}, {}, {"front_end": 2})
    assert report.lines() == (
        "loaded 39 tensors (blocks 24, freq_pos_embed 1, init_bn 5, norm 2, outputlayer 4, patch_embed 2, "
        f"time_pos_embed 1) from ced:{checkpoint}",
        "left out of the file 2 tensors (front_end 2)",
    )


def test_gradients_flow_through_a_published_checkpoint_under_a_new_head(checkpoint: Path) -> None:
    model, fresh = _ced(10), _ced(10)
    report = load_init(model, f"ced:{checkpoint}", True, tuple(f"class {number}" for number in range(10)))
    assert report.made_anew == {"outputlayer": 4}
    torch.testing.assert_close(model.outputlayer[1].weight, fresh.outputlayer[1].weight, rtol=0, atol=0)
    before = _weights(model)
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32))
    loss: Any = torch.nn.functional.binary_cross_entropy_with_logits(model.train()(waveforms), torch.ones(2, 10))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert name == "time_pos_embed" or float(parameter.grad.abs().max()) > 0, name
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], model.blocks[0].attn.qkv.weight)
    with torch.inference_mode():
        after = torch.nn.functional.binary_cross_entropy_with_logits(model(waveforms), torch.ones(2, 10))
    assert float(after) < loss.item()


def test_masked_autoencoders_come_without_a_head_and_with_a_decoder(tmp_path: Path) -> None:
    source = _ced(3, seed=5)

    def pretrained(state: dict[str, Any]) -> dict[str, Any]:
        kept = {f"encoder.{name}": tensor for name, tensor in _headless(state).items() if not name.startswith("norm.")}
        decoder = {f"decoder.{name}": tensor for name, tensor in state.items() if name.startswith("blocks.0.")}
        return kept | decoder | {"mask_token": torch.zeros(1, 1, 48)}

    spec = _saved(tmp_path / "tiny_mae_as_10s.pt", source, pretrained)
    model = _ced()
    untouched = _weights(model)
    with pytest.raises(RunError, match="has no head for the student's 3 classes; give --new-head"):
        load_init(model, spec, False, ABC)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.state_dict().items())
    report = load_init(model, spec, True, ABC)
    assert report.made_anew == {"norm": 2, "outputlayer": 4}
    assert report.left_out == {"decoder": 12, "mask_token": 1}
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    torch.testing.assert_close(model.norm.weight, untouched["norm.weight"])
    with pytest.raises(TeacherError, match=r"none is 'outputlayer\.1\.weight'"):
        load_teacher(spec)


def test_position_embeddings_are_cut_or_interpolated_and_it_is_said(tmp_path: Path) -> None:
    source = _ced(seed=5, frames=160)  # 10 positions
    ramp = torch.arange(10.0).expand(1, 48, 1, 10)
    spec = _saved(tmp_path / "model.pt", source, lambda state: _headless(state) | {"time_pos_embed": ramp})
    short, long = _ced(frames=96), _ced(frames=320)
    report = load_init(short, spec, True, ABC)
    assert report.adapted == {"time_pos_embed": "10 positions cut to the first 6"}
    assert report.lines()[1] == "adapted time_pos_embed: 10 positions cut to the first 6"
    assert short.time_pos_embed[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    report = load_init(long, spec, True, ABC)
    assert report.adapted == {"time_pos_embed": "10 positions interpolated linearly to 20"}
    assert long.time_pos_embed.shape == (1, 48, 1, 20)
    np.testing.assert_allclose(
        long.time_pos_embed.detach()[0, 7, 0].numpy(), np.clip(np.arange(20) / 2 - 0.25, 0, 9), atol=1e-6
    )
    assert "time_pos_embed" not in report.loaded
    assert load_init(_ced(frames=160), spec, True, ABC).adapted == {}


def test_classes_are_compared_by_name(tmp_path: Path, checkpoint: Path) -> None:
    file = tmp_path / "model.pt"
    source = _ced(seed=5)
    spec = _saved(file, source)
    (tmp_path / "model.pt.json").write_text('{"classes": ["a", "b", "c"]}', encoding="utf-8")
    assert load_init(_ced(), spec, False, ABC).adapted == {}
    model = _ced()
    report = load_init(model, spec, False, ("c", "a", "b"))
    assert report.adapted == {"outputlayer": "rows put in the order of the student's classes, by name"}
    torch.testing.assert_close(model.outputlayer[1].weight, source.outputlayer[1].weight[[2, 0, 1]])
    torch.testing.assert_close(model.outputlayer[1].bias, source.outputlayer[1].bias[[2, 0, 1]])
    with pytest.raises(RunError, match=r"has a head for 3 classes \(a, b, c\) and the student has 3 \(a, b, d\); 1 of"):
        load_init(_ced(), spec, False, ("a", "b", "d"))
    with pytest.raises(RunError, match=r"a head for 527 classes \(Speech, .*, …\) and the student has 3 .*--new-head"):
        load_init(_ced(), f"ced:{checkpoint}", False, ABC)
    (tmp_path / "model.pt.json").unlink()
    with pytest.raises(TeacherError, match="has 3 outputs and AudioSet has 527 classes; name them in"):
        load_init(_ced(), spec, False, ABC)
    assert load_init(_ced(), spec, True, ABC).made_anew == {"outputlayer": 4}
    mids = tuple(row.mid for row in audioset())
    assert load_init(_ced(527), f"ced:{checkpoint}", False, mids).adapted == {}


def _run(folder: Path, name: str, classes: tuple[str, ...] = ABC, scores: Any = "sigmoid", **args: Any) -> Any:
    torch.manual_seed(9)
    model = build(name, len(classes), scores=scores, **args)
    save_run(folder, name, args, classes, scores, model.front_end.sample_rate, model)
    return model


@pytest.mark.parametrize(
    ("name", "args"),
    [("cnn4", {"width": 2}), ("mobile", {"width": 0.1}), ("cnn6", {}), ("ced-tiny", SMALL)],
)
def test_a_run_of_the_same_student(tmp_path: Path, name: str, args: dict[str, Any]) -> None:
    source = _run(tmp_path / "run", name, **args)
    torch.manual_seed(0)
    model = build(name, 3, **args)
    report = load_init(model, str(tmp_path / "run"), False, ABC)
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert (report.adapted, report.made_anew, report.left_out) == ({}, {}, {})
    assert sum(report.loaded.values()) == len(model.state_dict())
    torch.manual_seed(0)
    model, fresh = build(name, 2, **args), _weights(model)
    report = load_init(model, str(tmp_path / "run"), True, ("x", "y"))
    head = {key for key in fresh if key.startswith(f"{model.head_name}.")}
    assert report.made_anew == {model.head_name: len(head)}
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in model.state_dict().items() if key not in head)
    torch.manual_seed(0)
    model = build(name, 3, **args)
    load_init(model, str(tmp_path / "run"), False, ("b", "c", "a"))
    inner = model.get_submodule(model.head_name)
    last: Any = inner[-1] if isinstance(inner, torch.nn.Sequential) else inner
    other = source.get_submodule(source.head_name)
    expected: Any = other[-1] if isinstance(other, torch.nn.Sequential) else other
    torch.testing.assert_close(last.weight, expected.weight[[1, 2, 0]])


def test_a_run_of_another_student_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    source = _run(tmp_path / "run", "cnn4", width=2)
    assert source.classes == 3
    with pytest.raises(RunError, match="is a run of another student: a cnn4 there and a mobile here"):
        load_init(build("mobile", 3, width=0.1), run, False, ABC)
    with pytest.raises(RunError, match=r"tensors, the first 'blocks.0.0.weight' is \(2, 1, 3, 3\) there and \(4, 1"):
        load_init(build("cnn4", 3, width=4), run, False, ABC)
    with pytest.raises(RunError, match="another student: hop_length 320 there and 160 here"):
        load_init(build("cnn4", 3, width=2, hop_ms=10.0), run, False, ABC)
    with pytest.raises(RunError, match="scores sigmoid there and softmax here"):
        load_init(build("cnn4", 3, width=2, scores="softmax"), run, False, ABC)
    with pytest.raises(RunError, match=r"has a head for 3 classes \(a, b, c\) and the student has 2 \(a, b\); give"):
        load_init(build("cnn4", 2, width=2), run, False, ("a", "b"))
    with pytest.raises(RunError, match="no run folder"):
        load_init(build("cnn4", 2, width=2), str(tmp_path / "nowhere"), False, ("a", "b"))
    heads = tmp_path / "heads"
    _run(heads, "ced-tiny", **SMALL)
    with pytest.raises(RunError, match="another student: heads 3 there and 6 here"):
        load_init(_ced(heads=6), str(heads), False, ABC)


def test_checkpoints_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    spec = _saved(file, _ced(seed=5), _headless)
    with pytest.raises(RunError, match="is a CED checkpoint and the student is a cnn4; choose a student ced-tiny"):
        load_init(build("cnn4", 3, width=2), spec, True, ABC)
    with pytest.raises(RunError, match="another size than the student: dim 48 there and 96 here, depth 2 there and 3"):
        load_init(_ced(dim=96, depth=3, mlp=192), spec, True, ABC)
    _saved(file, _ced(seed=5), lambda state: {k: v for k, v in state.items() if k != "blocks.1.attn.proj.bias"})
    with pytest.raises(RunError, match=r"lacks 1 tensors of the student \(blocks.1.attn.proj.bias\)"):
        load_init(_ced(), spec, True, ABC)
    _saved(file, _ced(seed=5), lambda state: state | {"freq_pos_embed": torch.zeros(1, 48, 8, 1)})
    with pytest.raises(RunError, match=r"'freq_pos_embed' is \(1, 48, 8, 1\) there and \(1, 48, 4, 1\) here"):
        load_init(_ced(), spec, True, ABC)
    _saved(file, _ced(seed=5), lambda state: state | {"norm.weight": torch.full((48,), torch.nan)})
    with pytest.raises(RunError, match=r"the tensor 'norm\.weight' holds NaN or infinity"):
        load_init(_ced(), spec, True, ABC)
    file.write_bytes(b"text")
    with pytest.raises(RunError, match=r"^--init 'ced:.*is not a file that torch.save writes"):
        load_init(_ced(), spec, True, ABC)
    with pytest.raises(RunError, match=r"no file 'nowhere\.pt'"):
        load_init(_ced(), "ced:nowhere.pt", True, ABC)


def test_a_report_is_json_and_the_digest_follows_the_weights(tmp_path: Path) -> None:
    first = load_init(_ced(), _saved(tmp_path / "1.pt", _ced(seed=5)), True, ABC)
    again = load_init(_ced(), _saved(tmp_path / "2.pt", _ced(seed=5)), True, ABC)
    other = load_init(_ced(), _saved(tmp_path / "3.pt", _ced(seed=6)), True, ABC)
    assert InitReport(**json.loads(json.dumps(first.to_dict()))) == first
    assert first.digest == again.digest != other.digest
