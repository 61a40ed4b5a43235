"""Which classes it holds, in how many clips and for how long; and which views are there of which shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from logitstore.jobs.report.charts import bars, lines
from logitstore.jobs.report.page import MOST_ROWS, Content, Note, Part, Section, Table, count
from logitstore.jobs.report.views import Views

PART = {"place": 30, "class": "Coverage"}
_SHOWN = 15


class Coverage(Part):
    """Counts of every class, and clips of every view."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        size = len(report.classes)
        self.views, self.clips, self.first, self.owners = (np.zeros(size, np.int64) for _ in range(4))
        self.total, self.highest, self.seconds = np.zeros(size), np.zeros(size), np.zeros(size)
        self.by_view = np.zeros(max(1, report.summary.views), np.int64)

    def see(self, views: Views) -> None:
        """Count classes."""
        size = len(self.views)
        flat = views.classes.reshape(-1)
        self.views += np.bincount(flat[views.used.reshape(-1)], minlength=size)
        self.total += np.bincount(flat, views.probabilities.reshape(-1), minlength=size)
        np.maximum.at(self.highest, flat, views.probabilities.reshape(-1))
        self.first += np.bincount(views.classes[:, 0], minlength=size)
        self.clips += np.count_nonzero(views.means, axis=0)
        own = views.own
        self.owners += np.bincount(own[own >= 0], minlength=size)
        self.seconds += np.bincount(own[own >= 0], views.seconds[own >= 0], minlength=size)
        self.by_view += np.bincount(views.view, minlength=len(self.by_view))

    def section(self) -> Section:
        """Of every store."""
        summary, names = self.report.summary, self.report.classes
        order = np.lexsort((np.arange(len(names)), -self.first, -self.owners))
        held = [at for at in order.tolist() if self.views[at]]
        content: list[Content] = []
        if held:
            shown = held[:_SHOWN]
            hours, unit = (3600.0, "hours") if self.seconds.max() >= 7200 else (60.0, "minutes")
            content += [
                bars(
                    "Clips by their own answer",
                    f"{names[shown[0]]} leads: {count(int(self.owners[shown[0]]), 'clip')}.",
                    [(names[at], int(self.owners[at])) for at in shown],
                    "clips",
                ),
                bars(
                    f"{unit.capitalize()} of audio by own answer",
                    "Of the clips whose own answer it is.",
                    [(names[at], float(self.seconds[at] / hours)) for at in shown],
                    unit,
                    ",.1f",
                ),
            ]
            falling = np.sort(self.clips[self.clips > 0])[::-1]
            rank = np.unique(np.geomspace(1, len(falling), 80).astype(int))
            content.append(
                lines(
                    "Clips a class, from the most frequent to the rarest",
                    f"{len(falling):,} of {len(names):,} classes are in the top k of some view; half of them in "
                    f"{int(np.median(falling)):,} clips or fewer.",
                    [("clips", rank, falling[rank - 1])],
                    "place of the class",
                    "clips",
                    log=True,
                    form=",.0f",
                    points=len(falling) < 30,
                )
            )
        content.append(
            bars(
                "Clips with targets, by view",
                self._finished(),
                [(f"view {view}", int(number)) for view, number in enumerate(self.by_view[: 2 * _SHOWN].tolist())],
                "clips",
                name="view",
            )
        )
        if len(self.by_view) > 2 * _SHOWN:
            content.append(Note(f"The first {2 * _SHOWN} of {len(self.by_view):,} views are shown."))
        rows = [
            (
                names[at],
                int(self.owners[at]),
                float(self.seconds[at] / 3600),
                int(self.clips[at]),
                int(self.views[at]),
                int(self.first[at]),
                float(self.total[at] / self.views[at]),
                float(self.highest[at]),
            )
            for at in held[:MOST_ROWS]
        ]
        more = "" if len(held) <= MOST_ROWS else f"{len(held) - MOST_ROWS:,} rarer classes are left out."
        content.append(
            Table(
                "Classes",
                ("class", "own answer of clips", "hours", "clips", "views", "first in views", "mean p", "highest p"),
                ("", ",", ",.2f", ",", ",", ",", ".3f", ".3f"),
                rows,
                more,
            )
        )
        lead = (
            f"{len(held):,} of {len(names):,} classes are stored at all. A clip's own answer is the class of the "
            "highest mean probability over its views; the other counts are of views in whose top k a class is."
        )
        return Section(
            "coverage", "What it holds", lead + ("" if summary.stored_views else " Nothing is stored yet."), content
        )

    def _finished(self) -> str:
        summary = self.report.summary
        if summary.shards_finished == summary.shards:
            return f"All {summary.shards:,} shards are finished."
        return f"{summary.shards_finished:,} of {summary.shards:,} shards are finished: run the same build again."
