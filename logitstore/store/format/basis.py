"""The basis of a store's clip vectors: what turns whole features of a view into 64 numbers.

Two steps, both principal components of a sample of the store's own features, neither centred, so that inner products
of projections stand for inner products of features. Each member's frames are first projected from D_m features to 16;
then all frames of all members, side by side, to 64. Beside one step from everything to 64 that takes a seventh of the
bytes; on clips outside of the sample it errs a little less on ESC-10, and a little more on the synthetic scenes
(docs/notes.md).

The basis is written once, before the first block, as one object; every commit names its digest. Its rows are kept in
8 bits each component: what is projected on is the basis as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32, F64
from logitstore.errors import CorruptStoreError
from logitstore.store.format.relations import CLIP_COMPONENTS

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

BASIS = "basis.safetensors"
FRAME_COMPONENTS = 16
_LEAST_SHARE = 1e-10  # of the first eigenvalue: what is below is rounding
_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Basis:
    """The two projections, in 8 bits: a row of one is its int8 row times its scale.

    ``widths`` int32 (M,): D_m of every member. ``frame_rows`` int8 (16, sum of D_m), the members' side by side, and
    ``frame_scales`` float32 (M, 16). ``rows`` int8 (64, M * T * 16), of 16 components by frame by member, and
    ``scales`` float32 (64,). ``mean`` float32 (64,): the mean of the sample's vectors, about which they are quantised.
    """

    widths: I32
    frame_rows: I8
    frame_scales: F32
    rows: I8
    scales: F32
    mean: F32

    @property
    def frames(self) -> int:
        """T: the frames of a view."""
        return int(self.rows.shape[1]) // (FRAME_COMPONENTS * len(self.widths))

    def frame_matrices(self) -> list[F32]:
        """The first step, float32 (16, D_m) of each member."""
        parts = np.split(self.frame_rows.astype(np.float32), np.cumsum(self.widths)[:-1], axis=1)
        return [part * scales[:, None] for part, scales in zip(parts, self.frame_scales, strict=True)]

    def matrix(self) -> F32:
        """The second step, float32 (64, M * T * 16)."""
        return self.rows.astype(np.float32) * self.scales[:, None]

    def project(self, members: Sequence[F32]) -> F32:
        """Features float32 (n, T, D_m) of each member, as vectors float32 (n, 64)."""
        projected: F32 = _reduced(members, self.frame_matrices()) @ self.matrix().T
        return projected


def fit(members: Sequence[F32]) -> Basis:
    """The basis of a sample of n >= 1 views: float32 (n, T, D_m) of each member.

    Rows are in falling order of what they explain and of norm 1, or 0 beyond the sample's rank; each one's sign makes
    its largest component positive.
    """
    kept = [_rounded(_components(member.reshape(-1, member.shape[2]), FRAME_COMPONENTS)) for member in members]
    matrices = [rows.astype(np.float32) * scales[:, None] for rows, scales in kept]
    reduced = _reduced(members, matrices)
    rows, scales = _rounded(_components(reduced, CLIP_COMPONENTS))
    vectors = reduced @ (rows.astype(np.float32) * scales[:, None]).T
    return Basis(
        np.array([member.shape[2] for member in members], np.int32),
        np.concatenate([rows for rows, _ in kept], axis=1),
        np.stack([scales for _, scales in kept]),
        rows,
        scales,
        vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
    )


def encode_basis(basis: Basis) -> bytes:
    """The object that holds a basis: safetensors of its arrays, by their names."""
    from safetensors.numpy import save

    content: bytes = save({field.name: np.ascontiguousarray(getattr(basis, field.name)) for field in fields(Basis)})
    return content


def decode_basis(content: bytes, location: str) -> Basis:
    """The basis in an object.

    :raises CorruptStoreError: it is no basis.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found: dict[str, Any] = load(content)
        basis = Basis(**found)
        members = len(basis.widths)
        expected = {
            "widths": ("int32", (members,)),
            "frame_rows": ("int8", (FRAME_COMPONENTS, int(basis.widths.sum()))),
            "frame_scales": ("float32", (members, FRAME_COMPONENTS)),
            "rows": ("int8", (CLIP_COMPONENTS, basis.frames * members * FRAME_COMPONENTS)),
            "scales": ("float32", (CLIP_COMPONENTS,)),
            "mean": ("float32", (CLIP_COMPONENTS,)),
        }
        for name, kind in expected.items():
            array = found[name]
            if (str(array.dtype), array.shape) != kind:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not {kind[0]} of {kind[1]}")
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        said = " ".join(str(error).split())
        raise CorruptStoreError(
            f"{location}: {BASIS} is damaged ({said}); restore it from a copy, or, where no block is committed yet, "
            "delete it and build again"
        ) from error
    return basis


def _reduced(members: Sequence[F32], matrices: Sequence[F32]) -> F32:
    """Every frame in its 16 components, side by side: float32 (n, M * T * 16)."""
    parts = [(member @ matrix.T).reshape(len(member), -1) for member, matrix in zip(members, matrices, strict=True)]
    return np.concatenate(parts, axis=1)


def _components(sample: F32, count: int) -> F64:
    """The first principal components of a sample (n, D), not centred: float64 (count, D)."""
    width = sample.shape[1]
    moment = np.zeros((width, width))
    for start in range(0, len(sample), _ROWS_AT_ONCE):
        part = sample[start : start + _ROWS_AT_ONCE].astype(np.float64)
        moment += part.T @ part
    values, vectors = np.linalg.eigh(moment)
    order = np.argsort(-values, kind="stable")[:count]
    order = order[values[order] > max(_LEAST_SHARE * float(values[-1]), 0.0)]
    components = np.zeros((count, width))
    components[: len(order)] = vectors[:, order].T
    return components


def _rounded(components: F64) -> tuple[I8, F32]:
    """Components (n, D) as int8 rows and float32 scales (n,)."""
    peaks = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    scales = (np.abs(peaks[:, 0]) / 127).astype(np.float32)
    signed = np.where(peaks < 0, -components, components)
    rows = np.round(signed / np.where(scales > 0, scales, 1.0)[:, None].astype(np.float64))
    return np.clip(rows, -127, 127).astype(np.int8), scales
