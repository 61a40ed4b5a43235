"""Similarity losses: what a student's frame features are held to beside its targets.

SP (Tung & Mori, ICCV 2019): F holds a batch's clips as rows, G = F Fᵀ, every row divided by its L2 norm; the loss is
‖G_teacher - G_student‖²_F / batch². IUSP (arXiv 2009.01759) puts the frames of one clip in the place of the batch:
‖G_teacher - G_student‖²_F / frames² a clip.

Pooling over time is adaptive average pooling: of T frames to t, frame i is the mean of frames [floor(i T / t),
ceil((i + 1) T / t)); where t > T that repeats frames. It is done by a matrix, so its gradient is deterministic on
every device. All functions compute in float32 with autocast off, whatever they are given: an inner product over
hundreds of features overflows float16.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional as F

from logitstore.errors import UsageError


@functools.lru_cache(maxsize=64)
def _pooling(source: int, frames: int) -> torch.Tensor:
    matrix = torch.zeros(frames, source, dtype=torch.float64)
    for i in range(frames):
        start, stop = i * source // frames, -(-(i + 1) * source // frames)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix.float()


def pooled(frames: torch.Tensor, count: int) -> torch.Tensor:
    """Features (B, T, D) averaged to ``count`` frames: float32 (B, count, D)."""
    if frames.shape[1] == count:
        return frames.float()
    with torch.autocast(frames.device.type, enabled=False):
        return _pooling(frames.shape[1], count).to(frames.device) @ frames.float()


def gram(frames: torch.Tensor) -> torch.Tensor:
    """Inner products of the frames of each clip: (B, T, D) -> float32 (B, T, T)."""
    with torch.autocast(frames.device.type, enabled=False):
        values = frames.float()
        return values @ values.transpose(1, 2)


def pooled_gram(gram: torch.Tensor, frames: int) -> torch.Tensor:
    """The Gram matrices of pooled features, from those of all frames: P G Pᵀ, (B, T, T) -> float32 (B, t, t)."""
    if gram.shape[-1] == frames:
        return gram.float()
    with torch.autocast(gram.device.type, enabled=False):
        matrix = _pooling(gram.shape[-1], frames).to(gram.device)
        return matrix @ gram.float() @ matrix.T


def row_normalised(gram: torch.Tensor) -> torch.Tensor:
    """Each row (…, T) of Gram matrices (…, T, T) divided by its L2 norm, in float32; a row of zeros stays zero."""
    return F.normalize(gram.float(), dim=-1)


def iusp(student_frames: torch.Tensor, teacher_gram: torch.Tensor) -> torch.Tensor:
    """The IUSP loss of each clip; its mean over the batch is the paper's.

    Both sides are pooled to the smaller number of frames t = min(T, Ts), and only then row-normalised.

    :param student_frames: (B, Ts, D), any float dtype.
    :param teacher_gram: (B, T, T), as stored or of :func:`gram`; its scale is of no account.
    :returns: float32 (B,), >= 0: ‖G_teacher - G_student‖²_F / t².
    :raises UsageError: the two do not have the same number of clips.
    """
    _same_clips(len(student_frames), len(teacher_gram))
    count = min(student_frames.shape[1], teacher_gram.shape[1])
    with torch.autocast(student_frames.device.type, enabled=False):
        student = row_normalised(gram(pooled(student_frames, count)))
        teacher = row_normalised(pooled_gram(teacher_gram, count))
        return (teacher - student).square().sum(dim=(1, 2)) / count**2


def sp(student_frames: torch.Tensor, teacher_vectors: torch.Tensor, frames: int) -> torch.Tensor:
    """The SP loss of a batch, on features over time instead of a layer's activations.

    A clip's vector is its features pooled to ``frames`` frames, flattened and divided by their norm (the paper does
    not divide; without it the loudest clips make every row).

    :param student_frames: (B, Ts, D), any float dtype.
    :param teacher_vectors: (B, N), one vector a clip, whose inner products are the teachers'; as stored. A clip's
        product with itself is 1, whatever the basis of a store left out of it, and so it is taken to be (0 of a vector
        of zeros); that alone halves the error of the matrix.
    :param frames: the frames that the teachers' features were pooled to; a student with fewer has some repeated.
    :returns: float32 scalar, >= 0: ‖G_teacher - G_student‖²_F / B².
    :raises UsageError: the two do not have the same number of clips.
    """
    _same_clips(len(student_frames), len(teacher_vectors))
    with torch.autocast(student_frames.device.type, enabled=False):
        vectors = F.normalize(pooled(student_frames, frames).flatten(1), dim=1)
        given = teacher_vectors.float()
        itself = given.any(dim=1).float()
        products = given @ given.T
        products = products - torch.diag(products.diagonal() - itself)
        teacher, student = row_normalised(products), row_normalised(vectors @ vectors.T)
        return (teacher - student).square().sum() / len(vectors) ** 2


def _same_clips(student: int, teacher: int) -> None:
    if student != teacher:
        raise UsageError(
            f"a similarity loss of {student} clips of a student and {teacher} of its teachers; the two must be the "
            "same views in the same order"
        )
