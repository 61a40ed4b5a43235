"""Frequency mask: a band that nobody hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from logitstore.arrays import F64, I64, Bool
from logitstore.errors import RecipeError
from logitstore.views.ops.base import MEL_STEPS, Clips, Columns, Place, SpectrogramOp, SqlColumn, Words, mel_step_hz
from logitstore.views.philox import uniform_integers


@dataclass(frozen=True, kw_only=True)
class FrequencyMask(SpectrogramOp):
    """Less than ``max_steps`` / 64 of the HTK-mel axis from ``min_hz`` to ``max_hz`` is hidden."""

    name: ClassVar[str] = "frequency_mask"
    columns: ClassVar[dict[str, str]] = {
        "freq_low": "lower end of the mask in 1/64 of the HTK-mel axis from the op's min_hz to max_hz; "
        "0 where nothing is masked",
        "freq_steps": "its width in the same steps; 0 where nothing is masked",
    }
    axis: ClassVar[Literal["time", "frequency"]] = "frequency"

    max_steps: int = 24
    min_hz: float = 0.0
    max_hz: float = 8000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_steps", 1, MEL_STEPS)
        self._in_range("min_hz", 0.0, 192000.0)
        self._in_range("max_hz", 0.0, 192000.0)
        if self.min_hz >= self.max_hz:
            raise RecipeError(
                f"op 'frequency_mask': the range is upside down, min_hz {self.min_hz:g} is not below max_hz "
                f"{self.max_hz:g}; swap them"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"freq_low": (0, MEL_STEPS + 1), "freq_steps": (0, self.max_steps)}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        steps = np.where(self._acts(words), uniform_integers(words.w1, 0, self.max_steps), 0)
        low = uniform_integers(words.w2, 0, MEL_STEPS - steps + 1)
        return {"freq_low": np.where(steps > 0, low, 0), "freq_steps": steps}

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        return {"freq_low": draws["freq_low"] + draws["freq_steps"] > MEL_STEPS}

    def mask(self, draws: Columns) -> tuple[F64, F64]:
        axis = mel_step_hz(np.arange(MEL_STEPS + 1), self.min_hz, self.max_hz)
        return axis[draws["freq_low"]], axis[draws["freq_low"] + draws["freq_steps"]]

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn("freq_low_step", "lower end of the mask in steps of its axis", lambda draws: draws["freq_low"]),
            SqlColumn(
                "freq_high_step",
                "its upper end; equal to the lower where nothing is masked",
                lambda draws: draws["freq_low"] + draws["freq_steps"],
            ),
            SqlColumn("freq_low_hz", "lower end of the mask in Hz", lambda draws: self.mask(draws)[0]),
            SqlColumn("freq_high_hz", "its upper end in Hz", lambda draws: self.mask(draws)[1]),
        )
