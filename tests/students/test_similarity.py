"""The similarity losses against loops written from their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from logitstore.errors import UsageError
from logitstore.models.grams import gram, pooled, pooled_gram, row_normalised
from students.terms.iusp import iusp
from students.terms.sp import sp


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_rows(vectors: list[list[float]]) -> list[list[float]]:
    """G = F Fᵀ with each row divided by its L2 norm."""
    products = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in vectors] for a in vectors]
    rows = []
    for row in products:
        norm = math.sqrt(sum(value * value for value in row))
        rows.append([value / norm for value in row])
    return rows


def slow_distance(one: list[list[float]], other: list[list[float]]) -> float:
    """Squared Frobenius distance over the number of entries."""
    pairs = zip(one, other, strict=True)
    return sum((x - y) ** 2 for a, b in pairs for x, y in zip(a, b, strict=True)) / len(one) ** 2


def slow_pool(frames: list[list[float]], count: int) -> list[list[float]]:
    """Adaptive average pooling over time."""
    out = []
    for i in range(count):
        start, stop = math.floor(i * len(frames) / count), math.ceil((i + 1) * len(frames) / count)
        span = frames[start:stop]
        out.append([sum(column) / len(span) for column in zip(*span, strict=True)])
    return out


@pytest.mark.parametrize(("student_frames", "teacher_frames"), [(7, 7), (5, 12), (12, 5), (31, 16)])
def test_iusp_is_its_definition(student_frames: int, teacher_frames: int) -> None:
    student, teacher = features(3, student_frames, 4), features(3, teacher_frames, 9, seed=1)
    count = min(student_frames, teacher_frames)
    expected = [
        slow_distance(slow_rows(slow_pool(t, count)), slow_rows(slow_pool(s, count)))
        for s, t in zip(student.double().tolist(), teacher.double().tolist(), strict=True)
    ]
    torch.testing.assert_close(iusp(student, gram(teacher)), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("student_frames", [16, 31, 9])
def test_sp_is_its_definition(student_frames: int) -> None:
    student, vectors = features(5, student_frames, 4), F.normalize(features(5, 64, seed=1), dim=1)
    flat = []
    for clip in student.double().tolist():
        values = [value for frame in slow_pool(clip, 16) for value in frame]
        norm = math.sqrt(sum(value * value for value in values))
        flat.append([value / norm for value in values])
    expected = slow_distance(slow_rows(vectors.double().tolist()), slow_rows(flat))
    assert float(sp(student, vectors, 16)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("source", "count"), [(16, 16), (31, 16), (16, 5), (10, 16), (1, 4)])
def test_pooling_is_that_of_adaptive_avg_pool1d(source: int, count: int) -> None:
    frames = features(2, source, 3)
    expected = F.adaptive_avg_pool1d(frames.transpose(1, 2), count).transpose(1, 2)
    torch.testing.assert_close(pooled(frames, count), expected)
    torch.testing.assert_close(pooled_gram(gram(frames), count), gram(expected))


def test_what_a_basis_leaves_out_of_a_clip_is_put_back_into_its_product_with_itself() -> None:
    whole = F.normalize(features(5, 64, seed=1), dim=1)
    alone = torch.cat([whole, torch.zeros(5, 5)], dim=1) * 0.8
    alone[:, 64:] = 0.6 * torch.eye(5)  # unit vectors, each with a part of its own
    student = features(5, 16, 4)
    torch.testing.assert_close(sp(student, alone[:, :64], 16), sp(student, alone, 16))


def test_the_loss_of_a_model_against_itself_is_zero_and_scale_does_not_matter() -> None:
    frames = features(4, 8, 5)
    assert float(iusp(frames, gram(frames) * 7).max()) < 1e-12
    vectors = F.normalize(frames.flatten(1), dim=1)
    assert float(sp(3 * frames, vectors, 8)) < 1e-12


def test_gradients_flow_and_are_finite_even_for_silence() -> None:
    frames = features(3, 8, 5)
    frames[1] = 0
    frames.requires_grad_()
    loss = iusp(frames, gram(features(3, 16, 5, seed=1))).mean() + sp(frames, features(3, 64, seed=2), 16)
    loss.backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None
    assert bool(torch.isfinite(frames.grad).all())
    assert float(frames.grad[0].abs().max()) > 0


def test_autocast_changes_nothing() -> None:
    frames, teacher, vectors = features(3, 31, 5), gram(features(3, 16, 9, seed=1)), features(3, 64, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = iusp(frames, teacher), sp(frames, vectors, 16)
    torch.testing.assert_close(half, (iusp(frames, teacher), sp(frames, vectors, 16)), rtol=0, atol=0)


def test_rows_of_zeros_stay_zero() -> None:
    matrix = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(row_normalised(matrix), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_other_numbers_of_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="3 clips of a student and 2 of its teachers"):
        iusp(features(3, 8, 5), gram(features(2, 8, 5)))
    with pytest.raises(UsageError, match="3 clips of a student and 2 of its teachers"):
        sp(features(3, 8, 5), features(2, 64), 8)
