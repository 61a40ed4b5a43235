"""Class lists: the built-in AudioSet table, matching by index, MID or display name, permutations and subsets."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.arrays import I64
from logitstore.errors import TeacherError
from logitstore.files import read_text
from logitstore.notes import note

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


def _composed(name: str) -> str:
    """The one spelling of text that Unicode can spell in several ways."""
    return unicodedata.normalize("NFC", name)


class ClassIndex:
    """Positions of class names; where all classes are AudioSet's, any of index, MID and display name finds one.

    :param classes: unique names, in the order of a model's outputs.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._positions = {name: position for position, name in enumerate(self.classes)}
        self._composed = {_composed(name): position for position, name in reversed(list(enumerate(self.classes)))}
        indices = audioset_indices(self.classes)
        self._by_audioset = {index: position for position, index in enumerate(indices)} if indices is not None else {}

    def find(self, label: str) -> int | None:
        """The position of a class or label, None where it is not: as it stands first, then in another Unicode form
        (an accent may be a character of its own), then through the AudioSet table."""
        position = self._positions.get(label)
        if position is None:
            position = self._composed.get(_composed(label))
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


def join(
    lists: Sequence[tuple[Sequence[str], Sequence[str | None] | None]],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The classes of several vocabularies as one list: a class is another list's where both have its MID, or its name.

    :param lists: of each vocabulary the names, and its MIDs, None where a class has none; None where AudioSet's own
        names say them.
    :returns: the names, in the order of the first list and then of what each other one adds; and for each list, by what
        name of the joint list each of its classes goes.
    """
    joint: dict[str, str | None] = {}  # name -> MID
    by_mid: dict[str, str] = {}
    composed: dict[str, str] = {}
    called = []
    for names, given in lists:
        own = []
        for name, mid in zip(names, given or mids(names), strict=True):
            found = by_mid.get(mid) if mid is not None else None
            if found is None:
                found = composed.get(_composed(name))
                if found is not None and mid is not None and joint[found] not in (None, mid):
                    name, found = f"{name} ({mid})", None  # one name, two things
            if found is None:
                found = name
                joint[name] = mid
                composed[_composed(name)] = name
            if mid is not None:
                by_mid.setdefault(mid, found)
            own.append(found)
        called.append(tuple(own))
    return tuple(joint), tuple(called)


def mids(names: Sequence[str]) -> tuple[str | None, ...]:
    """The MID of each class where all are AudioSet's, by name, MID or index; None of each otherwise."""
    indices = audioset_indices(names)
    return (None,) * len(names) if indices is None else tuple(audioset()[index].mid for index in indices)


def read_classes(path: str | Path, *, outputs: bool = False) -> tuple[str, ...]:
    """Class names from a file that a user has, in whatever form it was published; what was understood is said.

    One name a line; or a table (commas, semicolons, tabs, bars) with the columns that AudioSet's
    ``class_labels_indices.csv`` and its kin have, in any order, with or without a header: a name, and beside it an
    index or a MID; or JSON: a list of names or of objects, a mapping of indices to names or of names to indices.
    Where there is an index, the names are in its order. A byte order mark, empty lines, spaces at the ends and lines
    that begin with ``#`` are no part of a name; commas are, in a file of one name a line.

    :param outputs: whether the names are those of all outputs of a model, so that an index must count from 0.
    :raises TeacherError: unreadable, without a name, with a name or an index twice, or not to be understood; the line
        is named.
    """
    whose = f"class file {str(path)!r}"
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise TeacherError(f"{whose} cannot be read: {reason}") from error
    said: list[str] = []
    try:
        rows = _json_rows(text) if text.lstrip()[:1] in ("[", "{") else None
        if rows is None and Path(path).suffix.lower() == ".json":
            raise ValueError("is not readable as JSON; give a list of names")
        if rows is None:
            rows = _text_rows(text, said, Path(path).suffix.lower() in (".csv", ".tsv"))
        names = _in_order(rows, outputs, said)
    except ValueError as error:
        raise TeacherError(f"{whose}, {error}") from None
    for line in said:
        note(f"{whose}: {line}")
    return check_classes(names, whose=whose)


@dataclass(frozen=True)
class _Row:
    """One class of a file: where it stands, its name, and its index where the file has one."""

    place: str
    name: str
    index: int | None = None


#: What columns of class lists are called, plainly written: the name that people read, the index, the MID.
_NAME_WORDS = (
    *("displayname", "name", "names", "classname", "class", "classes", "label", "labels", "labelname", "classlabel"),
    *("category", "title", "tag", "labelnames", "classnames", "species", "event", "eventlabel", "soundclass"),
)
_INDEX_WORDS = ("index", "idx", "classindex", "classidx", "classid", "labelid", "labelindex", "number", "id", "target")
_MID_WORDS = ("mid", "mids", "machineid", "ontologyid")
_MID = re.compile(r"/[a-z]/[0-9a-z_]+")
_SEPARATORS = ("\t", ",", ";", "|", None)  # None: one number or MID, and a space after it


def _plain(word: str) -> str:
    """A word of a header, however it is written."""
    return re.sub(r"[^0-9a-z]+", "", word.casefold())


def _text_rows(text: str, said: list[str], table: bool) -> list[_Row]:
    """The classes of a text file.

    :param table: whether its name says that it is a table.
    :raises ValueError: naming the line.
    """
    numbered = [
        (number, stripped)
        for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1)
        if (stripped := line.strip(" \t\ufeff\xa0"))
    ]
    lines = [(number, line) for number, line in numbered if not line.startswith("#")]
    if len(lines) < len(numbered):
        said.append(f"{len(numbered) - len(lines)} lines that begin with '#' are no classes")
    for separator in _SEPARATORS:
        rows = _table_rows(lines, separator, said)
        if rows is not None:
            return rows
    for number, line in lines:
        if "\t" in line:
            raise ValueError(
                f"line {number} is {line!r}: a tab, and no header or index says which column has the names; "
                "give one name a line, or a header such as index,name"
            )
    for separator in ",;|":
        widths = {len(_cells(line, separator)) for _, line in lines}
        if len(lines) > 2 and len(widths) == 1 and min(widths) > 1 and not lines[0][1].endswith(separator):
            what = f"every line has {min(widths)} parts separated by {separator!r}, as {lines[0][1]!r}"
            if table:
                raise ValueError(f"{what}, and which has the names is not clear; give a header such as index,name")
            said.append(f"{what}; each line is taken for one name")
    if len(lines) > 1 and all(line.endswith(",") for _, line in lines):  # a table of one column, and nothing after it
        lines = [(number, line.rstrip(", ")) for number, line in lines]
    names = [_Row(f"line {number}", _unquoted(line)) for number, line in lines]
    if len(names) > 1:
        word, below = _plain(names[0].name), _kind([row.name for row in names[1:]])
        if (
            word in _NAME_WORDS
            or (word in _MID_WORDS and below == "mid")
            or (word in _INDEX_WORDS and below == "index")
            or {row.name for row in names[1:]} == {each.display_name for each in audioset()}
        ):
            said.append(f"{names[0].place}, {names[0].name!r}, is taken for a header, not for a class")
            return names[1:]
    return names


