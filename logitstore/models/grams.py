"""Inner products of frame features: what SP and IUSP compare of teachers and students, and what relations are made of.

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


def require_same_clips(student: int, teacher: int) -> None:
    """Refuse to compare a student with teachers of other clips.

    :raises UsageError: the two do not have the same number.
    """
    if student != teacher:
        raise UsageError(
            f"a similarity loss of {student} clips of a student and {teacher} of its teachers; the two must be the "
            "same views in the same order"
        )
