"""How sure the teachers are: histograms of entropy and of the highest probability."""

from __future__ import annotations

from typing import Any

import numpy as np

from logitstore.jobs.report.charts import histogram
from logitstore.jobs.report.page import Part, Section
from logitstore.jobs.report.views import Views

PART = {"place": 40, "class": "Certainty"}
_BINS = 40
#: Of probabilities, whose 8-bit codes would show as a comb in narrower ones.
PROBABILITY_BINS = 20
_FINE = 4000  # that the coarse ones divide


class Certainty(Part):
    """Counts in fine bins, of which quantiles are told, and which are shown in coarse ones."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        manifest = report.summary.manifest
        # what its classes can have at most: a Bernoulli of one half each, or all alike
        self.most = (
            (manifest.topk if manifest.quality is None else len(manifest.classes)) * np.log(2)
            if manifest.scores == "sigmoid"
            else max(np.log(max(2, len(manifest.classes))), 0.1)
        )
        self.entropies, self.tops = np.zeros(_FINE, np.int64), np.zeros(_FINE, np.int64)
        self.entropy_sum = self.top_sum = 0.0
        self.views = 0

    def see(self, views: Views) -> None:
        """Count."""
        top = views.probabilities[:, 0]
        self.views += len(views)
        self.entropy_sum += float(views.entropy.sum())
        self.top_sum += float(top.sum(dtype=np.float64))
        for counts, share in ((self.entropies, views.entropy / self.most), (self.tops, top)):
            counts += np.bincount(np.clip((share * _FINE).astype(np.int64), 0, _FINE - 1), minlength=_FINE)

    def section(self) -> Section | None:
        """Nothing of a store without views."""
        if not self.views:
            return None
        top, entropy = self.top_sum / self.views, self.entropy_sum / self.views
        median = quantile(self.entropies, 0.5) * self.most
        high = max(quantile(self.entropies, 1.0) * self.most, 1e-9)
        used = max(1, int(np.ceil(high / self.most * _FINE)))
        step = max(1, -(-used // _BINS))
        coarse = np.add.reduceat(self.entropies[: step * _BINS], np.arange(0, min(step * _BINS, _FINE), step))
        edges = np.minimum(np.arange(len(coarse) + 1) * step, _FINE) / _FINE * self.most
        kind = (
            "-Σ p ln p of the stored classes"
            if self.report.softmax
            else "the Bernoulli entropies of the k classes, summed"
        )
        sure = self.tops[_FINE // 2 :].sum() / self.views
        content = [
            histogram(
                "Entropy of a view",
                f"Mean {entropy:.3g} nats, half of the views below {median:.3g}.",
                edges,
                coarse,
                "entropy, nats",
                marks=[(entropy, "mean")],
            ),
            histogram(
                "Highest probability of a view",
                f"Mean {top:.2f}; it is 0.5 or more in {sure:.0%} of the views.",
                np.linspace(0, 1, PROBABILITY_BINS + 1),
                self.tops.reshape(PROBABILITY_BINS, -1).sum(axis=1),
                "probability of the first class",
                marks=[(top, "mean")],
            ),
        ]
        lead = (
            f"Over {self.views:,} views. Entropy is {kind}: low where a view is clear, high where it could be many "
            "things."
        )
        return Section("certainty", "How sure the teachers are", lead, content)


def quantile(counts: Any, share: float) -> float:
    """Where in [0, 1] so much of counts in even bins lies below: the upper edge of the bin that reaches it."""
    reached = np.searchsorted(np.cumsum(counts), share * counts.sum() - 1e-9)
    return float((min(int(reached), len(counts) - 1) + 1) / len(counts))
