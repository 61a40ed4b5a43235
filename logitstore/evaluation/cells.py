"""The labels that a cell of a table holds, in the forms in which tables have them.

A list of Parquet; text that is a list, as JSON or as Python and NumPy print one; text with separators; a number.
Nothing that could be read in two ways is read in one of them without a word.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from logitstore.classes import ClassIndex, audioset
from logitstore.errors import SourceError
from logitstore.notes import note

#: What separates labels where nothing is said; and what may, where each part is a class that is known.
SEPARATOR = ";"
_GUESSED = (",", "|")
_NOTHING = ("nan", "null", "<na>", "n/a", "#n/a", "nat")  # what pandas and spreadsheets write for nothing
_LONGEST_LIST = 1 << 16  # characters of text that are looked at as a list
_SHOWN = 60


@dataclass(frozen=True)
class Cells:
    """Labels by cell: ``labels`` has a tuple for each, empty where the cell is, and None where it says nothing."""

    labels: tuple[tuple[str, ...] | None, ...]

    @property
    def empty(self) -> int:
        """How many cells hold no label."""
        return sum(not labels for labels in self.labels)


def read_cells(
    cells: Sequence[Any],
    *,
    column: str,
    source: str,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
) -> Cells:
    """The labels of all cells of a column, without spaces around them, each once.

    A list is its items. Text is one label where it is one of ``classes``; otherwise it is cut at ``;``, and at ``,`` or
    ``|`` where that gives classes alone (without ``classes``: labels that other cells have alone). What is guessed, and
    what may have been meant otherwise, is said. None, NaN and text such as ``nan`` say nothing of a row.

    :param column, source: what the column and its table are called, for messages.
    :param separator: what separates labels; then nothing is guessed. ``\\\\t`` is a tab.
    :param classes: the names that labels are matched to, where they are known.
    :raises SourceError: a cell that holds something else, such as a mapping; an empty separator.
    """
    separator = None if separator is None else separator.replace("\\t", "\t")
    if separator == "":
        raise SourceError("--label-separator is empty; give what separates labels, such as ','")
    where = f"{source}: the column {column!r}"
    find = None if classes is None else ClassIndex(classes).find
    known: Callable[[str], bool] = (lambda _: False) if find is None else lambda text: find(text) is not None
    numbers: dict[Any, int] = {}
    values: list[tuple[str, ...] | str | None] = []
    codes = []
    for row, cell in enumerate(cells):
        key = (type(cell), repr(cell)) if isinstance(cell, list | dict) else (type(cell), cell)
        if key not in numbers:
            numbers[key] = len(values)
            values.append(_value(cell, known, f"{where}, row {row + 1}"))
        codes.append(numbers[key])
    texts = {value: None for value in values if isinstance(value, str)}
    split = dict(zip(texts, _split(list(texts), separator, find, where), strict=True))
    parsed = [split[value] if isinstance(value, str) else value for value in values]
    unique = [None if labels is None else tuple(dict.fromkeys(labels)) for labels in parsed]
    return Cells(tuple(unique[code] for code in codes))


def _value(cell: Any, known: Callable[[str], bool], where: str) -> tuple[str, ...] | str | None:
    """A cell as a tuple of labels, as text that may hold several, or as None."""
    if isinstance(cell, list | tuple):
        if any(isinstance(item, list | tuple) for item in cell):
            raise SourceError(f"{where}: {_short(cell)} is a list of lists; a cell may be a label or a list of labels")
        return tuple(text for item in cell if (text := _text(item, known, where)))
    text = _text(cell, known, where)
    if not text or known(text):
        return None if text is None else (text,) if text else ()
    return text if (listed := _listed(text, known, where)) is None else listed


def _text(cell: Any, known: Callable[[str], bool], where: str) -> str | None:
    """One value as text, None where it says nothing."""
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError:
            raise SourceError(f"{where}: {_short(cell)} is not UTF-8; labels must be text or numbers") from None
    if isinstance(cell, dict):
        raise SourceError(f"{where}: {_short(cell)} is a mapping; a cell may be a label or a list of labels")
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():  # a column of whole numbers in which some are missing
        return str(int(cell))
    text = str(cell).strip().strip("\ufeff").strip()
    return None if text.lower() in _NOTHING and not known(text) else text


def _listed(text: str, known: Callable[[str], bool], where: str) -> tuple[str, ...] | None:
    """The labels of text that is a list: of JSON, or as Python and NumPy print one; None where it is none."""
    text = re.sub(r"^array\((\[.*\])(, dtype=\S+)?\)$", r"\1", text)
    if text[0] + text[-1] not in ("[]", "()", "{}") or len(text) > _LONGEST_LIST:
        return None
    text = re.sub(r"np\.str_\(('[^']*'|\"[^\"]*\")\)", r"\1", text)
    found: Any = None
    numpy = re.fullmatch(r"\[((?:'[^']*'|\"[^\"]*\"|\d+)(?:\s+(?:'[^']*'|\"[^\"]*\"|\d+))+)\]", text)
    if numpy:
        found = [part.strip("'\"") for part in re.findall(r"'[^']*'|\"[^\"]*\"|\d+", numpy[1])]
    else:
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
    if isinstance(found, dict) and found:
        raise SourceError(f"{where}: {_short(text)} is a mapping; a cell may be a label or a list of labels")
    if isinstance(found, set | frozenset):
        found = sorted(found, key=str)
    if found == {}:
        return ()
    if isinstance(found, list | tuple):
        items = _value(list(found), known, where)
        return items if isinstance(items, tuple) else ()
    if re.match(r"[\[({]\s*['\"]", text):
        raise SourceError(
            f'{where}: {_short(text)} looks like a list and is none of JSON\'s or Python\'s; write it as ["a", "b"]'
        )
    bare = [part.strip() for part in text[1:-1].split(",") if part.strip()]
    return tuple(bare) if bare and all(map(known, bare)) else None


def _split(
    texts: list[str], separator: str | None, find: Callable[[str], int | None] | None, where: str
) -> list[tuple[str, ...]]:
    """The labels of texts that are no lists and no class as they stand."""
    if separator is not None:
        if texts and not any(separator in text for text in texts):
            note(f"{where}: no cell has {separator!r}, which --label-separator names; each is one label")
        return [_parts(text, separator, find) or _cut(text, separator) for text in texts]
    pieces = [_cut(text, SEPARATOR) for text in texts]
    every = {piece: None for several in pieces for piece in several}
    names = {each.display_name for each in audioset()} if any("," in piece for piece in every) else set()
    meant: dict[str, tuple[str, ...]] = {piece: (piece,) for piece in every}
    for mark in _GUESSED:
        doubtful = [
            piece for piece in every if mark in piece and (piece not in names if find is None else find(piece) is None)
        ]
        if not doubtful:
            continue
        if find is None:
            alone = {each.mid: 0 for each in audioset()}
            alone |= {piece: 0 for piece in every if not any(other in piece for other in _GUESSED)}
            cut = {piece: _parts(piece, mark, alone.get) for piece in doubtful}
        else:
            cut = {piece: _parts(piece, mark, find) for piece in doubtful}
        if all(cut.values()):
            meant |= {piece: parts for piece, parts in cut.items() if parts is not None}
            why = "a label of its own" if find is None else "a class"
            note(
                f"{where}: {_short(doubtful[0])} is read as {len(cut[doubtful[0]] or ())} labels, separated by "
                f"{mark!r}, for each part is {why}; --label-separator {SEPARATOR!r} makes it one"
            )
        elif find is None:
            note(
                f"{where}: {_short(doubtful[0])} is taken for one label, as are {len(doubtful)} with {mark!r} in all; "
                f"if it is several, say --label-separator {mark!r}; only {SEPARATOR!r} separates labels unless that is "
                "said"
            )
    return [tuple(label for piece in several for label in meant[piece]) for several in pieces]


def _cut(text: str, separator: str) -> tuple[str, ...]:
    edges = " \t" if separator != SEPARATOR else " \t,|"  # a separator that nothing follows
    return tuple(part.strip() for piece in text.split(separator) if (part := piece.strip(edges)))


def _parts(text: str, separator: str, find: Callable[[str], int | None] | None) -> tuple[str, ...] | None:
    """Text cut into labels that are known, the longest first where a name has the separator in it; else None."""
    if find is None:
        return None
    rest, labels = text.split(separator), []
    while rest:
        for count in range(len(rest), 0, -1):
            label = separator.join(rest[:count]).strip()
            if not label or find(label) is not None:
                break
        else:
            return None
        labels += [label] if label else []
        rest = rest[count:]
    return tuple(labels) or None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
