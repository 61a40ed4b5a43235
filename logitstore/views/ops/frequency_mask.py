"""Frequency mask: a band that nobody hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from logitstore.arrays import F64
from logitstore.views.ops.base import Columns, SpectrogramOp, SqlColumn
from logitstore.views.ops.spans import Band


@dataclass(frozen=True, kw_only=True)
class FrequencyMask(Band, SpectrogramOp):
    """Less than ``max_steps`` / 64 of the HTK-mel axis from ``min_hz`` to ``max_hz`` is hidden."""

    name: ClassVar[str] = "frequency_mask"
    columns: ClassVar[dict[str, str]] = {
        "freq_low": "lower end of the mask in 1/64 of the HTK-mel axis from the op's min_hz to max_hz; "
        "0 where nothing is masked",
        "freq_steps": "its width in the same steps; 0 where nothing is masked",
    }
    axis: ClassVar[Literal["time", "frequency"]] = "frequency"

    def mask(self, draws: Columns) -> tuple[F64, F64]:
        return self.band(draws)

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn(
                "freq_low_step", "lower end of the mask in steps of its axis", lambda draws: self.steps(draws)[0]
            ),
            SqlColumn(
                "freq_high_step",
                "its upper end; equal to the lower where nothing is masked",
                lambda draws: self.steps(draws)[1],
            ),
            SqlColumn("freq_low_hz", "lower end of the mask in Hz", lambda draws: self.band(draws)[0]),
            SqlColumn("freq_high_hz", "its upper end in Hz", lambda draws: self.band(draws)[1]),
        )