def _unquoted(line: str) -> str:
    """A line that is one quoted field of CSV, without its quotes."""
    if len(line) > 1 and line[0] == line[-1] == '"':
        cells = next(csv.reader([line]))
        if len(cells) == 1:
            return cells[0].strip()
    return line


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        found = re.fullmatch(rf"(\d+|{_MID.pattern})[:.)]?\s+(.+)", line)
        return [found[1], found[2].strip()] if found else [line]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _table_rows(lines: list[tuple[int, str]], separator: str | None, said: list[str]) -> list[_Row] | None:
    """The classes of a table with this separator; None where the lines are none.

    :raises ValueError: a table that cannot be right.
    """
    if len(lines) < 1 + (separator is None):
        return None
    try:
        table = [_cells(line, separator) for _, line in lines]
    except csv.Error:
        return None
    header = [_plain(cell) for cell in table[0]] if len(table[0]) > 1 and separator is not None else []
    if not _is_header(header, table):
        header = []
    body, numbers = table[bool(header) :], [number for number, _ in lines][bool(header) :]
    width = len(header) or min(map(len, body))
    if width < 2 or not body:
        return None
    kinds = [_kind([row[column] if column < len(row) else "" for row in body]) for column in range(width)]
    if not header:
        for at, kind in enumerate(kinds):  # numbers in a name are no index
            if kind == "index" and (at or separator is None) and not _counts([int(row[at]) for row in body]):
                kinds[at] = "text"
        if not set(kinds) & {"index", "mid"}:
            return None
    name_at = _column(header, kinds, "name")
    if name_at is None:
        columns = ", ".join(map(repr, table[0]))
        raise ValueError(
            f"line {lines[0][0]} has {width} columns ({columns}), and which has the names is not clear; "
            "give a header such as index,mid,display_name"
        )
    index_at = _column(header, kinds, "index")
    if index_at is None and header and (wrong := _not_an_index(header, kinds, name_at)) is not None:
        at = next((at for at, row in enumerate(body) if len(row) <= wrong or not row[wrong].isdecimal()), 0)
        found = body[at][wrong] if len(body[at]) > wrong else ""
        raise ValueError(f"line {numbers[at]}: the {table[0][wrong]} is {found!r}; it must be a number")
    rows = []
    for number, (_, line), cells in zip(numbers, lines[bool(header) :], body, strict=True):
        if len(cells) > width and name_at == width - 1 and separator is not None:
            cells = [*cells[: width - 1], line.split(separator, width - 1)[-1].strip()]  # an unquoted name
        if len(cells) != width or not cells[name_at]:
            raise ValueError(
                f"line {number} is {line!r}: {len(cells)} columns, where the others have {width}, or no name; quote a "
                "name that has the separator in it"
            )
        rows.append(_Row(f"line {number}", cells[name_at], int(cells[index_at]) if index_at is not None else None))
    what = f"its column {table[0][name_at]!r}" if header else f"column {name_at + 1} of {width}"
    said.append(f"{what} has the names, such as {rows[0].name!r}, {len(rows)} in all")
    return rows


