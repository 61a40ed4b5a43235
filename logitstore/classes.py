"""Class lists: the built-in AudioSet table, matching by index, MID or display name, permutations and subsets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from logitstore.arrays import I64
from logitstore.errors import TeacherError

_SHOWN = 3


@dataclass(frozen=True)
class AudioSetClass:
    """One of AudioSet's 527 classes: index in [0, 527), machine id such as ``/m/09x0r``, name such as ``Speech``."""

    index: int
    mid: str
    display_name: str


@cache
def audioset() -> tuple[AudioSetClass, ...]:
    """The 527 classes of AudioSet, in the order of their indices."""
    text = resources.files("logitstore").joinpath("audioset.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(AudioSetClass(int(row["index"]), row["mid"], row["display_name"]) for row in rows)


@cache
def _audioset_columns() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Index by display name, by MID, by the index written as a number."""
    table = audioset()
    return (
        {row.display_name: row.index for row in table},
        {row.mid: row.index for row in table},
        {str(row.index): row.index for row in table},
    )


def audioset_indices(classes: Sequence[str]) -> list[int] | None:
    """AudioSet indices of classes that are all display names, all MIDs or all indices; None where they are not."""
    for column in _audioset_columns():
        if all(name in column for name in classes):
            return [column[name] for name in classes]
    return None


class ClassIndex:
    """Positions of class names; where all classes are AudioSet's, any of index, MID and display name finds one.

    :param classes: unique names, in the order of a model's outputs.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._positions = {name: position for position, name in enumerate(self.classes)}
        indices = audioset_indices(self.classes)
        self._by_audioset = {index: position for position, index in enumerate(indices)} if indices is not None else {}

    def find(self, label: str) -> int | None:
        """The position of a class or label, literally first, then through the AudioSet table; None where it is not."""
        position = self._positions.get(label)
        if position is None and self._by_audioset:
            for column in _audioset_columns():
                if label in column:
                    return self._by_audioset.get(column[label])
        return position

    def find_all(self, labels: Iterable[str]) -> tuple[dict[str, int], list[str]]:
        """Positions of the labels that are found, and the sorted labels that are not."""
        found = {label: self.find(label) for label in labels}
        positions = {label: position for label, position in found.items() if position is not None}
        return positions, sorted(label for label, position in found.items() if position is None)


def positions(classes: Sequence[str], wanted: Sequence[str], *, whose: str, subset: bool = False) -> I64:
    """Where the wanted classes stand among a teacher's: ``probabilities[:, positions]`` is in the wanted order.

    :param classes: the teacher's classes. :param wanted: the order that is asked for.
    :param whose: the teacher, for the message. :param subset: whether the teacher may have more classes than wanted.
    :returns: int64 (len(wanted),).
    :raises TeacherError: a wanted class is missing, or the teacher has others; the difference is shown.
    """
    found, missing = ClassIndex(classes).find_all(wanted)
    taken = set(found.values())
    extra = [] if subset else [name for position, name in enumerate(classes) if position not in taken]
    if missing or extra:
        remedy = (
            "take them out of the --classes file"
            if subset
            else "give teachers of one class list, or --classes FILE with the names that all of them share"
        )
        raise TeacherError(
            f"{whose} has another class list: {_difference(missing, extra)} (it has {len(classes)} classes, "
            f"{len(wanted)} are wanted); {remedy}"
        )
    if len(taken) != len(wanted):
        raise TeacherError(f"{whose}: two of the {len(wanted)} wanted classes are the same class of AudioSet")
    return np.array([found[name] for name in wanted], dtype=np.int64)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Class names from a text file, one a line; empty lines are skipped.

    :raises TeacherError: unreadable, without a name, or with a name twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherError(f"class file {str(path)!r} cannot be read: {error}") from error
    return check_classes([line.strip() for line in lines if line.strip()], whose=f"class file {str(path)!r}")


def check_classes(classes: object, *, whose: str) -> tuple[str, ...]:
    """A list of class names as a tuple.

    :raises TeacherError: not a list of unique non-empty strings.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise TeacherError(f"{whose}: the classes are {classes!r}; they must be a list of names, at least one")
    for name in classes:
        if not isinstance(name, str) or not name:
            raise TeacherError(f"{whose}: the class {name!r} is not a name; every class must be a non-empty string")
    if len(set(classes)) != len(classes):
        twice = next(name for position, name in enumerate(classes) if name in classes[:position])
        raise TeacherError(f"{whose}: the class {twice!r} occurs twice; names must be unique")
    return tuple(classes)


def _difference(missing: Sequence[str], extra: Sequence[str]) -> str:
    parts = [
        f"{len(names)} {word} ({_some(names)})" for word, names in (("missing", missing), ("extra", extra)) if names
    ]
    return " and ".join(parts)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, …"


def outputs_of(classes: Sequence[str], wanted: Sequence[str]) -> tuple[I64, list[str]]:
    """Where the wanted classes stand among ``classes``, int64, and the wanted ones that are not there, sorted."""
    found, missing = ClassIndex(classes).find_all(wanted)
    return np.array([found[name] for name in wanted if name in found], dtype=np.int64), missing
