"""Another sample rate, each clip alone, so that a batch cannot change a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.lengths import samples_at

if TYPE_CHECKING:
    pass


def resample_clip(clip: F32, rate: int, new_rate: int) -> F32:
    """One clip at ``new_rate`` (Hz) through soxr's HQ filter.

    :param clip: float32 (n,) at ``rate`` (Hz).
    :returns: float32 of exactly n * new_rate / rate samples, rounded half up.
    :raises ValueError, RuntimeError: soxr cannot go from the one rate to the other.
    """
    import soxr

    samples = int(samples_at(len(clip), rate, new_rate))
    out = np.zeros(samples, dtype=np.float32)
    resampled = (clip if rate == new_rate else soxr.resample(clip, rate, new_rate, quality="HQ"))[:samples]
    out[: len(resampled)] = resampled
    return out
