"""Roll: the clip's own samples turned in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from logitstore.arrays import F32, F64, I64
from logitstore.views.ops.base import Clips, Columns, Place, SqlColumn, WaveformOp, Words
from logitstore.views.philox import uniform_integers


@dataclass(frozen=True, kw_only=True)
class Roll(WaveformOp):
    """Circular shift of the clip's own samples by up to ``max_fraction`` of its length, to either side."""

    name: ClassVar[str] = "roll"
    columns: ClassVar[dict[str, str]] = {
        "roll": "samples at the store's rate, signed: out[i] = in[(i - roll) mod n] over the clip's own n samples"
    }

    max_fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_fraction", 0.0, 1.0, open_low=True)

    def _most(self, lengths: Any) -> Any:
        return np.floor(np.asarray(lengths, dtype=np.float64) * self.max_fraction).astype(np.int64)

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        most = int(self._most(place.clip_samples))
        return {"roll": (-most, most + 1)}

    def imported_ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"roll": (0, place.clip_samples)}  # as CED logs them

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        most = self._most(clips.lengths)
        return {"roll": np.where(self._acts(words), uniform_integers(words.w1, -most, most + 1), 0)}

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        for position, (length, shift) in enumerate(zip(lengths.tolist(), draws["roll"].tolist(), strict=True)):
            if length and shift % length:
                waveforms[position, :length] = np.roll(waveforms[position, :length], shift)

    def turns(self, draws: Columns) -> I64 | None:
        return draws["roll"]

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str]:
        return np.abs(draws["roll"]) / place.sample_rate, "s"

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (SqlColumn("roll_samples", "samples by which the clip is turned, signed", lambda draws: draws["roll"]),)
