"""Time mask: a span of time that nobody hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from logitstore.arrays import F64
from logitstore.views.ops.base import TICK_MS, TICKS_PER_SECOND, Columns, SpectrogramOp, SqlColumn
from logitstore.views.ops.spans import TimeSpan


@dataclass(frozen=True, kw_only=True)
class TimeMask(TimeSpan, SpectrogramOp):
    """Less than ``max_seconds`` of the view is hidden; the mask's length is uniform, then its place."""

    name: ClassVar[str] = "time_mask"
    columns: ClassVar[dict[str, str]] = {
        "time_start": "start of the mask in ticks of 10 ms from the start of the view; 0 where nothing is masked",
        "time_length": "its length in ticks; 0 where nothing is masked",
    }
    axis: ClassVar[Literal["time", "frequency"]] = "time"

    def mask(self, draws: Columns) -> tuple[F64, F64]:
        start, end = self.span(draws)
        return start / TICKS_PER_SECOND, end / TICKS_PER_SECOND

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn("time_start_ms", "start of the mask in ms", lambda draws: self.span(draws)[0] * TICK_MS),
            SqlColumn(
                "time_end_ms",
                "its end in ms; equal to its start where nothing is masked",
                lambda draws: self.span(draws)[1] * TICK_MS,
            ),
        )
