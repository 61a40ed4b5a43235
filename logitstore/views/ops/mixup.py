"""Mixup: a second clip heard along with the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from logitstore.arrays import F32, F64, I64, Bool
from logitstore.views.ops.base import WEIGHT_UNIT, Clips, Columns, Place, SqlColumn, WaveformOp, Words
from logitstore.views.philox import uniform_integers


@dataclass(frozen=True, kw_only=True)
class Mixup(WaveformOp):
    """A second clip of the same shard, unaugmented: ``(1 - w) * clip + w * partner``, looped or cut to its length.

    w is uniform over [``min_weight``, ``max_weight``] in steps of 1/1024 and is the partner's share. Levels are left
    as they are: the sum is convex, so it never clips where neither clip does.
    """

    name: ClassVar[str] = "mixup"
    columns: ClassVar[dict[str, str]] = {
        "mixup_partner": "row of the partner within the clip's shard; 0 where nothing is mixed",
        "mixup_weight": "the partner's share in 1/1024; 0 where nothing is mixed",
    }
    mixes: ClassVar[bool] = True

    probability: float = 0.5
    min_weight: float = 0.0
    max_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("min_weight", 0.0, 1.0)
        self._in_range("max_weight", 0.0, 1.0)
        self._ordered("min_weight", "max_weight")

    def _bounds(self) -> tuple[int, int]:
        return round(self.min_weight * WEIGHT_UNIT), round(self.max_weight * WEIGHT_UNIT) + 1

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        return {"mixup_partner": (0, place.shard_clips), "mixup_weight": (0, self._bounds()[1])}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        acts = self._acts(words) & (clips.shard_rows > 1)
        other = uniform_integers(words.w1, 0, max(clips.shard_rows - 1, 1))
        weight = np.where(acts, uniform_integers(words.w2, *self._bounds()), 0)
        partner = other + (other >= clips.rows)  # any row of the shard but the clip's own
        return {"mixup_partner": np.where(weight > 0, partner, 0), "mixup_weight": weight}

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        partner = draws["mixup_partner"]
        return {"mixup_partner": (partner >= shard_rows) | ((draws["mixup_weight"] > 0) & (partner == rows))}

    def partners(self, draws: Columns) -> I64:
        return np.where(draws["mixup_weight"] > 0, draws["mixup_partner"], -1)

    def partner_shares(self, draws: Columns) -> F32:
        shares: F32 = (draws["mixup_weight"] / WEIGHT_UNIT).astype(np.float32)
        return shares

    def without_partner(self, draws: Columns, where: Bool) -> dict[str, I64]:
        return {name: np.where(where, 0, draws[name]) for name in self.columns}

    def apply(
        self,
        waveforms: F32,
        lengths: I64,
        draws: Columns,
        partners: Sequence[F32 | None] | None,
        sample_rate: int,
    ) -> None:
        for position, weight in enumerate(draws["mixup_weight"].tolist()):
            if not weight:
                continue
            partner = partners[position] if partners is not None else None
            if partner is None or not len(partner):
                raise ValueError(f"view {position} has mixup weight {weight}/{WEIGHT_UNIT} and no partner waveform")
            length = int(lengths[position])
            looped = np.resize(partner, length)
            own = waveforms[position, :length] * np.float32((WEIGHT_UNIT - weight) / WEIGHT_UNIT)
            waveforms[position, :length] = own + looped * np.float32(weight / WEIGHT_UNIT)

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str]:
        return 100 * draws["mixup_weight"] / WEIGHT_UNIT, "%"

    def sql_columns(self) -> tuple[SqlColumn, ...]:
        return (
            SqlColumn(
                "mixup_partner_clip",
                "the clip that is mixed in; NULL for none",
                lambda draws: draws["mixup_partner"],
                null=lambda draws: draws["mixup_weight"] == 0,
                of_shard=True,
            ),
            SqlColumn("mixup_weight", "its share, in [0, 1]", lambda draws: draws["mixup_weight"] / WEIGHT_UNIT),
        )
