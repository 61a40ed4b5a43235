"""Tail fills against their formulas, and the two losses against their definitions."""

import numpy as np
import pytest
import torch

from logitstore.errors import RunError
from logitstore.models.losses import bce, kl
from students.targets import TAILS, dense_targets, loss_for, tail_uniforms

C = 11
CLASSES = np.array([[3, 0, 7], [10, 2, 5]], dtype=np.uint16)
PROBABILITIES = np.array([[0.9, 0.5, 0.08], [0.6, 0.3, 0.2]], dtype=np.float32)
CLIPS = np.array([41, 7])


def fill(tail, **others):
    rests = np.full(len(CLASSES), 0.03, np.float32) if tail == "stored" else None
    return dense_targets(CLASSES, PROBABILITIES, C, tail, rests, clips=CLIPS, view=2, seed=5, **others)


@pytest.mark.parametrize("tail", TAILS)
def test_the_stored_classes_keep_their_probabilities(tail):
    dense = fill(tail)
    assert dense.shape == (2, C)
    assert dense.dtype == np.float32
    assert np.array_equal(np.take_along_axis(dense, CLASSES.astype(int), 1), PROBABILITIES)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("stored", [0.03, 0.03]),
        ("zero", [0.0, 0.0]),
        ("mean", [0.08 / 8, 0.2 / 8]),
        ("half", [0.04, 0.1]),
        ("uniform", [1 / 11, 1 / 11]),
    ],
)
def test_fills_follow_their_formulas(tail, expected):
    dense = fill(tail)
    for row in range(2):
        others = np.delete(dense[row], CLASSES[row])
        assert others == pytest.approx(np.full(C - 3, expected[row]), rel=1e-6)


def test_the_random_fill_is_a_share_of_the_smallest_probability():
    dense = fill("random")
    for row in range(2):
        share = np.delete(dense[row], CLASSES[row]) / PROBABILITIES[row].min()
        assert np.all((share >= 0) & (share < 1))
        assert len(np.unique(share)) == C - 3


def test_the_random_fill_depends_on_seed_clip_view_and_class_alone():
    alone = dense_targets(CLASSES[1:], PROBABILITIES[1:], C, "random", clips=CLIPS[1:], view=2, seed=5)
    assert np.array_equal(alone[0], fill("random")[1])
    wide = tail_uniforms(CLIPS, 2, 527, 5)
    assert np.array_equal(wide[:, :C], tail_uniforms(CLIPS, 2, C, 5))
    assert abs(wide.mean() - 0.5) < 0.03
    for other in (
        tail_uniforms(CLIPS + 1, 2, 527, 5),
        tail_uniforms(CLIPS, 3, 527, 5),
        tail_uniforms(CLIPS, 2, 527, 6),
    ):
        assert not np.isclose(wide, other).any(axis=1).all()


@pytest.mark.parametrize("tail", TAILS)
def test_nothing_is_filled_where_every_class_is_stored(tail):
    classes = np.array([[2, 0, 1]], dtype=np.uint16)
    probabilities = np.array([[0.7, 0.2, 0.1]], dtype=np.float32)
    dense = dense_targets(classes, probabilities, 3, tail, np.array([0.05], np.float32))
    assert dense == pytest.approx(np.array([[0.2, 0.1, 0.7]]))


def test_an_unknown_fill_is_refused():
    with pytest.raises(RunError, match="no tail fill 'ones'; allowed are stored, zero, mean, half, random, uniform"):
        fill("ones")


def test_bce_is_the_mean_over_the_classes_of_a_clip():
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.0]])
    targets = torch.tensor([[0.2, 0.0], [1.0, 0.5]])
    p = torch.sigmoid(logits)
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean(dim=1)
    assert bce(logits, targets).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_kl_is_zero_for_the_teacher_itself_and_as_defined_elsewhere(temperature):
    teacher = torch.tensor([[2.0, 0.1, -1.0], [0.0, 1.0, 0.5]])
    targets = teacher.softmax(dim=1)
    assert kl(teacher + 3.0, targets, temperature).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    student = torch.tensor([[0.0, 0.3, 0.1], [1.0, -1.0, 0.0]])
    q = (teacher / temperature).softmax(dim=1)
    p = (student / temperature).softmax(dim=1)
    expected = temperature**2 * (q * (q.log() - p.log())).sum(dim=1)
    assert kl(student, targets, temperature).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("loss", [bce, kl])
def test_the_loss_of_a_clip_does_not_depend_on_the_others_and_is_float32(loss):
    logits = torch.tensor([[0.3, -1.0, 0.1], [2.0, 0.0, -2.0]]).half()
    targets = torch.tensor([[0.2, 0.0, 0.7], [1.0, 0.5, 0.0]])
    found = loss(logits, targets)
    assert found.dtype == torch.float32
    assert found.tolist() == [loss(logits[i : i + 1], targets[i : i + 1]).item() for i in range(2)]


def test_kl_takes_targets_with_zeros_and_gives_finite_gradients():
    logits = torch.zeros(1, 3, requires_grad=True)
    value = kl(logits, torch.tensor([[0.6, 0.2, 0.0]]), 3.0).sum()
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_loss_follows_the_score_kind():
    assert loss_for("sigmoid", None, 1.0) == "bce"
    assert loss_for("softmax", None, 4.0) == "kl"
    with pytest.raises(RunError, match="'kl' fits softmax targets and the teachers of this store give sigmoid"):
        loss_for("sigmoid", "kl", 1.0)
    with pytest.raises(RunError, match="--temperature 2 has no meaning for the loss 'bce'"):
        loss_for("sigmoid", "bce", 2.0)
    with pytest.raises(RunError, match="--temperature is 0; it must be more than 0"):
        loss_for("softmax", "kl", 0.0)
