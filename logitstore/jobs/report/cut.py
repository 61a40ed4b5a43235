"""What the top k cuts off, and what fewer classes would keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from logitstore.jobs.report.certainty import PROBABILITY_BINS, quantile
from logitstore.jobs.report.charts import histogram, lines
from logitstore.jobs.report.page import Content, Part, Section, Table
from logitstore.jobs.report.views import Views

PART = {"place": 50, "class": "Cut"}
_FINE = 4000
_LEVELS = (0.5, 0.1, 0.05, 0.01)


class Cut(Part):
    """Sums of the probability at every rank, and how high the last one is."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        self.k = report.store.k
        self.sums = np.zeros(self.k)
        self.above = np.zeros((len(_LEVELS), self.k), np.int64)
        self.last, self.left = np.zeros(_FINE, np.int64), np.zeros(_FINE, np.int64)
        self.views, self.left_sum = 0, 0.0

    def see(self, views: Views) -> None:
        """Count."""
        p = views.probabilities
        self.views += len(views)
        self.sums += p.sum(axis=0, dtype=np.float64)
        for at, level in enumerate(_LEVELS):
            self.above[at] += np.count_nonzero(p >= level, axis=0)
        self.last += _counted(np.where(views.used, p, np.inf).min(axis=1))
        if self.report.softmax:
            left = np.clip(1 - p.sum(axis=1, dtype=np.float64), 0, 1)
            self.left_sum += float(left.sum())
            self.left += _counted(left)

    def section(self) -> Section | None:
        """Nothing of a store without views."""
        if not self.views:
            return None
        k, classes = self.k, len(self.report.classes)
        ranks = np.arange(1, k + 1)
        means, kept = self.sums / self.views, np.cumsum(self.sums) / self.sums.sum()
        content: list[Content] = [
            lines(
                "Mean probability by rank",
                f"From {means[0]:.3g} at rank 1 to {means[-1]:.3g} at rank {k}.",
                [("mean probability", ranks, means)],
                "rank",
                "mean probability",
                log=True,
                points=k <= 30,
            ),
            lines(
                "What a smaller k would keep",
                f"{_enough(kept, 0.9)} classes would keep 90 % of the stored probability, "
                f"{_enough(kept, 0.99)} would keep 99 %.",
                [("share kept", ranks, kept)],
                "k",
                "share of the stored probability",
                least=0.0,
                most=1.0,
                points=k <= 30,
                form=".3f",
            ),
        ]
        if k < classes:
            content.append(self._last_one(k))
        if self.report.softmax and k < classes:
            content.append(
                histogram(
                    "Probability that the cut leaves out",
                    f"Mean {self.left_sum / self.views:.3g} of a view's sum of 1.",
                    *_used(self.left),
                    "1 - sum of the k",
                    what="views",
                )
            )
        rows = [
            (int(rank), float(mean), float(share), *(float(row[rank - 1] / self.views) for row in self.above))
            for rank, mean, share in zip(ranks.tolist(), means, kept, strict=True)
        ]
        content.append(
            Table(
                "By rank",
                ("rank", "mean p", "kept by this k", *(f"p ≥ {level:g}" for level in _LEVELS)),
                (",", ".4f", ".1%", *(".1%" for _ in _LEVELS)),
                rows,
            )
        )
        if k == classes:
            lead = f"All {classes:,} classes are stored, so nothing is cut off."
        else:
            over = self.above[-1][-1] / self.views
            lead = (
                f"{k:,} of {classes:,} classes are stored of a view. No class that was left out is likelier than the "
                f"last one kept, which is at {_LEVELS[-1]:g} or above in {over:.1%} of the views"
                + (": there, a larger k would keep more." if over > 0.05 else ".")
            )
        return Section("cut", "What the top k cuts off", lead, content)

    def _last_one(self, k: int) -> Any:
        half, most = quantile(self.last, 0.5), quantile(self.last, 0.95)
        return histogram(
            f"Probability at rank {k}, the last that is kept",
            f"At most {half:.3g} in half of the views, {most:.3g} in 95 %.",
            *_used(self.last),
            f"probability at rank {k}",
            marks=[(most, "95 %")],
        )


def _counted(shares: Any) -> Any:
    return np.bincount(np.clip((shares * _FINE).astype(np.int64), 0, _FINE - 1), minlength=_FINE)


def _used(counts: Any) -> tuple[Any, Any]:
    """Edges and counts in coarse bins, up to where nearly all are."""
    stop = max(1, round(quantile(counts, 1.0) * _FINE))
    step = max(1, -(-stop // PROBABILITY_BINS))
    size = -(-stop // step)
    coarse = np.add.reduceat(np.append(counts, np.zeros(step, np.int64)), np.arange(size) * step)
    coarse[-1] = counts[(size - 1) * step :].sum()
    return np.arange(size + 1) * step / _FINE, coarse


def _enough(kept: Any, share: float) -> int:
    return int(np.searchsorted(kept, share - 1e-9)) + 1
