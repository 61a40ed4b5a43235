"""What augmentation destroys: in how many views the first class is still the clip's own answer, op by op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from logitstore.arrays import F64, I64
from logitstore.jobs.report.charts import bars, lines
from logitstore.jobs.report.draws import extremes
from logitstore.jobs.report.page import Content, Note, Part, Section, Table
from logitstore.jobs.report.views import Views
from logitstore.store.format.manifest import Manifest
from logitstore.views.ops.base import Op, Place

PART = {"place": 70, "class": "Kept"}
_FINE = 512
_SPANS = 6  # of strengths that are shown


@dataclass(frozen=True)
class Strength:
    """How much an op does to views, in its ``unit``, ``most`` at most."""

    op: Op
    unit: str
    most: float
    place: Place

    @classmethod
    def of(cls, op: Op, manifest: Manifest) -> Strength | None:
        """None of an op that no number says it of."""
        said = op.amount(extremes(op, manifest), manifest.place)
        return None if said is None else cls(op, said[1], float(said[0].max()) or 1.0, manifest.place)

    def values(self, draws: dict[str, I64]) -> F64:
        """Of n views; 0 where the op did nothing."""
        said = self.op.amount(draws, self.place)
        assert said is not None  # of
        return said[0]


class Kept(Part):
    """Counts views and those that keep the clip's own answer, by view and by strength of every op."""

    looks = True

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        manifest = report.summary.manifest
        self.ops = [made for op in manifest.recipe.ops if (made := Strength.of(op, manifest)) is not None]
        self.seen = np.zeros((len(self.ops), _FINE + 1, 2), np.int64)  # none, then bins; views, kept
        self.by_view = np.zeros((max(1, report.summary.views), 2), np.int64)
        self.torn = self.clips = 0

    def see(self, views: Views) -> None:
        """Count."""
        kept = views.kept
        for which, rows in ((0, np.ones_like(kept)), (1, kept)):
            self.by_view[:, which] += np.bincount(views.view[rows], minlength=len(self.by_view))
        for at, strength in enumerate(self.ops):
            values = strength.values(views.draws)
            bin_of = np.where(values > 0, 1 + np.clip((values / strength.most * _FINE).astype(int), 0, _FINE - 1), 0)
            for which, rows in ((0, np.ones_like(kept)), (1, kept)):
                self.seen[at, :, which] += np.bincount(bin_of[rows], minlength=_FINE + 1)
        held = views.counts > 0
        self.clips += int(held.sum())
        self.torn += int((np.bincount(views.clip[~kept], minlength=views.clips) > 0).sum())

    def section(self) -> Section | None:
        """A sentence for a store of one view or no ops, which says nothing of survival."""
        total, kept = self.by_view.sum(axis=0).tolist()
        title = "What survives the augmentation"
        if not total:
            return None
        if not self.report.summary.manifest.recipe.ops:
            return Section("survival", title, "The recipe has no op: every view is the clip itself.", self._measured())
        share = kept / total
        lead = (
            f"From the store alone: in {share:.1%} of {total:,} views the first class is the clip's own answer (the "
            f"class of the highest mean probability over its views); {self.torn:,} of {self.clips:,} clips have a view "
            "that says something else. By op, the views are those of the whole recipe, sorted by how strongly that op "
            "acted in them."
        )
        if self.by_view[:, 0].astype(bool).sum() < 2:
            lead = (
                "There is one view of every clip, so it is its own answer: what survives cannot be told from the store."
            )
            return Section("survival", title, lead, self._measured())
        content: list[Content] = []
        rows: list[tuple[Any, ...]] = []
        for at, strength in enumerate(self.ops):
            spans = self._spans(at)
            rows += [(strength.op.name, text, views, own / views) for text, _, views, own in spans]
            acted = [(middle, own / views) for _, middle, views, own in spans]
            middles, shares = (np.array(each) for each in zip(*acted, strict=True))
            least = int(shares.argmin())
            content.append(
                lines(
                    f"Answers kept, by {strength.op.name}",
                    f"Least where it did {spans[least][0]}: {shares[least]:.1%} of {spans[least][2]:,} views.",
                    [("share kept", middles, shares)],
                    f"how much it did, {strength.unit}",
                    "share kept",
                    least=0.5 if shares.min() >= 0.5 else 0.0,
                    most=1.0,
                    points=True,
                    form=".3f",
                )
            )
        numbers = [
            (f"view {v}", float(100 * own / views)) for v, (views, own) in enumerate(self.by_view.tolist()) if views
        ]
        content.append(bars("Answers kept, by view", "Percent of its clips.", numbers[:30], "percent", ".1f", "view"))
        content.append(
            Table(
                "By op, and how much it did",
                ("op", "how much it did", "views", "keep the answer"),
                ("", "", ",", ".1%"),
                rows,
            )
        )
        return Section("survival", title, lead, [*content, *self._measured()])

    def _spans(self, at: int) -> list[tuple[str, float, int, int]]:
        """Strengths in spans of about as many views each: (in words, mean, views, views that keep the answer)."""
        strength = self.ops[at]
        none, *bins = self.seen[at].tolist()
        found = [("nothing", 0.0, none[0], none[1])] if none[0] else []
        views = np.array([each[0] for each in bins])
        ends = np.searchsorted(np.cumsum(views), np.linspace(0, views.sum(), _SPANS + 1)[1:] - 1e-9) + 1
        start = 0
        for stop in np.unique(np.minimum(ends, _FINE)).tolist():
            own = self.seen[at, 1 + start : 1 + stop]
            size, kept = own.sum(axis=0).tolist()
            if size:
                step = strength.most / _FINE
                middle = float((own[:, 0] * (np.arange(start, stop) + 0.5)).sum() / size * step)
                span = f"{_short(start * step)} to {_short(stop * step)} {strength.unit}".rstrip()
                found.append((span, middle, size, kept))
            start = stop
        return found

    def _measured(self) -> list[Content]:
        found = self.report.measured
        if found is None:
            if not self.report.summary.manifest.recipe.ops:
                return []
            how = "Give --teacher and --audio-root to measure each op by itself, against the clip as it is."
            return [Note(how)]
        ops = list(found.teachers[0].ops)
        rows = [
            (each.teacher, *(cell for kept in (each.recipe, *each.ops.values()) for cell in (kept.top, kept.kl)))
            for each in found.teachers
        ]
        columns = (
            "teacher",
            *(text for name in (found.recipe, *ops) for text in (f"{name}: keep", f"{name}: KL, nats")),
        )
        notes: list[Content] = [Note(line, "bad") for line in found.warnings()]
        title = f"Measured: {found.views:,} views of {found.clips:,} clips, teachers asked again"
        forms = ("", *(form for _ in range(1 + len(ops)) for form in (".1%", ".3g")))
        return [Table(title, columns, forms, rows), *notes]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
