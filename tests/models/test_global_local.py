"""Global-local attention: which pieces are heard, what is made of them, and the teacher that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.errors import RunError
from logitstore.jobs.build.job import build as build_store
from logitstore.jobs.options import BuildOptions
from logitstore.models import global_local
from logitstore.models.global_local import GlobalLocal, activations, begins, both, choose, cut
from logitstore.models.registry import build, initialised, names
from logitstore.store.reader import open_store
from logitstore.training.loop import FitProgress
from logitstore.training.runs import load_run, save_run
from logitstore.training.schedule import parameter_groups
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher
from teachers.train import TeacherOptions, train_teacher
from tests.heard import CLASSES, RATE, SMALL, make_heard
from tests.training.test_resume import assert_same_run

pytestmark = pytest.mark.usefixtures("one_thread")

ATTENTION = SMALL | {"pool": "attention"}


def _model(net: str = "cnn4", classes: int = 3, **args: Any) -> GlobalLocal:
    given = {"net_args": ATTENTION if net == "cnn4" else {}, "seconds": 0.3} | args
    model = initialised(lambda: build("global-local", classes, net=net, **given), 0).eval()
    assert isinstance(model, GlobalLocal)
    return model


def _noise(clips: int, samples: int) -> torch.Tensor:
    return torch.from_numpy((0.2 * np.random.default_rng(0).standard_normal((clips, samples))).astype(np.float32))


def _chosen(whole: np.ndarray, frames: np.ndarray, count: int, piece: int) -> list[int]:
    """The frames of one clip, class by class, as the paper's code has it in its middle: (C,), (T, C)."""
    maps = frames.copy()
    found = []
    for best in np.argsort(-whole, kind="stable")[:count]:
        peak = int(np.argmax(maps[:, best]))
        half = max(1, 2 * (piece // 4))
        first = min(max(peak - half // 2, 0), len(maps) - half)
        maps[first : first + half] = 0
        found.append(peak)
    return found


@pytest.mark.parametrize(("frames", "piece", "classes"), [(62, 18, 9), (20, 20, 7), (31, 4, 3), (5, 2, 6), (1, 1, 2)])
def test_the_pieces_are_those_of_the_plain_search(frames: int, piece: int, classes: int) -> None:
    random = np.random.default_rng(frames)
    whole, loud = random.standard_normal((8, classes)), 4 * random.standard_normal((8, frames, classes))
    found = choose(torch.from_numpy(whole), torch.from_numpy(loud), 5, piece / frames)
    probability = 1 / (1 + np.exp(-loud))
    for clip in range(8):
        assert found[clip].tolist() == _chosen(whole[clip], probability[clip], 5, piece)


def test_equal_classes_come_in_their_order_and_pieces_stay_inside() -> None:
    loud = torch.zeros(1, 8, 3)
    loud[0, (1, 6, 3), (0, 1, 2)] = 1.0
    assert choose(torch.zeros(1, 3), loud, 2, 0.5).tolist() == [[1, 6]]
    assert begins(torch.tensor([0.5, 3.5, 4.5, 7.5]), 800, 300, 100).tolist() == [0, 200, 300, 500]


def test_the_answer_is_that_of_the_pieces_heard_one_by_one() -> None:
    """In float64, on clips cut by hand; the masks fall where they fell on the clip."""
    model = _model(seconds=0.4)
    waves = _noise(3, RATE)
    masks = Masks(*(np.array(each) for each in ([0.1, 0.5, 0.0], [0.5, 0.9, 0.0], [0, 800.0, 0], [0, 1600.0, 0])))
    with torch.inference_mode():
        logits, frames = model.outputs(waves, masks)
        glo, features = model.whole.outputs(waves, masks)
        loud = torch.sigmoid(activations(model.local, features)).numpy()
        torch.testing.assert_close(frames, features)
        size, count = round(0.4 * RATE), features.shape[1]
        centers = model.whole.frame_centers(count, 1.0)
        for clip in range(3):
            said = []
            for peak in _chosen(glo[clip].numpy(), loud[clip], 5, int(count * 0.4)):
                start = min(max(round(centers[peak] * RATE) - size // 2, 0), RATE - size)
                ends = [float(each[clip]) for each in vars(masks).values()]
                own = Masks(*(np.array([each]) for each in (ends[0] - start / RATE, ends[1] - start / RATE, *ends[2:])))
                said.append(model.local(waves[clip : clip + 1, start : start + size], own)[0].double().sigmoid())
            q = torch.stack(said)
            local = (q.amax(dim=0) + q.mean(dim=0)) / 2
            pair = torch.stack((glo[clip].double().sigmoid(), local))
            expected = (pair.amax(dim=0) + pair.mean(dim=0)) / 2
            torch.testing.assert_close(logits[clip].double().sigmoid(), expected, rtol=1e-5, atol=1e-9)


def test_probabilities_near_0_and_1_keep_their_digits() -> None:
    logits = torch.tensor([[[-60.0, 60.0], [-70.0, 70.0]]])
    p = torch.sigmoid(logits.double())
    yes = (p.amax(dim=1) + p.mean(dim=1)) / 2
    no = torch.sigmoid(-logits.double())
    rest = (no.amin(dim=1) + no.mean(dim=1)) / 2
    torch.testing.assert_close(both(logits).double(), yes.log() - rest.log(), rtol=1e-6, atol=0)


def test_in_training_the_pieces_answer_alone_and_the_first_net_is_frozen() -> None:
    model = _model("cnn6", net_args={"sample_rate": 8000}).train()
    waves = _noise(4, 8000)
    assert not model.whole.training
    model.outputs(waves)[0].square().mean().backward()
    grads = {name: parameter.grad is not None for name, parameter in model.named_parameters()}
    assert {name.split(".")[0] for name, there in grads.items() if there} == {"local"}
    assert all(there for name, there in grads.items() if name.startswith("local"))


def test_dropout_of_its_head_has_no_part_in_which_pieces_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(net_args=SMALL | {"pool": "attention", "dropout": 0.5}).train()
    heard = []
    monkeypatch.setattr(global_local, "cut", lambda waves, masks, starts, *rest: heard.append(starts) or cut(
        waves, masks, starts, *rest))  # fmt: skip
    for _ in range(3):
        model(_noise(4, RATE))
    assert all(bool((starts == heard[0]).all()) for starts in heard)
    assert model.local.training
    assert all(each.training for each in model.local.modules())


def test_what_is_frozen_stays_so() -> None:
    model = _model("cnn6", net_args={"sample_rate": 8000}).train()
    norms = [each for each in model.local.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for each in norms:
        each.eval()
    model(_noise(4, 8000))
    assert norms
    assert not any(each.training or int(each.num_batches_tracked) for each in norms)  # type: ignore[arg-type]


def test_the_position_embeddings_of_the_net_of_pieces_do_not_decay() -> None:
    model = _model("ced-tiny", net_args={"dim": 32, "depth": 1, "heads": 2, "frames": 96})
    assert {"local.time_pos_embed", "local.freq_pos_embed"} <= set(model.no_weight_decay)
    decaying = parameter_groups(model, 0.1)[0]["params"]
    assert not any(each is model.local.time_pos_embed for each in decaying)


@pytest.mark.parametrize(
    ("net", "args"),
    [("cnn-lstm-tiny", {}), ("densenet-tiny", {"mels": 16, "hop_ms": 20}), ("crnn", {}), ("mobile", {"width": 0.1}),
     ("ced-tiny", {"dim": 32, "depth": 1, "heads": 2, "frames": 96}), ("cnn4", SMALL | {"pool": "cnn14-attention"})],
)  # fmt: skip
def test_any_net_whose_frames_can_be_told_makes_one(net: str, args: dict[str, Any]) -> None:
    model = _model(net, net_args=args, classes=7)
    with torch.inference_mode():
        for samples in (RATE // 5, RATE // 2, RATE):  # shorter than a piece: silence after it
            assert bool(model(_noise(2, samples)).isfinite().all())


def test_two_cnn10_have_the_parameters_that_were_published() -> None:
    with torch.device("meta"):
        model = build("global-local", 527, net="cnn10")
    assert sum(each.numel() for each in model.parameters()) == 2 * 5_219_279


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        ({}, r"its is ''; allowed are .*cnn4.*--model-arg of=RUN"),
        ({"net": "global-local"}, "its is 'global-local'"),
        ({"net": "python:os:system"}, "its is 'python:os:system'"),
        (
            {"net": "cnn4", "net_args": SMALL | {"pool": "feature-attention"}},
            "what it says of single frames, and pool=feature-attention says",
        ),
        ({"net": "cnn4", "pieces": 0}, "pieces is 0"),
        ({"net": "cnn4", "seconds": 0}, "seconds is 0"),
        ({"net": "cnn4", "scores": "softmax"}, "sigmoid scores alone"),
        ({"net": "cnn4", "pool": "mean"}, "no argument 'pool'"),
    ],
    ids=str,
)
def test_what_makes_none_is_one_clear_line(args: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RunError, match=wrong):
        build("global-local", 3, **args)


class _KilledError(Exception):
    """A training ends here."""


def test_it_is_trained_around_a_run_goes_on_and_is_a_teacher(tmp_path: Path) -> None:
    root = make_heard(tmp_path, clips=18, views=1)
    first = initialised(lambda: build("cnn4", 3, **ATTENTION), 1).eval()
    save_run(tmp_path / "first", "cnn4", ATTENTION, CLASSES, "sigmoid", RATE, first)

    def learn(out: str, progress: FitProgress | None = None, **changes: Any) -> None:
        values = {
            "manifest": str(root / "labels.csv"), "audio_root": str(root / "audio"), "label_column": "label",
            "model": "global-local", "model_args": {"of": str(tmp_path / "first"), "seconds": 0.3}, "clip_seconds": 0.6,
            "steps": 4, "batch_size": 6, "precision": "bf16", "checkpoint_every": 2, "device": "cpu", "workers": 1,
        }  # fmt: skip
        train_teacher(TeacherOptions(**values | changes, out=str(tmp_path / out)), progress)  # type: ignore[arg-type]

    def stop(number: int, clips: int, loss: float | None) -> None:
        if number == 3:
            raise _KilledError

    learn("whole", eval_where="fold = 2")
    with pytest.raises(_KilledError):
        learn("run", FitProgress(step=stop), eval_where="fold = 2")
    learn("run", eval_where="fold = 2")
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.config["model_args"] == {
        "net": "cnn4",
        "net_args": ATTENTION,
        "seconds": 0.3,
    }  # no folder of this machine
    for name, tensor in first.state_dict().items():
        assert torch.equal(run.model.whole.state_dict()[name], tensor)
    learnt = run.model.local.state_dict()
    assert any(not torch.equal(learnt[name], tensor) for name, tensor in first.named_parameters())
    build_store(
        BuildOptions(
            source=str(root / "labels.csv"), audio_root=str(root / "audio"), out=str(tmp_path / "told"),
            teachers=[str(tmp_path / "run"), str(tmp_path / "first")], views=1, clip_seconds=0.6, workers=1,
            batch_size=6, device="cpu", recipe=str(root / "short.yaml"), relations="frames", similarity_frames=4,
        )
    )  # fmt: skip
    store = open_store(tmp_path / "told")
    assert store.manifest.teachers[0].contract["arguments"]["net"] == "cnn4"
    teacher = load_teacher(str(tmp_path / "run"))
    assert teacher.probabilities(_noise(2, 9600), None).shape == (2, 3)

    (tmp_path / "classes.txt").write_text("\n".join(CLASSES[::-1]))
    with pytest.raises(RunError, match=r"is made of a trained net; give its run folder, --model-arg of=RUN"):
        learn("none", model_args={})
    with pytest.raises(RunError, match=r"is made of one net of sigmoid scores; .* is of the model global-local"):
        learn("none", model_args={"of": str(tmp_path / "run")})
    with pytest.raises(RunError, match=r"names 3 classes, and the net of .* leave --classes out"):
        learn("none", classes=str(tmp_path / "classes.txt"))
    with pytest.raises(RunError, match="has no argument 'of'"):
        learn("none", model="cnn4", model_args={"of": str(tmp_path / "first")})


def test_it_is_no_student() -> None:
    assert names("TEACHERS") == ("global-local",)
    assert "global-local" not in names()