def _is_header(header: list[str], table: list[list[str]]) -> bool:
    """Whether the first line names columns: one has the names or the MIDs, and what is below is not alike."""
    if not any(word in _NAME_WORDS or word in _MID_WORDS for word in header):
        return False
    if len(table) < 2 or min(map(len, table[1:])) < len(header):
        known = sum(word in (*_NAME_WORDS, *_MID_WORDS, *_INDEX_WORDS) for word in header)
        return known == len(header)
    return True


def _kind(values: list[str]) -> str:
    """What a column holds: "index", "mid", "empty" or "text"."""
    if all(value.isdecimal() and value.isascii() for value in values):
        return "index"
    if all(map(_MID.fullmatch, values)):
        return "mid"
    return "text" if any(values) else "empty"


def _counts(indices: list[int]) -> bool:
    """Whether they are 0 to n - 1 or 1 to n, in any order."""
    return sorted(indices) in ([*range(len(indices))], [*range(1, len(indices) + 1)])


def _not_an_index(header: list[str], kinds: list[str], name_at: int) -> int | None:
    """A column that is called an index and holds other things than numbers or MIDs."""
    called = [at for at, word in enumerate(header) if word in _INDEX_WORDS and word not in ("id", "target", "number")]
    return next((at for at in called if at != name_at and kinds[at] != "mid"), None)


def _column(header: list[str], kinds: list[str], wanted: str) -> int | None:
    """The one column of names, or of indices; None where there is none or it is not clear."""
    if wanted == "index":
        found = [at for at, kind in enumerate(kinds) if kind == "index"]
        if not header:
            return found[0] if found else None
        for words in (("", *_INDEX_WORDS), _NAME_WORDS):
            named = [at for at in found if header[at] in words and at != _column(header, kinds, "name")]
            if named:
                return named[0]
        return None
    for word in _NAME_WORDS:
        if word in header and (kinds[header.index(word)] != "index" or "text" not in kinds):
            return header.index(word)
    for kind in ("text", "mid"):
        found = [at for at, each in enumerate(kinds) if each == kind]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _json_rows(text: str) -> list[_Row] | None:
    """The classes of a JSON document; None where it is none.

    :raises ValueError: JSON that holds no classes.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for key in ("classes", "id2label", "label2id", "names", "labels"):
        if isinstance(found, dict) and isinstance(found.get(key), list | dict):
            found = found[key]
            break
    if isinstance(found, dict):
        if all(key.isdecimal() and isinstance(name, str) for key, name in found.items()):
            return [_Row(f"key {key!r}", name.strip(), int(key)) for key, name in found.items()]
        if all(isinstance(index, int) and not isinstance(index, bool) for index in found.values()):
            return [_Row(f"key {name!r}", name.strip(), index) for name, index in found.items()]
        raise ValueError("as JSON, maps neither indices to names nor names to indices; give a list of names")
    rows = []
    for number, item in enumerate(found, start=1):
        place, index = f"item {number}", None
        if isinstance(item, dict):
            words = {_plain(str(key)): value for key, value in item.items()}
            index = next((words[word] for word in _INDEX_WORDS if type(words.get(word)) is int), None)
            item = next((words[word] for word in (*_NAME_WORDS, *_MID_WORDS) if word in words), None)
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{place} of its JSON list has no name; it must be text, or an object with a `name`")
        rows.append(_Row(place, item.strip(), index))
    return rows


def _in_order(rows: list[_Row], outputs: bool, said: list[str]) -> list[str]:
    """The names, by their indices where there are some.

    :raises ValueError: an index or a name twice, or indices with gaps where there must be none.
    """
    for what in ("name", "index"):
        places: dict[Any, str] = {}
        for row in rows:
            value = getattr(row, what)
            if value is not None and places.setdefault(value, row.place) != row.place:
                raise ValueError(f"{row.place}: the {what} {value!r} stands on {places[value]} too; it occurs twice")
    indices = [row.index for row in rows if row.index is not None]
    if not indices or len(indices) < len(rows):
        return [row.name for row in rows]
    ordered = sorted(rows, key=lambda row: row.index or 0)
    first = min(indices)
    if first > 1 or max(indices) != first + len(rows) - 1:
        if outputs:
            raise ValueError(
                f"{ordered[-1].place}: {len(rows)} classes have indices from {first} to {max(indices)}; those of all "
                "outputs of a model must count from 0 (or 1) without a gap"
            )
        said.append(f"the indices have gaps ({first} to {max(indices)}); the classes are in their order")
    elif first == 1:
        said.append(f"the indices count from 1; class 1, {ordered[0].name!r}, is the first")
    elif ordered != rows:
        said.append("the classes are in the order of their indices, not of the lines")
    return [row.name for row in ordered]


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
