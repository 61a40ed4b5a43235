"""Time mask: a span of time that nobody hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from logitstore.arrays import F64, I64, Bool
from logitstore.errors import RecipeError
from logitstore.views.ops.base import TICKS_PER_SECOND, Clips, Columns, Place, SpectrogramOp, SqlColumn, Words
from logitstore.views.philox import uniform_integers

_TICK_MS = 1000 // TICKS_PER_SECOND


@dataclass(frozen=True, kw_only=True)
class TimeMask(SpectrogramOp):
    """Less than ``max_seconds`` of the view is hidden; the mask's length is uniform, then its place."""

    name: ClassVar[str] = "time_mask"
    columns: ClassVar[dict[str, str]] = {
        "time_start": "start of the mask in ticks of 10 ms from the start of the view; 0 where nothing is masked",
        "time_length": "its length in ticks; 0 where nothing is masked",
    }
    axis: ClassVar[Literal["time", "frequency"]] = "time"

    max_seconds: float = 1.92

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_seconds", 1 / TICKS_PER_SECOND, 3600.0)
        ticks = self.max_seconds * TICKS_PER_SECOND
        if abs(ticks - round(ticks)) > 1e-6:
            raise RecipeError(f"op 'time_mask': max_seconds is {self.max_seconds:g}; it must be a multiple of 0.01 s")

    @property
    def max_ticks(self) -> int:
        """``max_seconds`` in ticks of 10 ms."""
        return round(self.max_seconds * TICKS_PER_SECOND)

    def check(self, place: Place) -> None:
        if self.max_ticks > place.ticks:
            raise RecipeError(
                f"op 'time_mask': max_seconds {self.max_seconds:g} is longer than a view of "
                f"{place.ticks / TICKS_PER_SECOND:g} s; make the mask shorter or --clip-seconds longer"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"time_start": (0, place.ticks + 1), "time_length": (0, self.max_ticks)}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        length = np.where(self._acts(words), uniform_integers(words.w1, 0, self.max_ticks), 0)
        start = uniform_integers(words.w2, 0, clips.place.ticks - length + 1)
        return {"time_start": np.where(length > 0, start, 0), "time_length": length}

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        return {"time_start": draws["time_start"] + draws["time_length"] > place.ticks}

    def mask(self, draws: Columns) -> tuple[F64, F64]:
        start, length = draws["time_start"], draws["time_length"]
        return start / TICKS_PER_SECOND, (start + length) / TICKS_PER_SECOND

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn("time_start_ms", "start of the mask in ms", lambda draws: draws["time_start"] * _TICK_MS),
            SqlColumn(
                "time_end_ms",
                "its end in ms; equal to its start where nothing is masked",
                lambda draws: (draws["time_start"] + draws["time_length"]) * _TICK_MS,
            ),
        )
