"""Small numbers as bytes: one below 255 ends a number, and a byte 255 adds 255 and goes on."""

from __future__ import annotations

import numpy as np

from logitstore.arrays import I64, U8

_ESCAPE = 255


def encode_gaps(gaps: I64) -> U8:
    """Numbers of at least 0, int64 (n,), as bytes, uint8 (n or more,)."""
    escapes, last = np.divmod(gaps, _ESCAPE)
    encoded = np.full(int(len(gaps) + escapes.sum()), _ESCAPE, dtype=np.uint8)
    encoded[np.cumsum(escapes + 1) - 1] = last
    return encoded


def decode_gaps(encoded: U8) -> I64:
    """The inverse of :func:`encode_gaps`; what no byte below 255 ends is left out."""
    total = np.cumsum(encoded.astype(np.int64))
    positions = total[encoded < _ESCAPE]
    return np.diff(positions, prepend=0)
