"""Learning from what teachers said of frames: the loss by hand, and trainings that have it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from logitstore.errors import MismatchError, RunError
from logitstore.jobs.build.job import build
from logitstore.jobs.options import BuildOptions
from logitstore.models.registry import build as build_model
from logitstore.models.registry import initialised
from logitstore.models.tagger import Tagger
from logitstore.store.format.frames import bounds_around, frame_bounds, shares
from logitstore.store.reader import open_store
from logitstore.training.batches import Batch
from logitstore.training.runs import save_run
from students.data import ReplayDataset
from students.objective import Objective
from students.options import StudentOptions
from students.terms import Setting
from students.train import train_student
from teachers.ensemble import load_ensemble
from tests.heard import CLASSES, RATE, SMALL, make_heard, student_values

pytestmark = pytest.mark.usefixtures("one_thread")


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize(
    ("hop", "there", "centers", "expected"),
    [
        (0.04, 4, [0.04, 0.12], [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (0.08, 2, [0.02, 0.06, 0.1, 0.14], [[1, 0], [1, 0], [0, 1], [0, 1]]),
        (0.04, 3, [0.03, 0.09], [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]),
        (0.04, 3, [0.02, 0.06], [[1, 0, 0], [0, 0.5, 0.5]]),  # the last frame stands for the rest of the view
        (0.05, 3, [0.03, 0.09], [[5 / 6, 1 / 6, 0], [0, 2 / 3, 1 / 3]]),  # the last target reaches beyond the view
    ],
)
def test_a_frame_gets_the_targets_of_the_time_that_it_stands_for(hop, there, centers, expected):
    seconds = {(0.04, 4): 0.16, (0.08, 2): 0.16}.get((hop, there), 0.12)
    lies = shares(bounds_around(np.array(centers), seconds), frame_bounds(there, round(1000 * hop), seconds))
    np.testing.assert_allclose(lies, expected, atol=1e-6)


def setting(loss="bce", temperature=1.0):
    """Teachers' frames of 40 ms; a student's of 60 ms, in a view of .18 s."""
    return Setting(
        loss, temperature, view_seconds=0.18, target_seconds=0.04,
        frame_centers=lambda count, seconds: 0.03 + 0.06 * np.arange(count),
    )  # fmt: skip


def said(random, frames=5):
    targets = torch.from_numpy(random.uniform(0.01, 0.9, (4, frames, 3)).astype(np.float32))
    logits = torch.from_numpy(random.normal(0, 2, (4, 3, 3)).astype(np.float32))
    return logits, Batch(torch.zeros(4, 8), None, torch.full((4, 3), 0.5), np.arange(4), frame_targets=targets)


def test_the_loss_is_that_of_the_students_own_frames():
    random = np.random.default_rng(0)
    logits, batch = said(random)
    there = batch.frame_targets.numpy().astype(np.float64)
    here = (
        np.stack([2 * there[:, 0] + there[:, 1], there[:, 1] + 2 * there[:, 2], 2 * there[:, 3] + there[:, 4]], 1) / 3
    )
    given = sigmoid(logits.numpy().astype(np.float64))
    by_frame = -(here * np.log(given) + (1 - here) * np.log(1 - given)).mean(axis=2)
    term = Objective({"frames": 1.0}, setting())
    clips = torch.zeros(4, 3)
    found = float(term(clips, None, batch, frame_logits=logits).total)
    assert found == pytest.approx(by_frame.mean(), rel=1e-6)
    mix = torch.tensor([0.25, 1.0, 0.5, 0.0])
    against = -(here[::-1] * np.log(given) + (1 - here[::-1]) * np.log(1 - given)).mean(axis=(1, 2))
    mixed = (mix.numpy() * by_frame.mean(axis=1) + (1 - mix.numpy()) * against).mean()
    assert float(term(clips, None, batch, mix, frame_logits=logits).total) == pytest.approx(mixed, rel=1e-6)
    with pytest.raises(ValueError, match="needs frame_logits, and the batch was made without them"):
        term(clips, None, batch)


def test_softmax_frames_are_compared_at_the_temperature_and_silent_ones_not_at_all():
    random = np.random.default_rng(1)
    logits, batch = said(random)
    batch.frame_targets[:, 3:] = 0  # nothing above the floor
    there = batch.frame_targets.numpy().astype(np.float64)
    here = np.stack([2 * there[:, 0] + there[:, 1], there[:, 1] + 2 * there[:, 2]], 1) / 3
    sharp = here**0.5 / (here**0.5).sum(axis=2, keepdims=True)
    cold = logits.numpy()[:, :2].astype(np.float64) / 2
    log_said = cold - np.log(np.exp(cold).sum(axis=2, keepdims=True))
    expected = 4 * (sharp * (np.log(sharp) - log_said)).sum() / (4 * 3)
    found = Objective({"frames": 1.0}, setting("kl", 2.0))(torch.zeros(4, 3), None, batch, frame_logits=logits).total
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store of a teacher that says when, every 100 ms."""
    folder = make_heard(tmp_path_factory.mktemp("heard"), clips=18, views=2)
    net = SMALL | {"pool": "mean", "time_halvings": 1}
    model = initialised(lambda: build_model("cnn4", 3, **net), 3)
    save_run(folder / "when", "cnn4", net, CLASSES, "sigmoid", RATE, model.eval())
    build(
        BuildOptions(
            source=str(folder / "labels.csv"), audio_root=str(folder / "audio"), out=str(folder / "framed"), views=2,
            teachers=[str(folder / "when")], topk=3, clip_seconds=0.6, frames=100, recipe=str(folder / "short.yaml"),
            workers=1, device="cpu",
        )
    )  # fmt: skip
    return folder


