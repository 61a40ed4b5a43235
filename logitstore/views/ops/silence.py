"""Silence: a span of time set to zero, for teachers that take no masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from logitstore.arrays import F32, I64
from logitstore.views.ops.base import TICK_MS, TICKS_PER_SECOND, Columns, SqlColumn, WaveformOp
from logitstore.views.ops.spans import TimeSpan


@dataclass(frozen=True, kw_only=True)
class Silence(TimeSpan, WaveformOp):
    """Less than ``max_seconds`` of the view is zero: the counterpart of ``time_mask`` on the waveform."""

    name: ClassVar[str] = "silence"
    columns: ClassVar[dict[str, str]] = {
        "silence_start": "start of the silence in ticks of 10 ms from the start of the view; 0 where there is none",
        "silence_length": "its length in ticks; 0 where there is none",
    }

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        for position, (start, end) in enumerate(zip(*(ticks.tolist() for ticks in self.span(draws)), strict=True)):
            first, stop = (-(-tick * sample_rate // TICKS_PER_SECOND) for tick in (start, end))
            waveforms[position, first:stop] = 0.0

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn("silence_start_ms", "start of the silence in ms", lambda draws: self.span(draws)[0] * TICK_MS),
            SqlColumn(
                "silence_end_ms",
                "its end in ms; equal to its start where there is none",
                lambda draws: self.span(draws)[1] * TICK_MS,
            ),
        )
