"""What the masks and their counterparts on the waveform draw alike: a span of time, a band of frequencies.

Word 1 gives a span's length and a band's width, word 2 its place: so a recipe with ``silence`` and ``band_stop`` in the
places of ``time_mask`` and ``frequency_mask`` hides the same of every view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from logitstore.arrays import F64, I64, Bool
from logitstore.errors import RecipeError
from logitstore.views.ops.base import MEL_STEPS, TICKS_PER_SECOND, Clips, Columns, Op, Place, Words, mel_step_hz
from logitstore.views.philox import uniform_integers

_LONGEST = 3600.0  # seconds of a view, and of a span that only a share bounds


@dataclass(frozen=True, kw_only=True)
class TimeSpan(Op):
    """An op that draws a span of less than ``max_seconds`` and, where given, less than ``max_share`` of the view.

    The span's length is uniform, then its place. A subclass names two columns, for its start and its length in ticks.
    """

    max_seconds: float = 1.92
    max_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._in_range("max_seconds", 1 / TICKS_PER_SECOND, _LONGEST)
        if self.max_share is not None:
            self._in_range("max_share", 0.0, 1.0, open_low=True)
        ticks = self.max_seconds * TICKS_PER_SECOND
        if abs(ticks - round(ticks)) > 1e-6:
            raise RecipeError(f"op {self.name!r}: max_seconds is {self.max_seconds:g}; it must be a multiple of 0.01 s")

    @classmethod
    def parse(cls, recipe: str, parameters: dict[str, Any]) -> Self:
        return super().parse(
            recipe, {"max_seconds": _LONGEST} | parameters if "max_share" in parameters else parameters
        )

    def fitted(self, place: Place) -> Self:
        return self if self.max_share is None else replace(
            self, max_seconds=self._most(place) / TICKS_PER_SECOND, max_share=None
        )  # fmt: skip

    def unshared(self) -> Self:
        return replace(self, max_share=None)

    @property
    def max_ticks(self) -> int:
        """``max_seconds`` in ticks of 10 ms."""
        return round(self.max_seconds * TICKS_PER_SECOND)

    def _most(self, place: Place) -> int:
        """One more than the longest span, in ticks."""
        if self.max_share is None:
            return self.max_ticks
        return min(self.max_ticks, max(1, math.floor(self.max_share * place.ticks + 0.5)))

    def check(self, place: Place) -> None:
        if self._most(place) > place.ticks:
            raise RecipeError(
                f"op {self.name!r}: max_seconds {self.max_seconds:g} is longer than a view of "
                f"{place.ticks / TICKS_PER_SECOND:g} s; make it shorter, bound it by a share of the view (max_share), "
                "or make --clip-seconds longer"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        start, length = self.columns
        return {start: (0, place.ticks + 1), length: (0, self._most(place))}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        length = np.where(self._acts(words), uniform_integers(words.w1, 0, self._most(clips.place)), 0)
        start = uniform_integers(words.w2, 0, clips.place.ticks - length + 1)
        return dict(zip(self.columns, (np.where(length > 0, start, 0), length), strict=True))

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        start, length = self.columns
        return {start: draws[start] + draws[length] > place.ticks}

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str]:
        _, length = self.columns
        return draws[length] / TICKS_PER_SECOND, "s"

    def span(self, draws: Columns) -> tuple[I64, I64]:
        """Start and end in ticks from the start of the view, int64 (n,), half-open; equal for nothing."""
        start, length = (draws[name] for name in self.columns)
        return start, start + length


@dataclass(frozen=True, kw_only=True)
class Band(Op):
    """An op that draws a band of less than ``max_steps`` / 64 of the HTK-mel axis from ``min_hz`` to ``max_hz``.

    The band's width is uniform, then its place. A subclass names two columns, for its lower end and its width in steps.
    """

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
                f"op {self.name!r}: the range is upside down, min_hz {self.min_hz:g} is not below max_hz "
                f"{self.max_hz:g}; swap them"
            )

    def ranges(self, place: Place) -> dict[str, tuple[int, int]]:
        low, steps = self.columns
        return {low: (0, MEL_STEPS + 1), steps: (0, self.max_steps)}

    def draw(self, words: Words, clips: Clips) -> dict[str, I64]:
        steps = np.where(self._acts(words), uniform_integers(words.w1, 0, self.max_steps), 0)
        low = uniform_integers(words.w2, 0, MEL_STEPS - steps + 1)
        return dict(zip(self.columns, (np.where(steps > 0, low, 0), steps), strict=True))

    def impossible(self, draws: Columns, rows: I64, shard_rows: int, place: Place) -> dict[str, Bool]:
        low, steps = self.columns
        return {low: draws[low] + draws[steps] > MEL_STEPS}

    def amount(self, draws: Columns, place: Place) -> tuple[F64, str]:
        _, steps = self.columns
        return 100 * draws[steps] / MEL_STEPS, "% of the bands"

    def steps(self, draws: Columns) -> tuple[I64, I64]:
        """Lower and upper end in 1/64 of the axis, int64 (n,), half-open; equal for nothing."""
        low, steps = (draws[name] for name in self.columns)
        return low, low + steps

    def band(self, draws: Columns) -> tuple[F64, F64]:
        """Lower and upper end in Hz, float64 (n,)."""
        axis = mel_step_hz(np.arange(MEL_STEPS + 1), self.min_hz, self.max_hz)
        low, high = self.steps(draws)
        return axis[low], axis[high]