def learned(root, out, **changes):
    asked = {
        "store": str(root / "framed"),
        "terms": ["frames=0.5"],
        "pool": "mean",
        "epochs": None,
        "steps": 4,
        "batch_size": 6,
        "hold_out": 0.0,
    }
    train_student(StudentOptions(**student_values(root, out, **asked | changes)))
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [step for step in steps if step["event"] == "step"], load_file(out / "model.safetensors")


def test_a_student_learns_clips_and_frames_whole_or_in_parts(root, tmp_path):
    steps, weights = learned(root, tmp_path / "whole", freeze_bn=True)
    for step in steps:
        assert step["loss"] == pytest.approx(step["target"] + 0.5 * step["frames"], rel=1e-5)
    parts, same = learned(root, tmp_path / "parts", accumulate=3, freeze_bn=True)
    assert [step["frames"] for step in parts] == pytest.approx([step["frames"] for step in steps], rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, rtol=0, atol=2e-3)
    plain, other = learned(root, tmp_path / "plain", terms=[], freeze_bn=True)
    assert "frames" not in plain[0]
    assert plain[0]["target"] == pytest.approx(steps[0]["target"], rel=1e-5)
    assert not torch.allclose(other["pool.output.weight"], weights["pool.output.weight"], atol=1e-4)


@pytest.mark.parametrize("asked", [{"mixup": 0.5}, {"precision": "bf16"}, {"student": "densenet-tiny", "pool": None}])
def test_frames_go_with_mixup_16_bits_and_nets_of_their_own_frames(root, tmp_path, asked):
    net = {"model_args": {"mels": 16, "hop_ms": 40}} if "student" in asked else {}
    steps, _ = learned(root, tmp_path / "run", **net | asked)
    assert all(0 < step["frames"] < 5 for step in steps)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"pool": None},
            "--term frames needs a student that says something of every frame, and 'cnn4' does not: a Cnn",
        ),
        ({"pool": "feature-attention"}, "the head feature-attention says nothing of single frames; use pool=mean, max"),
        ({"student": "mobile", "pool": None, "model_args": {}}, "'mobile' does not"),
    ],
)
def test_a_student_without_frame_outputs_is_refused(root, tmp_path, asked, message):
    with pytest.raises(RunError, match=message):
        learned(root, tmp_path / "run", **asked)


def test_what_fails_within_a_student_is_not_said_to_be_a_lack_of_frames(root, tmp_path, monkeypatch):
    def broken(self, frames):
        return self.nothing

    with monkeypatch.context() as patch:
        patch.setattr(Tagger, "answers_by_frame", broken)
        with pytest.raises(AttributeError, match="nothing"):
            learned(root, tmp_path / "run")
    monkeypatch.setattr(Tagger, "frame_centers", None)
    with pytest.raises(RunError, match="'cnn4' does not: it has no method frame_centers, as logitstore"):
        learned(root, tmp_path / "run")


def test_a_dataset_gives_frame_targets(root):
    data = ReplayDataset(root / "framed", root / "audio", frame_targets=True)
    batch = data.collate([data[3], data[5]])
    assert batch["frame_target"].shape == (2, 6, 3)
    assert batch["frame_target"].dtype == torch.float32


def test_a_store_that_does_not_say_when_is_refused(root, tmp_path):
    with pytest.raises(MismatchError, match="does not say when its classes sound; build a store with"):
        learned(root, tmp_path / "run", store=str(root / "store"))


def test_targets_are_those_of_the_view_as_it_was_heard(root):
    """The frame targets of a replayed view are what the teacher says of its replayed sound, to the store's bits."""
    data = ReplayDataset(root / "framed", root / "audio", 1, frame_targets=True)
    teacher = load_ensemble([str(root / "when")], device="cpu")
    batch = data.collate([data[number] for number in range(6)])
    spec = open_store(root / "framed").require_frames()
    said = teacher.outputs(batch["waveform"], batch["masks"], features=False, frames=spec).frames
    assert float((batch["frame_target"] - said).abs().max()) < 0.06
    assert float(said.std(dim=1).max()) > 0.01
