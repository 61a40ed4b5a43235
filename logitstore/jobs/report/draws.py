"""What was drawn for the views, against what may be drawn."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from logitstore.arrays import I64
from logitstore.jobs.report.charts import histogram
from logitstore.jobs.report.page import Content, Note, Part, Section, Table
from logitstore.jobs.report.views import Views
from logitstore.store.format.manifest import Manifest
from logitstore.views.ops.base import Clips, Op, Words

PART = {"place": 80, "class": "Drawn"}
_FINE = 400
_BINS = 40


class Drawn(Part):
    """The integers of every draw: lowest, highest, those out of range; and histograms of what SQL shows of them."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        manifest = report.summary.manifest
        self.bounds = {name: ends for op in manifest.recipe.ops for name, ends in _bounds(op, manifest).items()}
        self.extremes: dict[str, list[float]] = {name: [np.inf, -np.inf] for name in self.bounds}
        self.sums = dict.fromkeys(self.bounds, 0)
        self.outside = dict.fromkeys(self.bounds, 0)
        self.views = 0
        self.shown: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, Any] = {}
        self.absent: dict[str, int] = {}
        for op in manifest.recipe.ops:
            drawn = extremes(op, manifest)
            for column in op.sql_columns():
                if column.of_shard or column.name.endswith(("_key", "_step")):
                    continue
                values = np.asarray(column.values(drawn), np.float64)
                self.shown[column.name] = float(values.min()), float(values.max())
                self.counts[column.name] = np.zeros(_FINE, np.int64)
                self.absent[column.name] = 0

    def see(self, views: Views) -> None:
        """Count."""
        self.views += len(views)
        if not len(views):
            return
        for name, (low, high) in self.bounds.items():
            values = views.draws[name]
            ends = self.extremes[name]
            ends[0], ends[1] = min(ends[0], float(values.min())), max(ends[1], float(values.max()))
            self.sums[name] += int(values.sum())
            self.outside[name] += int(np.count_nonzero((values < low) | (values >= high)))
        for column in self.report.summary.manifest.recipe.sql_columns:
            if column.name not in self.shown:
                continue
            least, most = self.shown[column.name]
            values = np.asarray(column.values(views.draws), np.float64)
            if column.null is not None:
                absent = column.null(views.draws)
                self.absent[column.name] += int(absent.sum())
                values = values[~absent]
            share = (values - least) / max(most - least, 1e-12)
            self.counts[column.name] += np.bincount(np.clip((share * _FINE).astype(int), 0, _FINE - 1), minlength=_FINE)

    def section(self) -> Section | None:
        """Nothing of a recipe without ops."""
        if not self.bounds or not self.views:
            return None
        manifest = self.report.summary.manifest
        docs = {name: text for op in manifest.recipe.ops for name, text in op.columns.items()}
        rows = [
            (
                name,
                low,
                high - 1,
                int(self.extremes[name][0]),
                int(self.extremes[name][1]),
                self.sums[name] / self.views,
                self.outside[name],
                docs[name],
            )
            for name, (low, high) in self.bounds.items()
        ]
        content: list[Content] = []
        for column in manifest.recipe.sql_columns:
            if column.name in self.shown:
                low, high = self.shown[column.name]
                per, axis = _for_people(column.name, column.doc, manifest.sample_rate)
                counts = self.counts[column.name].reshape(_BINS, -1).sum(axis=1)
                none = self.absent[column.name] / self.views
                says = f"{none:.0%} of the views have none." if none else "All that may be drawn, from end to end."
                content.append(
                    histogram(column.name, says, np.linspace(low / per, high / per, _BINS + 1), counts, axis)
                )
        wrong = sum(self.outside.values())
        content.append(
            Table(
                "Draws, as they are stored",
                ("draw", "may be from", "to", "lowest", "highest", "mean", "out of range", "what it is"),
                ("", ",", ",", ",", ",", ",.1f", ",", ""),
                rows,
            )
        )
        if wrong:
            content.insert(
                0, Note(f"{wrong:,} values lie outside of what the recipe draws: was the store imported?", "bad")
            )
        lead = "Each axis goes from the lowest to the highest value that the recipe allows."
        return Section("draws", "What was drawn", lead, content)


def extremes(op: Op, manifest: Manifest) -> dict[str, I64]:
    """What an op can draw at the ends of its ranges, and between them, for a clip as long as a view: int64 (n,) each.

    Made by its own draw, of random words that go from end to end; so that what goes together does.
    """
    place = manifest.place
    ends, fine = (0, 1 << 31, (1 << 32) - 1), np.linspace(0, (1 << 32) - 1, 257).astype(np.int64).tolist()
    some = [[fine if at == which else ends for at in range(3)] for which in range(3)]
    words = np.array([(0, *each) for axes in some for each in product(*axes)], np.uint32).T
    size = words.shape[1]
    clips = Clips(np.full(size, place.clip_samples), np.zeros(size, np.int64), place.shard_clips, place)
    drawn = op.draw(Words(*words), clips)
    bounds = _bounds(op, manifest)
    if bounds != op.ranges(place):  # another program drew it
        corners = list(product(*[(low, high - 1) for low, high in bounds.values()]))
        drawn = {name: np.append(drawn[name], [each[at] for each in corners]) for at, name in enumerate(bounds)}
    return drawn


def _bounds(op: Op, manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Half-open ranges of what an op draws; of a store that was imported those of the program that drew it."""
    lows = {column.name: column.low for column in manifest.columns}
    own, theirs = op.ranges(manifest.place), op.imported_ranges(manifest.place)
    return theirs if any(lows[name] == theirs[name][0] != low for name, (low, _) in own.items()) else own


def _for_people(name: str, doc: str, rate: int) -> tuple[float, str]:
    """What to divide a column by, and what its axis is called: seconds for milliseconds and samples."""
    what = doc.partition(";")[0]
    if name.endswith("_ms"):
        return 1000.0, what.replace("in ms", "in s")
    if name.endswith("_samples"):
        return float(rate), "turned by, s (signed)"
    return 1.0, what
