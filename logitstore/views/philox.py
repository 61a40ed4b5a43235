"""Philox4x32-10: random numbers as a pure function of a key and a counter.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Nothing is sequential, so the
number of workers, the order of the work and the size of a batch cannot change a value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import U32

U64 = npt.NDArray[np.uint64]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_ROUNDS = 10


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[U32, U32, U32, U32]:
    """Four 32-bit words for every counter.

    :param counter: four integers or integer arrays in [0, 2**32), broadcast against each other.
    :param key: two integers or integer arrays in [0, 2**32), broadcast likewise.
    :returns: four uint32 arrays of the broadcast shape, each uniform over [0, 2**32).
    """
    shape = np.broadcast_shapes(*(np.shape(word) for word in (*counter, *key)))
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)  # of any shapes, for as long as they are
    k0, k1 = (np.asarray(word, dtype=np.uint64) for word in key)
    for _ in range(_ROUNDS):
        product_0 = c0 * _MULTIPLIER_0  # 32 x 32 bits never overflow 64
        product_1 = c2 * _MULTIPLIER_1
        c0 = (product_1 >> _WORD) ^ c1 ^ k0
        product_1 &= _LOW
        c1 = product_1
        c2 = (product_0 >> _WORD) ^ c3 ^ k1
        product_0 &= _LOW
        c3 = product_0
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    r0, r1, r2, r3 = (np.broadcast_to(word, shape).astype(np.uint32) for word in (c0, c1, c2, c3))
    return r0, r1, r2, r3


def split64(value: Any) -> tuple[U64, U64]:
    """The low and the high 32 bits of 64-bit integers, each as uint64 in [0, 2**32)."""
    wide = np.asarray(value, dtype=np.uint64)
    return wide & _LOW, wide >> _WORD


def uniform_integers(words: U32, low: Any, high: Any) -> npt.NDArray[np.int64]:
    """Words mapped to integers in [low, high) by a multiplication: ``low + floor(word * (high - low) / 2**32)``.

    :param words: uint32, shape (n,).
    :param low: inclusive bound, integer or array (n,).
    :param high: exclusive bound, integer or array (n,), with 0 < high - low <= 2**31.
    :returns: int64 (n,). No value is more than (high - low) / 2**32 likelier than another.
    """
    span = (np.asarray(high, dtype=np.int64) - np.asarray(low, dtype=np.int64)).astype(np.uint64)
    return np.asarray(low, dtype=np.int64) + ((words.astype(np.uint64) * span) >> _WORD).astype(np.int64)
