"""Maps of labels to classes: how a model of 521 or 6,522 classes is measured on a user's ten labels.

A map is a CSV file with a row for each label and class, its columns in any order, further ones ignored:

    label,class,combine
    rain,Rain,
    rain,Raindrop,
    bird,/m/015p6,sum
    bird,"Crow",sum

The score of a label is the maximum of its classes' probabilities or, with ``sum``, their sum, at most 1. A row without
a class leaves its label open, as a proposal does of which nothing was found.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from logitstore.classes import ClassIndex, audioset
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation.labelled import Labelled, with_nearest
from logitstore.evaluation.metrics import Scores
from logitstore.evaluation.stored import StoredRows
from logitstore.files import read_text
from logitstore.notes import note
from logitstore.texts import shown

#: What the scores of a label's classes can become one by.
COMBINE = ("max", "sum")
HEADER = ("label", "class", "combine")
_SEPARATORS = (",", ";", "\t")
_MOST_NAMED = 3
_MOST_BYTES = 1 << 24

Rows = TypeVar("Rows", Labelled, StoredRows)


@dataclass(frozen=True)
class LabelMap:
    """``classes``: names or MIDs of each label's classes, none of one that is left open; ``summed``: the labels of
    which they are added, in the place of their maximum. ``file`` is where it was read."""

    file: str
    classes: dict[str, tuple[str, ...]]
    summed: frozenset[str]

    def scored(self, vocabularies: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
        """The labels that every model can be scored on, and a note of what one lacks.

        :param vocabularies: what each model is called, and its classes.
        :raises UsageError: a class that no model has, and that is none of AudioSet's; or no label is left.
        """
        models = [(whose, names, _finder(names)) for whose, names in vocabularies]
        wanted = list(dict.fromkeys(name for names in self.classes.values() for name in names))
        known = ClassIndex([each.display_name for each in audioset()]).find
        for name in wanted:
            if known(name) is None and all(find(name) is None for _, _, find in models):
                every = list(dict.fromkeys(each for _, names, _ in models for each in names))
                raise UsageError(
                    f"{self._whose}: {with_nearest(name, every)}, for the label {self._label_of(name)!r}, is no class "
                    f"of {' or '.join(whose for whose, _, _ in models)}; its classes are such as {_some(every)}"
                )
        left = [label for label, names in self.classes.items() if names]
        for whose, _, find in models:
            lacking = [name for name in wanted if find(name) is None]
            if lacking:
                note(f"{whose} lacks {len(lacking)} of the {len(wanted)} classes of {self._whose}: {_some(lacking)}")
            cannot = [label for label in left if all(find(name) is None for name in self.classes[label])]
            if cannot:
                note(f"{whose} has no class of the label{'s' * (len(cannot) > 1)} {_some(cannot)}; left out")
            left = [label for label in left if label not in cannot]
        if not left:
            raise UsageError(f"{self._whose} has no label with a class that {models[0][0]} has, so nothing to score")
        return tuple(left)

    def onto(
        self, labels: Sequence[str], order: Sequence[str], own: Sequence[str] | None = None
    ) -> Callable[[Scores], Scores]:
        """What makes scores of labels (..., L) of scores of classes (..., C).

        :param labels: of :meth:`scored`. :param order: the C classes. :param own: those that a model has of them.
        """
        find, has = _finder(order), _finder(order if own is None else own)
        at = [
            [position for name in self.classes[label] if has(name) is not None and (position := find(name)) is not None]
            for label in labels
        ]

        def mapped(scores: Scores) -> Scores:
            found = [
                scores[..., places].sum(axis=-1) if label in self.summed else scores[..., places].max(axis=-1)
                for label, places in zip(labels, at, strict=True)
            ]
            return np.stack(found, axis=-1).clip(0, 1)

        return mapped

    @property
    def _whose(self) -> str:
        return f"the map {self.file!r}"

    def _label_of(self, name: str) -> str:
        return next(label for label, names in self.classes.items() if name in names)


@dataclass(frozen=True)
class MapUse:
    """What a map came to: the labels scored, those of the rows that it does not map, and how many rows had no other."""

    file: str
    labels: tuple[str, ...]
    unmapped: tuple[str, ...]
    rows_left_out: int


def read_map(file: str) -> LabelMap:
    """Read a map; see the module.

    :raises UsageError: it cannot be read, or a row of it cannot be right; the line is named.
    """
    whose = f"the map {file!r}"
    try:
        text = read_text(file, _MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise UsageError(f"{whose} cannot be read: {reason}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise UsageError(f"{whose} is empty; give rows of label,class, as `logitstore teachers map` writes them")
    separator = max(_SEPARATORS, key=lines[0][1].count)
    table = _cells(lines, separator, whose)
    header = [cell.casefold() for cell in table[0][1]]
    if not {"label", "class"} <= set(header) or len(set(header)) < len(header):
        raise UsageError(f"{whose}: its first line is {shown(lines[0][1])}; it must name the columns, as label,class")
    classes: dict[str, dict[str, None]] = {}
    ways: dict[str, str] = {}
    for number, cells in table[1:]:
        place = f"{whose}, line {number}"
        if len(cells) > len(header):
            raise UsageError(
                f"{place}: {len(cells)} columns, where the first line has {len(header)}; put a name with a comma in "
                'quotes, as "Waves, surf"'
            )
        row = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True))
        label, name, way = row["label"], row["class"], row.get("combine", "").casefold()
        if not label:
            raise UsageError(f"{place} has no label; give one, or remove the line")
        if way not in ("", *COMBINE):
            raise UsageError(f"{place}: combine is {shown(way)}; allowed are {', '.join(COMBINE)}")
        if way and ways.setdefault(label, way) != way:
            raise UsageError(f"{place}: the label {label!r} is combined by {way} here and by {ways[label]} above")
        names = classes.setdefault(label, {})
        if name in names:
            raise UsageError(f"{place}: the label {label!r} has the class {name!r} twice")
        if name:
            names[name] = None
    if not classes:
        raise UsageError(f"{whose} has no rows; give rows of label,class")
    return LabelMap(
        file, {label: tuple(names) for label, names in classes.items()},
        frozenset(label for label, way in ways.items() if way == "sum"),
    )  # fmt: skip


def keep_mapped(rows: Rows, labels: Sequence[str], used: LabelMap) -> tuple[Rows, MapUse]:
    """Rows with only the labels that a map has; one that has labels and none of those is left out.

    Nothing was asked about what such a row holds. A row without any label stays: it has none of the labels.

    :param labels: of :meth:`LabelMap.scored`.
    :raises SourceError: no row is left with a label.
    """
    find = ClassIndex(labels).find
    unmapped = sorted({each for row in rows.labels for each in row if find(each) is None})
    kept = np.array([not row or any(find(each) is not None for each in row) for row in rows.labels], dtype=np.bool_)
    left = rows.keep(kept)
    left = replace(left, labels=tuple(tuple(each for each in row if find(each) is not None) for row in left.labels))
    if not any(left.labels):
        raise SourceError(
            f"none of {len(kept):,} rows has a label of the map {used.file!r}: rows have {_some(unmapped)}, it has "
            f"{_some(labels)}"
        )
    return left, MapUse(used.file, tuple(labels), tuple(unmapped), int((~kept).sum()))


def _cells(lines: list[tuple[int, str]], separator: str, whose: str) -> list[tuple[int, list[str]]]:
    table = []
    for number, line in lines:
        try:
            cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise UsageError(f"{whose}, line {number}: {error}") from None
        table.append((number, [cell.strip() for cell in cells]))
    return table


def _finder(classes: Sequence[str]) -> Callable[[str], int | None]:
    """Where a class stands, by its name; one of AudioSet's also by its MID, though the other classes be none of its."""
    find = ClassIndex(classes).find
    other = {each.mid: each.display_name for each in audioset()}
    other |= {name: mid for mid, name in other.items()}

    def found(name: str) -> int | None:
        at = find(name)
        return at if at is not None or name not in other else find(other[name])

    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")
