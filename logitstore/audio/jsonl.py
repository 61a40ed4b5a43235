"""Tables in JSON: one object a line (.jsonl, .ndjson), or one list of objects (.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.audio.delimited import Rows, decoded
from logitstore.audio.packed import column_of, is_plain
from logitstore.errors import SourceError

if TYPE_CHECKING:
    pass

SUFFIXES = (".jsonl", ".ndjson", ".json")


def read_json(path: Path, ignored: dict[str, str]) -> Rows:
    """The objects of a file as rows; a key that an object lacks is null there.

    Values are scalars or lists of scalars. Columns of other values are left out.

    :param ignored: told which columns are left out, and why.
    :raises SourceError: it is not JSON, or not of objects; the line is named.
    """
    import pyarrow as pa

    text, notes = decoded(path)
    lines: list[int] = []
    records: list[dict[str, Any]] = []
    if text.lstrip()[:1] == "[":
        found = _parsed(text, str(path))
        records = [_object(each, f"{path}, item {number}") for number, each in enumerate(found, start=1)]
    else:
        for line, each in enumerate(text.split("\n"), start=1):
            if each.strip():
                records.append(_object(_parsed(each, f"{path}, line {line}"), f"{path}, line {line}"))
                lines.append(line)
    if not any(records):
        raise SourceError(f"{path}: no rows, so there are no clips; a manifest has one object a clip")
    names = dict.fromkeys(name for record in records for name in record)
    columns = {}
    for name in names:
        values = [record.get(name) for record in records]
        odd = next((value for value in values if not is_plain(value)), None)
        if odd is not None:
            ignored[name] = "nested"
        else:
            columns[name.strip().encode("utf-8", "backslashreplace").decode()] = column_of(values)
    where = (lambda row: f"{path}, line {lines[row]}") if lines else lambda row: f"{path}, item {row + 1}"
    return Rows(pa.table(columns), where, notes)


def _parsed(text: str, place: str) -> Any:
    def twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            name = next(name for name, _ in pairs if [each for each, _ in pairs].count(name) > 1)
            raise SourceError(f"{place}: the key {name!r} is there twice; keep one")
        return found

    try:
        return json.loads(text, object_pairs_hook=twice)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise SourceError(f"{place}: not readable as JSON: {reason}") from None


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SourceError(f'{place}: not an object with the columns of one row, as {{"path": "a.wav"}}')
    return value
