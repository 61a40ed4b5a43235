"""Learning from what teachers said of frames: the loss by hand, and trainings that have it."""

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import students.data
import students.train
from logitstore.errors import RunError
from logitstore.store.format.frames import FrameSpec
from logitstore.store.reader import open_store
from logitstore.training.batches import Batch
from students.data import ReplayDataset
from students.objective import Objective
from students.options import StudentOptions
from students.terms import Setting
from students.terms.frames import shared_time
from students.train import train_student
from tests.heard import make_heard, student_values

pytestmark = pytest.mark.usefixtures("one_thread")


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize(
    ("there", "here", "shares", "covered"),
    [
        ((4, 0.04), (2, 0.08), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], [1, 1]),
        ((2, 0.08), (4, 0.04), [[1, 0], [1, 0], [0, 1], [0, 1]], [1, 1, 1, 1]),
        ((3, 0.04), (2, 0.06), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], [1, 1]),
        ((2, 0.04), (3, 0.05), [[0.8, 0.2], [0, 1], [0, 0]], [1, 1, 0]),
    ],
)
def test_frames_share_the_time_that_they_have_in_common(there, here, shares, covered):
    found, reached = shared_time(*there, *here)
    np.testing.assert_allclose(found, shares, atol=1e-6)
    assert reached.tolist() == covered


def setting(loss="bce", temperature=1.0):
    """Teachers' frames of 40 ms; a student's of 60 ms, in a view of .18 s."""
    return Setting(loss, temperature, None, 0.18, 0.04, lambda count, seconds: 0.06)


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


def test_a_frame_beyond_the_last_target_counts_nothing():
    logits, batch = said(np.random.default_rng(2), frames=3)  # of .12 s
    far = logits.clone()
    far[:, 2] = 50.0
    term = Objective({"frames": 1.0}, setting())
    values = [float(term(torch.zeros(4, 3), None, batch, frame_logits=each).total) for each in (logits, far)]
    assert values[0] == values[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"), clips=18, views=2)


@pytest.fixture
def framed(monkeypatch):
    """Stores as if they had been built with frames of 80 ms."""

    def opened(*given, **named):
        store = open_store(*given, **named)
        store.manifest = msgspec.structs.replace(
            store.manifest, frames=FrameSpec(hop_ms=80, count=8, bits=5, floor=0.05)
        )
        values = np.random.default_rng(0).uniform(0, 1, (2, store.clips.num_rows, 8, 3)).astype(np.float32)
        store.frames = lambda view, clips: SimpleNamespace(dense=lambda: values[view, clips])
        store.require_frames = lambda: None
        return store

    for module in (students.train, students.data):
        monkeypatch.setattr(module, "open_store", opened)


def learned(root, out, **changes):
    asked = {"terms": ["frames=0.5"], "pool": "mean", "epochs": None, "steps": 4, "batch_size": 6, "hold_out": 0.0}
    train_student(StudentOptions(**student_values(root, out, **asked | changes)))
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [step for step in steps if step["event"] == "step"], load_file(out / "model.safetensors")


def test_a_student_learns_clips_and_frames_whole_or_in_parts(framed, root, tmp_path):
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
def test_frames_go_with_mixup_16_bits_and_nets_of_their_own_frames(framed, root, tmp_path, asked):
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
def test_a_student_without_frame_outputs_is_refused(framed, root, tmp_path, asked, message):
    with pytest.raises(RunError, match=message):
        learned(root, tmp_path / "run", **asked)


def test_a_dataset_gives_frame_targets(framed, root):
    data = ReplayDataset(root / "store", root / "audio", frame_targets=True)
    batch = data.collate([data[3], data[5]])
    assert batch["frame_target"].shape == (2, 8, 3)
    assert batch["frame_target"].dtype == torch.float32
