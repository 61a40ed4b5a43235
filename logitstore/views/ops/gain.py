"""Gain: the clip louder or softer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from logitstore.arrays import F32, F64, I64
from logitstore.views.ops.base import DB_UNIT, Clips, Columns, Place, SqlColumn, WaveformOp, Words
from logitstore.views.philox import uniform_integers


@dataclass(frozen=True, kw_only=True)
class Gain(WaveformOp):
    """A gain between ``min_db`` and ``max_db``, in steps of 0.01 dB."""

    name: ClassVar[str] = "gain"
    columns: ClassVar[dict[str, str]] = {"gain_cdb": "gain in 1/100 dB"}

    min_db: float = -6.0
    max_db: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_db", -120.0, 120.0)
        self._in_range("max_db", -120.0, 120.0)
        self._ordered("min_db", "max_db")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_db * DB_UNIT), round(self.max_db * DB_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        low, high = self._bounds()
        return {"gain_cdb": (min(low, 0), max(high, 1))}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        return {"gain_cdb": np.where(self._acts(words), uniform_integers(words.w1, *self._bounds()), 0)}

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        factors = np.power(10.0, draws["gain_cdb"] / (20.0 * DB_UNIT)).astype(np.float32)
        waveforms *= factors[:, None]

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str]:
        return np.abs(draws["gain_cdb"]) / DB_UNIT, "dB"

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (SqlColumn("gain_db", "gain in dB", lambda draws: draws["gain_cdb"] / DB_UNIT),)
