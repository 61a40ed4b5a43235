"""Differences between arms that share everything but one thing, with 95 % t-intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of ``count`` numbers and half of the width of its interval, NaN of fewer than two; in their unit."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half

    def inside(self, margin: float) -> bool:
        """Whether the whole interval lies in [-margin, margin]: what an equivalence test at 2.5 % a side asks."""
        return -margin <= self.low and self.high <= margin

    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of a sample and Student's t-interval of it.

    :param values: at least one number. :param confidence: in (0, 1).
    :raises ValueError: no values.
    """
    from scipy import stats  # scikit-learn, which metrics need, brings it

    count = len(values)
    if not count:
        raise ValueError("no values to average")
    mean = math.fsum(values) / count
    if count < 2:
        return Interval(mean, math.nan, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    quantile = float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    return Interval(mean, quantile * math.sqrt(variance / count), count)


def paired(arm: Mapping[Any, float], against: Mapping[Any, float]) -> list[float]:
    """arm - against for every key that both have, in the order of the keys."""
    return [arm[key] - against[key] for key in sorted(arm.keys() & against.keys())]
