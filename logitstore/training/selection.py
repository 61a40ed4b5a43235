"""Which weights a training ends with: early stopping, and the mean of the best evaluations."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

#: What evaluations can be compared by -> the metric, and whether more of it is better.
MEASURES = {"loss": ("held_out_loss", False), "mAP": ("mAP", True), "sonyc": ("sonyc_micro_auprc", True)}


@dataclass(frozen=True)
class Candidate:
    """Weights that a training may end with, after ``step`` steps, in that epoch; an evaluation found ``value``."""

    step: int
    epoch: int
    value: float


@dataclass
class Selection:
    """Remembers the best ``keep`` evaluations, best first, and how many have passed since there was a new best one.

    :param by: a key of :data:`MEASURES`. :param keep: 0 for none: the last weights are what a training ends with.
    :param patience: evaluations without a new best one after which a training ends; None for never.
    """

    by: str = "loss"
    keep: int = 0
    patience: int | None = None
    best: list[Candidate] = field(default_factory=list)
    record: float | None = None
    stale: int = 0

    def add(self, step: int, epoch: int, metrics: dict[str, Any]) -> bool:
        """Take note of an evaluation; whether it is among the best, so that its weights are to be kept.

        Of two alike the earlier one is better; one that is not a number is never good.
        """
        name, more_is_better = MEASURES[self.by]
        if name not in metrics:
            return False
        value = float(metrics[name])
        if math.isnan(value):
            self.stale += 1
            return False
        sign = -1 if more_is_better else 1
        if self.record is None or sign * value < sign * self.record:
            self.record, self.stale = value, 0
        else:
            self.stale += 1
        ranked = sorted([*self.best, Candidate(step, epoch, value)], key=lambda each: (sign * each.value, each.step))
        self.best = ranked[: self.keep]
        return any(each.step == step for each in self.best)

    @property
    def over(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.stale >= self.patience

    def state(self) -> dict[str, Any]:
        """What changes, as JSON values."""
        return {"best": [asdict(each) for each in self.best], "record": self.record, "stale": self.stale}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.best = [Candidate(**each) for each in state["best"]]
        self.record, self.stale = state["record"], state["stale"]
