"""What a part of the page is made of, and what it may ask: texts, tables, charts, pictures; escaped in one place.

Nothing here is HTML but the drawing of a :class:`Chart`, which :mod:`logitstore.jobs.report.charts` makes. All texts
are escaped by the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any

from logitstore.texts import one_line

if TYPE_CHECKING:
    from logitstore.jobs.report.runs import LearntRun
    from logitstore.jobs.report.views import Views
    from logitstore.jobs.survival import Survival
    from logitstore.store.reader import Store
    from logitstore.store.summary import Summary

#: Rows of a table that may be long, and characters of a text in it.
MOST_ROWS = 600
MOST_TEXT = 160


@dataclass(frozen=True)
class Report:
    """What parts may ask. ``hears``: whether the store was opened with its audio; ``measured``: what teachers said when
    they were asked again, None where they were not."""

    store: Store
    summary: Summary
    runs: tuple[LearntRun, ...] = ()
    hears: bool = False
    measured: Survival | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the store's classes."""
        return self.summary.manifest.classes

    @property
    def softmax(self) -> bool:
        """Whether the probabilities of a view sum to one."""
        return self.summary.manifest.scores == "softmax"


@dataclass(frozen=True)
class Table:
    """A table. A cell is a text or a number; ``formats`` says how the numbers of a column are written, "" for texts,
    which stand to the left. ``more`` says what was left out."""

    title: str
    columns: Sequence[str]
    formats: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: str = ""
    kind: str = "table"

    @property
    def written(self) -> list[list[tuple[str, str]]]:
        """Cells as (what is shown, what to sort by); the latter "" where both are alike."""
        return [[_cell(value, how) for value, how in zip(row, self.formats, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A drawing with a title, a sentence that says what it shows, and its values as a table."""

    title: str
    says: str
    svg: str
    values: Table
    legend: Sequence[tuple[str, str]] = ()  # (class of its line, name)
    kind: str = "chart"


@dataclass(frozen=True)
class Facts:
    """Things that are so: (what, text)."""

    rows: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Numbers:
    """A few large numbers: (number, what it counts)."""

    rows: Sequence[tuple[str, str]]
    kind: str = "numbers"


@dataclass(frozen=True)
class Note:
    """A sentence that stands by itself; ``tone`` is "plain", "good" or "bad"."""

    text: str
    tone: str = "plain"
    kind: str = "note"


@dataclass(frozen=True)
class Picture:
    """A log-mel as a ``data:`` URI with masks over it: (left, top, width, height, text) as shares of the picture."""

    title: str
    source: str
    alt: str
    says: str
    masks: Sequence[tuple[float, float, float, float, str]] = ()


@dataclass(frozen=True)
class Strip:
    """A clip and pictures of it, side by side."""

    title: str
    says: str
    pictures: Sequence[Picture]
    kind: str = "strip"


Content = Table | Chart | Facts | Numbers | Note | Strip


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, a paragraph that says what to look at, and what it shows."""

    name: str
    title: str
    lead: str
    content: Sequence[Content] = field(default_factory=list)

    @property
    def short(self) -> str:
        """What links call it."""
        return self.name.capitalize()

    @property
    def placed(self) -> list[tuple[Content, str]]:
        """What it shows, each with its width where there is room: three charts to a line ("third"), or two ("half"); a
        chart that is left over stands beside the table that follows ("beside"), everything else alone ("whole")."""
        found: list[tuple[Content, str]] = []
        for chart, run in groupby(self.content, key=lambda one: isinstance(one, Chart)):
            some = list(run)
            if chart:
                over = len(some) % 3
                halves = over if over != 1 else 0 if len(found) + len(some) < len(self.content) else min(4, len(some))
                found += [(one, "half" if at >= len(some) - halves else "third") for at, one in enumerate(some)]
            else:
                beside = bool(found) and found[-1][1] == "third" and _lone(found) and isinstance(some[0], Table)
                found += [(one, "beside" if beside and not at else "whole") for at, one in enumerate(some)]
        return found


class Part:
    """A part of the page in the making.

    :param report: the store and the runs.
    """

    #: Whether it wants to see the views go by.
    looks = False

    def __init__(self, report: Report) -> None:
        self.report = report

    def see(self, views: Views) -> None:
        """Count what it needs of the views of a range of clips; called for range after range where :attr:`looks`."""

    def section(self) -> Section | None:
        """What is shown; None for nothing."""
        raise NotImplementedError


def _lone(found: Sequence[tuple[Content, str]]) -> bool:
    """Whether the last of the charts stands alone in its line."""
    return sum(1 for _ in takewhile(lambda each: each[1] == "third", reversed(found))) % 3 == 1


def _cell(value: Any, how: str) -> tuple[str, str]:
    if value is None:
        return "–", ""
    if not how or isinstance(value, str):
        return one_line(str(value), MOST_TEXT), ""
    return format(value, how), repr(float(value))


def count(number: int, what: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sized(number: float) -> str:
    """Bytes for people: ``27.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1000
    raise AssertionError


def lasting(seconds: float) -> str:
    """A time for people: ``0.6 h``, ``1,234 h``, ``12 min``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 3600 * 2:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 3_600_000 else f"{seconds / 3600:,.0f} h"
