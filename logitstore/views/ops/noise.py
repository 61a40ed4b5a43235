"""Noise: white noise at a drawn ratio to the clip's own power, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from logitstore.arrays import F32, I64, Bool
from logitstore.views.ops.base import DB_UNIT, Clips, Columns, Place, SqlColumn, WaveformOp, Words
from logitstore.views.philox import philox4x32, uniform_integers

_STREAM = 0x6E6F6973  # "nois"
_BYTE_MEAN = 127.5
_DEVIATION = float(np.sqrt(4 * (256.0**2 - 1) / 12))


@dataclass(frozen=True, kw_only=True)
class Noise(WaveformOp):
    """White noise at a signal-to-noise ratio between ``min_snr_db`` and ``max_snr_db``, in steps of 0.01 dB."""

    name: ClassVar[str] = "noise"
    columns: ClassVar[dict[str, str]] = {
        "noise_snr_cdb": "signal-to-noise ratio in 1/100 dB; 0 where there is no noise",
        "noise_key": "key of the noise in [1, 2**32); 0 where there is no noise",
    }

    probability: float = 0.5
    min_snr_db: float = 10.0
    max_snr_db: float = 40.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_snr_db", -120.0, 120.0)
        self._in_range("max_snr_db", -120.0, 120.0)
        self._ordered("min_snr_db", "max_snr_db")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_snr_db * DB_UNIT), round(self.max_snr_db * DB_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        low, high = self._bounds()
        return {"noise_snr_cdb": (min(low, 0), max(high, 1)), "noise_key": (0, 1 << 32)}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        acts = self._acts(words)
        key = np.maximum(words.w2.astype(np.int64), 1)
        snr = uniform_integers(words.w1, *self._bounds())
        return {"noise_snr_cdb": np.where(acts, snr, 0), "noise_key": np.where(acts, key, 0)}

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        keys, ratios = draws["noise_key"].tolist(), draws["noise_snr_cdb"].tolist()
        for position, (key, ratio) in enumerate(zip(keys, ratios, strict=True)):
            length = int(lengths[position])
            if not key or not length:
                continue
            clip = waveforms[position, :length].astype(np.float64)
            power = float(np.mean(clip * clip))
            scale = np.float32(np.sqrt(power * 10.0 ** (-ratio / (10.0 * DB_UNIT))))
            waveforms[position, :length] += noise(key, length) * scale

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        def silent(draws: Columns) -> Bool:
            return np.equal(draws["noise_key"], 0)

        return (
            SqlColumn(
                "noise_snr_db",
                "signal-to-noise ratio in dB; NULL for no noise",
                lambda draws: draws["noise_snr_cdb"] / DB_UNIT,
                null=silent,
            ),
            SqlColumn(
                "noise_key", "key of the noise; NULL for no noise", lambda draws: draws["noise_key"], null=silent
            ),
        )


def noise(key: int, samples: int) -> F32:
    """White noise of unit variance, float32 (samples,), from its key in [1, 2**32).

    Sample i is the sum of the four bytes of word i mod 4 of Philox block i // 4, less its mean, over its standard
    deviation: integers until the last step, near-Gaussian (Irwin-Hall of order 4), the same on every machine.
    """
    blocks = np.arange(-(-samples // 4), dtype=np.uint64)
    words = np.stack(philox4x32((blocks, 0, 0, 0), (key, _STREAM)), axis=1).reshape(-1)[:samples]
    total = words.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32).astype(np.float32)
    centred: F32 = (total - np.float32(4 * _BYTE_MEAN)) / np.float32(_DEVIATION)
    return centred
