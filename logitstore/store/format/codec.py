"""Probabilities as codes of a few bits, and back.

Three scales, chosen by the ensemble's score kind and the number of bits:

``angle``    sigmoid probabilities, uniform in asin(sqrt(p)). That angle is uniform in Fisher information for a
             Bernoulli, so that one step costs the same KL divergence anywhere: 2 * step**2 / 12 nats on average.
``log``      softmax probabilities, uniform in log p over [-16, 0].
``float16``  either, as IEEE half precision; the code is its bit pattern, which grows with the value.

Every code decodes inside (0, 1), so a loss on a decoded target is finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32
from logitstore.errors import UsageError

Codes = npt.NDArray[np.uint16]

VALUE_BITS = (4, 5, 6, 7, 8, 16)
LOG_FLOOR = -16.0
_HALF_LOWEST = 2.0**-24  # the smallest positive half
_HALF_HIGHEST = 1.0 - 2.0**-11  # the largest half below 1


@dataclass(frozen=True)
class Quantizer:
    """A scale and its number of bits; ``cells`` codes from 0, higher for higher probabilities."""

    scale: str
    bits: int

    @property
    def cells(self) -> int:
        """Number of codes."""
        return 1 << self.bits

    @property
    def code_bytes(self) -> int:
        """Bytes that hold one code."""
        return 1 if self.bits <= 8 else 2

    @property
    def allowed(self) -> tuple[int, int]:
        """The lowest and the highest code that stands for a probability in (0, 1)."""
        if self.scale == "float16":
            lowest, highest = (np.float16(value).view(np.uint16) for value in (_HALF_LOWEST, _HALF_HIGHEST))
            return int(lowest), int(highest)
        return 0, self.cells - 1

    def encode(self, probabilities: Any) -> Codes:
        """Codes, uint16, of probabilities in [0, 1], any shape; the caller has checked that they are finite."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.scale == "float16":
            return np.clip(p, _HALF_LOWEST, _HALF_HIGHEST).astype(np.float16).view(np.uint16)
        if self.scale == "angle":
            position = np.arcsin(np.sqrt(np.clip(p, 0.0, 1.0))) / (np.pi / 2)
        else:
            position = 1.0 - np.log(np.maximum(p, np.exp(LOG_FLOOR))) / LOG_FLOOR
        return np.clip(np.floor(position * self.cells), 0, self.cells - 1).astype(np.uint16)

    def table(self) -> F32:
        """The probability of every code, float32 (cells,); for ``float16`` (65536,), zero beyond the half below 1."""
        if self.scale == "float16":
            codes = np.arange(1 << 16, dtype=np.uint16)
            halves = codes.view(np.float16).astype(np.float32)
            return np.where((codes > 0) & (halves < 1), halves, 0).astype(np.float32)
        middle = (np.arange(self.cells) + 0.5) / self.cells
        if self.scale == "angle":
            return (np.sin(middle * (np.pi / 2)) ** 2).astype(np.float32)
        return np.exp(LOG_FLOOR * (1.0 - middle)).astype(np.float32)


def quantizer(scores: str, bits: int) -> Quantizer:
    """The quantizer of a store.

    :param scores: score kind of the ensemble, "sigmoid" or "softmax".
    :param bits: bits a value, 4 to 8, or 16 for float16.
    """
    if bits not in VALUE_BITS:
        allowed = ", ".join(map(str, VALUE_BITS))
        raise UsageError(f"{bits} bits a value cannot be stored; allowed are {allowed} (16 is float16)")
    if bits == 16:
        return Quantizer("float16", 16)
    return Quantizer("angle" if scores == "sigmoid" else "log", bits)


def top_k(probabilities: F32, k: int) -> tuple[npt.NDArray[np.uint16], F32]:
    """The k highest probabilities of every row, falling; ties go to the lower class index.

    :param probabilities: float32 (n, C), C <= 65,536.
    :returns: classes uint16 (n, k) and probabilities float32 (n, k).
    """
    count, classes = probabilities.shape
    if 2 * k < classes:
        order = np.argpartition(-probabilities, k - 1, axis=1)[:, :k]
        order.sort(axis=1)
        chosen = np.take_along_axis(probabilities, order, axis=1)
        order = np.take_along_axis(order, np.argsort(-chosen, axis=1, kind="stable"), axis=1)
        # where another class has the k-th probability too, which of them were chosen is chance: sort those rows whole
        lowest = chosen.min(axis=1, keepdims=True)
        tied = np.count_nonzero(probabilities >= lowest, axis=1) != k
    else:
        order, tied = np.empty((count, k), np.int64), np.ones(count, dtype=bool)
    if tied.any():
        order[tied] = np.argsort(-probabilities[tied], axis=1, kind="stable")[:, :k]
    return order.astype(np.uint16), np.take_along_axis(probabilities, order, axis=1)
