"""How far the members of the ensemble agree: Jensen-Shannon divergence by pair, class and view."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from logitstore.jobs.report.certainty import quantile
from logitstore.jobs.report.charts import bars, histogram, matrix
from logitstore.jobs.report.page import MOST_ROWS, Content, Note, Part, Section, Table
from logitstore.jobs.report.views import Views
from logitstore.store.format.manifest import member_names
from logitstore.store.measures import jensen_shannon

PART = {"place": 60, "class": "Members"}
_FINE = 400  # bins a nat, however many nats the k classes of a view could be apart
_BINS = 40
_SHOWN = 12
_MOST_PAIRS = 12  # members in the matrix


class Members(Part):
    """Sums of divergences over views; of every class over the views in whose top k it is."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        self.count = len(report.summary.manifest.teachers)
        self.weights = [member.weight for member in report.summary.manifest.teachers]
        size = len(report.classes)
        self.pairs, self.pair_views = np.zeros((self.count, self.count)), np.zeros((self.count, self.count), np.int64)
        self.same = np.zeros((self.count, self.count), np.int64)
        self.by_class, self.class_views, self.spread = np.zeros(size), np.zeros(size, np.int64), np.zeros(size)
        most = report.summary.manifest.topk * math.log(2)  # nats
        self.counts = np.zeros(math.ceil(_FINE * most), np.int64)
        self.total, self.views = 0.0, 0

    def see(self, views: Views) -> None:
        """Add up."""
        if views.members is None or self.count < 2:
            return
        terms = views.disagreement
        each = terms.sum(axis=1)
        self.total, self.views = self.total + float(each.sum()), self.views + len(views)
        bins = len(self.counts)
        self.counts += np.bincount(np.clip((each * _FINE).astype(int), 0, bins - 1), minlength=bins)
        flat, size = views.classes.reshape(-1), len(self.by_class)
        self.by_class += np.bincount(flat, terms.reshape(-1), minlength=size)
        self.class_views += np.bincount(flat[views.used.reshape(-1)], minlength=size)
        with np.errstate(invalid="ignore"):
            apart = np.nan_to_num(np.fmax.reduce(views.members) - np.fmin.reduce(views.members))
        self.spread += np.bincount(flat, apart.reshape(-1), minlength=size)
        firsts = np.where(np.isnan(views.members), -1, views.members).argmax(axis=2)
        shown = range(min(self.count, _MOST_PAIRS))
        for a in shown:
            for b in range(a + 1, len(shown)):
                both = views.members[[a, b]]
                there = ~np.isnan(both).all(axis=2).any(axis=0)
                own = float(jensen_shannon(both[:, there], [self.weights[a], self.weights[b]], views.scores).sum())
                same = int((firsts[a] == firsts[b])[there].sum())
                for x, y in ((a, b), (b, a)):
                    self.pairs[x, y] += own
                    self.same[x, y] += same
                    self.pair_views[x, y] += int(there.sum())

    def section(self) -> Section | None:
        """Only a sentence where members were not kept; nothing of a single teacher."""
        if self.count < 2:
            return None
        title = "Where the members disagree"
        if not self.report.summary.manifest.keep_members:
            note = Note("What each member said is not in this store; build with --keep-members to have it.")
            return Section("members", title, f"{self.count} teachers speak as one here.", [note])
        if not self.views:
            return None
        names, classes = member_names(self.report.summary.manifest)[:_MOST_PAIRS], self.report.classes
        with np.errstate(invalid="ignore"):
            pairs, same = self.pairs / self.pair_views, self.same / self.pair_views
        held = np.flatnonzero(self.class_views)
        mean = np.zeros(len(classes))
        mean[held] = self.by_class[held] / self.class_views[held]
        order = held[np.lexsort((held, -mean[held]))].tolist()
        stop = max(1, round(quantile(self.counts, 1.0) * len(self.counts)))
        step = max(1, -(-stop // _BINS))
        used = np.add.reduceat(np.append(self.counts, np.zeros(step, np.int64)), np.arange(-(-stop // step)) * step)
        edges = np.arange(len(used) + 1) * step / _FINE
        content: list[Content] = [
            matrix("Divergence by pair, nats a view", "The stronger the colour, the further apart.", names, pairs),
            matrix("Same first class, by pair", "Share of views, among the stored classes.", names, same, ".2f"),
            bars(
                "Classes that divide the members most",
                f"{classes[order[0]]} leads.",
                [(classes[at], float(1000 * mean[at])) for at in order[:_SHOWN]],
                "millinats a view",
                ",.1f",
            ),
            histogram(
                "Divergence of a view",
                f"Mean {self.total / self.views:.3g} nats.",
                edges,
                used,
                "Jensen-Shannon divergence, nats",
                marks=[(self.total / self.views, "mean")],
            ),
            Table(
                "Disagreement by class",
                ("class", "views", "divergence, nats", "highest - lowest p"),
                ("", ",", ".4f", ".3f"),
                [
                    (
                        classes[at],
                        int(self.class_views[at]),
                        float(mean[at]),
                        float(self.spread[at] / self.class_views[at]),
                    )
                    for at in order[:MOST_ROWS]
                ],
                ""
                if len(order) <= MOST_ROWS
                else f"{len(order) - MOST_ROWS:,} classes of less divergence are left out.",
            ),
        ]
        kind = "and the stored classes" if self.report.softmax else "each class by itself (yes or no)"
        lead = (
            f"Over {self.views:,} views and their k classes: the Jensen-Shannon divergence of the members' "
            f"probabilities, {kind}, members weighted as in the ensemble. 0 is full agreement."
        )
        if self.count > _MOST_PAIRS:
            lead += f" Pairs are of the first {_MOST_PAIRS} of {self.count} members."
        return Section("members", title, lead, content)
