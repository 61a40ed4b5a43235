"""What a store keeps of the teachers' features for the similarity losses, as bytes and back. Pure NumPy.

``frames`` (IUSP)   of each view a Gram matrix (T, T) of the features of its frames, pooled to T: the norm of every
                    frame relative to the largest, and the angle between every two frames. A row of the matrix is
                    normalised before it is used, so a quiet frame's angles need as many bits as a loud one's.
``clips`` (SP)      of each view a vector of 64 numbers whose inner products stand for those of the whole features:
                    see ``basis.py``.

A view's *codes* are one row of bytes: T norms, the T (T - 1) / 2 angles by falling nearness (all neighbours, then all
pairs two apart, …), one scale, 64 components; the parts that the store does not have are left out. In a block the
codes lie code by code, angles as residuals to what their neighbours predict. ``docs/format.md`` is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, U8

#: Components of a clip's vector.
CLIP_COMPONENTS = 64
LEAST_FRAMES, MOST_FRAMES = 2, 64
DEFAULT_FRAMES = 16

_TOP = 255  # the code of the loudest frame, of an angle of pi, and of the widest scale
_WIDEST = 2.0  # no two numbers in [-1, 1] are further apart
_MIDDLE = 128  # the code of a component that is the basis's mean
_STEPS = 127  # codes from there to the largest deviation
#: The arrays of a block, and which relation each is of.
ARRAYS = {"frame_norms": "frames", "frame_angles": "frames", "clip_scales": "clips", "clip_vectors": "clips"}


class RelationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which relations a store keeps: the manifest's ``relations``.

    ``frames``: T of the frames' Gram matrices, or None. ``clips``: components of the clips' vectors, or None.
    ``pooled``: the frames T that the features were pooled to, for both.
    """

    frames: int | None
    clips: int | None
    pooled: int

    @property
    def width(self) -> int:
        """Bytes of the codes of a view."""
        return sum(self.lengths.values())

    @property
    def lengths(self) -> dict[str, int]:
        """The arrays of a block, in the order of a view's codes, and how many codes of a view each holds."""
        lengths: dict[str, int] = {}
        if self.frames is not None:
            lengths |= {"frame_norms": self.frames, "frame_angles": self.frames * (self.frames - 1) // 2}
        if self.clips is not None:
            lengths |= {"clip_scales": 1, "clip_vectors": self.clips}
        return lengths

    @property
    def names(self) -> str:
        """As ``--relations`` takes them."""
        return ",".join(name for name in ("frames", "clips") if getattr(self, name) is not None)

    def check(self) -> None:
        """:raises ValueError: no such relations can be stored."""
        fine = LEAST_FRAMES <= self.pooled <= MOST_FRAMES and self.frames in (None, self.pooled)
        if not fine or self.clips not in (None, CLIP_COMPONENTS) or not self.lengths:
            raise ValueError(f"relations {self!r} are none that this format has")


@dataclass(frozen=True)
class Relations:
    """What a store says of the teachers' features of n views.

    ``frames`` float32 (n, T, T), symmetric, of Frobenius norm 1 (zero where the features were); ``clips`` float32
    (n, 64). None where the store does not have them.
    """

    frames: F32 | None
    clips: F32 | None


def encode_frames(grams: Any) -> U8:
    """Gram matrices, floats (n, T, T), as codes uint8 (n, T + T (T - 1) / 2)."""
    values = np.asarray(grams, dtype=np.float64)
    norms = np.sqrt(np.maximum(np.einsum("nii->ni", values), 0.0))
    largest = norms.max(axis=1, keepdims=True)
    loudness = np.floor(norms / np.where(largest > 0, largest, 1.0) * _TOP + 0.5)
    loudness = np.where(norms > 0, np.maximum(loudness, 1), 0)
    scale = norms[:, :, None] * norms[:, None, :]
    cosines = np.where(scale > 0, values / np.where(scale > 0, scale, 1.0), 1.0)
    codes = np.floor(np.arccos(np.clip(cosines, -1.0, 1.0)) / np.pi * _TOP + 0.5)
    rows, columns = _pairs(values.shape[1])
    return np.concatenate([loudness, codes[:, rows, columns]], axis=1).astype(np.uint8)


def decode_frames(codes: U8, frames: int) -> F32:
    """The inverse of :func:`encode_frames`: float32 (n, T, T) of Frobenius norm 1, or zero."""
    norms = codes[:, :frames].astype(np.float32) / np.float32(_TOP)
    grams = np.empty((len(codes), frames, frames), dtype=np.float32)
    rows, columns = _pairs(frames)
    cosines = _COSINES[codes[:, frames:]]
    grams[:, rows, columns] = cosines
    grams[:, columns, rows] = cosines
    every = np.arange(frames)
    grams[:, every, every] = 1.0
    grams *= norms[:, :, None] * norms[:, None, :]
    size = np.sqrt(np.einsum("nij,nij->n", grams, grams))
    grams /= np.where(size > 0, size, 1.0).astype(np.float32)[:, None, None]
    return grams


def encode_clips(vectors: Any, mean: F32) -> U8:
    """Vectors, floats (n, 64), as codes uint8 (n, 65): the scale of their deviation from the mean, and the components.

    :param mean: float32 (64,), the basis's.
    """
    away = np.asarray(vectors, dtype=np.float64) - mean.astype(np.float64)
    scale = np.clip(np.ceil(np.abs(away).max(axis=1, keepdims=True) * (_TOP / _WIDEST)), 1, _TOP)
    components = np.clip(np.floor(away * (_TOP * _STEPS / _WIDEST) / scale + 0.5), -_STEPS, _STEPS) + _MIDDLE
    return np.concatenate([scale, components], axis=1).astype(np.uint8)


def decode_clips(codes: U8, mean: F32) -> F32:
    """The inverse of :func:`encode_clips`: float32 (n, 64)."""
    step = codes[:, :1].astype(np.float32) / np.float32(_TOP * _STEPS / _WIDEST)
    vectors: F32 = (codes[:, 1:].astype(np.float32) - np.float32(_MIDDLE)) * step + mean
    return vectors


def decode(spec: RelationSpec, codes: U8, mean: F32 | None) -> Relations:
    """The relations in the codes of n views, uint8 (n, width).

    :param mean: float32 (64,), the basis's; needed where there are clips.
    """
    frames = None if spec.frames is None else decode_frames(codes[:, : _frame_codes(spec.frames)], spec.frames)
    clips = None if mean is None else decode_clips(codes[:, spec.width - CLIP_COMPONENTS - 1 :], mean)
    return Relations(frames, clips)


def _frame_codes(frames: int) -> int:
    return frames + frames * (frames - 1) // 2


def to_arrays(spec: RelationSpec, codes: U8) -> dict[str, U8]:
    """The arrays of a block, each uint8 (1, codes of a view x R x V), from its codes, uint8 (R, V, width)."""
    flat = codes.reshape(-1, spec.width)
    arrays, at = {}, 0
    for name, length in spec.lengths.items():
        part = flat[:, at : at + length]
        at += length
        if name == "frame_norms":
            part = np.diff(part, axis=1, prepend=np.uint8(0))
        elif name == "frame_angles":
            part = _angle_residuals(part, spec.pooled)
        arrays[name] = np.ascontiguousarray(part.T).reshape(1, -1)
    return arrays


def from_arrays(spec: RelationSpec, arrays: Mapping[str, U8], rows: int, views: int) -> U8:
    """The inverse of :func:`to_arrays`: uint8 (R, V, width).

    :raises ValueError: an array does not hold that many codes.
    """
    parts = []
    for name, length in spec.lengths.items():
        part = arrays[name].reshape(length, rows * views)
        if name == "frame_norms":
            part = np.cumsum(part, axis=0, dtype=np.uint8)
        elif name == "frame_angles":
            part = _angles(part, spec.pooled)
        parts.append(part)
    return np.ascontiguousarray(np.concatenate(parts).T).reshape(rows, views, spec.width)


def relation_bytes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of ``frames``, ``clips`` and the ``basis`` among the objects of a store, by their names and sizes."""
    found = dict.fromkeys(("frames", "clips", "basis"), 0)
    for name, size in sizes.items():
        parts = name.split("/")
        if parts[0] == "blocks" and len(parts) > 2 and parts[2] in ARRAYS:
            found[ARRAYS[parts[2]]] += size
        elif name == "basis.safetensors":
            found["basis"] += size
    return found


def relation_sizes(sizes: Mapping[str, float], views: int) -> str:
    """What :func:`relation_bytes` found, in words: bytes a view."""
    shown = [f"{name} {size / views:.1f}" for name, size in sizes.items() if size and views]
    return f"{' + '.join(shown)} bytes a view" if shown else "none yet"


def _pairs(frames: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the upper triangle, by rising distance from the diagonal, then by row."""
    rows, columns = np.triu_indices(frames, 1)
    order = np.argsort(columns - rows, kind="stable")
    return rows[order], columns[order]


def _angle_residuals(codes: U8, frames: int) -> U8:
    """Angles (n, T (T - 1) / 2) less what those nearer to the diagonal predict, modulo 256."""
    residuals = np.empty_like(codes)
    for apart, here, predicted in _lags(frames):
        part = codes[:, here]
        if apart == 1:
            residuals[:, here] = np.diff(part, axis=1, prepend=np.uint8(0))
        else:
            residuals[:, here] = part - predicted(codes.T).T
    return residuals


def _angles(residuals: U8, frames: int) -> U8:
    """The inverse of :func:`_angle_residuals`, code by code: both (T (T - 1) / 2, n)."""
    codes = np.empty_like(residuals)
    for apart, here, predicted in _lags(frames):
        part = residuals[here]
        codes[here] = np.cumsum(part, axis=0, dtype=np.uint8) if apart == 1 else part + predicted(codes)
    return codes


def _lags(frames: int) -> list[tuple[int, slice, Any]]:
    """For every distance from the diagonal: it, where its angles lie, and what predicts them from angles (P, n)."""
    found, start = [], 0
    nearer, nearest = slice(0, 0), slice(0, 0)  # one and two steps nearer to the diagonal
    for apart in range(1, frames):
        here = slice(start, start + frames - apart)

        def predicted(codes: U8, one: slice = nearer, two: slice = nearest, apart: int = apart) -> U8:
            left, down = codes[one][:-1], codes[one][1:]
            low, high = np.minimum(left, down), np.maximum(left, down)
            if apart == 2:  # two steps nearer lies the diagonal, where every angle is 0
                return high
            corner = left.astype(np.int16) + down - codes[two][1:-1]
            median: U8 = np.clip(corner, low, high).astype(np.uint8)  # of left, down and corner
            return median

        found.append((apart, here, predicted))
        nearest, nearer, start = nearer, here, here.stop
    return found


_COSINES: F32 = np.cos(np.arange(256) * (np.pi / _TOP)).astype(np.float32)
