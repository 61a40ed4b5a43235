"""Query results as text or Parquet, batch by batch, so that memory does not grow with the result.

A text of a store never becomes part of a table's layout: what does not print is escaped, in Markdown its marks too.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import IO, Any, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len, set_cell_size

from logitstore.cli.command import note
from logitstore.errors import UsageError
from logitstore.texts import csv_line, escaped_json, in_json, one_line, printable

FORMATS = ("table", "markdown", "csv", "json", "ndjson", "parquet")

_MEASURED_ROWS = 10_000  # a table's widths are measured over its first rows
_FLOORS = (20, 8)  # columns of a terminal that a text keeps, the second where it is too narrow for the first
_MARKS = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
_MOST_NAMED = 6
_NULL = "NULL"
_JSON = msgspec.json.Encoder(decimal_format="number")


def write(
    reader: pa.RecordBatchReader,
    kind: str,
    file: IO[bytes],
    width: int | None = None,
    *,
    spreadsheet: bool = False,
    printed: bool = False,
    transpose: bool = False,
    metadata: Mapping[bytes, bytes] | None = None,
) -> int:
    """Write a result and return its number of rows.

    :param kind: one of ``FORMATS``. In JSON a NaN or infinity is null and bytes are base64; in CSV NULL is empty.
    :param file: a binary stream; text is written as UTF-8.
    :param width: columns of the terminal that a ``table`` shall fit into; None for as wide as it is. Texts are cut for
        that, then names of columns; columns that do not fit even so are left out, and a note says which.
    :param spreadsheet: mark the cells of CSV that a spreadsheet would run; see :func:`logitstore.texts.csv_line`.
    :param transpose: a ``table`` or ``markdown`` for each row, its columns below each other.
    :param printed: whether the stream is a terminal: CSV shows what does not print escaped, and else holds it.
    :param metadata: what Parquet is to say of itself.
    :raises UsageError: Parquet cannot hold a column.
    """
    if kind == "parquet":
        return _write_parquet(reader, file, metadata)
    rows = _Counted(_rows(reader, "T" if kind in ("json", "ndjson") else " "))
    names = reader.schema.names
    left_out: list[str] = []
    if transpose and kind in ("table", "markdown"):
        lines: Iterator[str] = (_expanded if kind == "table" else _expanded_markdown)(names, rows)
    elif kind == "table":
        lines = _table(names, reader.schema, rows, width, left_out)
    elif kind == "markdown":
        lines = _markdown(names, reader.schema, rows)
    elif kind == "csv":
        lines = _csv(names, reader.schema, rows, spreadsheet, printed)
    else:
        lines = {"json": _json, "ndjson": _ndjson}[kind](names, rows)
    for line in lines:
        file.write(line.encode("utf-8", "replace"))
    file.flush()
    if left_out:
        shown = len(names) - len(left_out)
        note(
            f"the terminal is too narrow for {len(names)} columns; the first {shown} are shown, without "
            f"{', '.join(left_out[:_MOST_NAMED])}{', …' if len(left_out) > _MOST_NAMED else ''}: --transpose shows all"
        )
    return rows.count


def write_object(reader: pa.RecordBatchReader, file: IO[str]) -> None:
    """Write the keys ``columns`` and ``rows`` of a JSON object, each with a comma behind it, however it ends."""
    file.write(f'"columns": {in_json(_unique(reader.schema.names))}, "rows": [')
    before = ""
    try:
        for line in _ndjson(reader.schema.names, _rows(reader, "T")):
            file.write(f"{before}{line[:-1]}")
            before = ", "
    finally:
        file.write("], ")


class _Counted:
    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._rows:
            self.count += 1
            yield row


def _rows(reader: pa.RecordBatchReader, between: str) -> Iterator[tuple[Any, ...]]:
    """:param between: what stands between a date and a time that Python has no value for."""
    for batch in reader:
        yield from zip(*(_values(_plain(column), between) for column in batch.columns), strict=True)


def _plain(column: pa.Array) -> pa.Array:
    """A float32 column as the float64 that prints alike (0.1, not 0.10000000149011612); others as they are."""
    return pc.cast(pc.cast(column, pa.string()), pa.float64()) if pa.types.is_float32(column.type) else column


def _values(column: pa.Array, between: str) -> list[Any]:
    """A column as Python values; text for those that Python has none for, such as a date after the year 9999."""
    if pa.types.is_time(column.type) and _whole_days(column):
        return [None if each is None else _clock(each, _UNITS[column.type.unit]) for each in _integers(column)]
    if not _holds_interval(column.type):
        with contextlib.suppress(ValueError, OverflowError, LookupError, NotImplementedError, pa.ArrowException):
            return cast(list[Any], column.to_pylist())
    return [_value(each, between) for each in column]


def _integers(column: pa.Array) -> list[int | None]:
    kind = pa.int32() if pa.types.is_time32(column.type) else pa.int64()
    return cast(list[int | None], column.view(kind).to_pylist())


def _whole_days(column: pa.Array) -> bool:
    """Whether some time is 24:00:00, which Python's would be 0:00."""
    return max((each or 0 for each in _integers(column)), default=0) >= 86_400 * _UNITS[column.type.unit]


def _holds_interval(kind: pa.DataType) -> bool:
    return pa.types.is_interval(kind) or any(_holds_interval(kind.field(i).type) for i in range(kind.num_fields))


def _value(scalar: Any, between: str) -> Any:
    """A value of any type as Python has it, or as text."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_interval(kind):
        return interval_text(*scalar.as_py())
    if pa.types.is_map(kind):
        return [[_value(pair[0], between), _value(pair[1], between)] for pair in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _value(scalar[i], between) for i in range(kind.num_fields)}
    if isinstance(scalar, pa.ListScalar):
        return [_value(each, between) for each in scalar.values]
    if isinstance(scalar, pa.DictionaryScalar | pa.UnionScalar | pa.ExtensionScalar):
        return _value(scalar.value, between)
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, LookupError):
        if pa.types.is_timestamp(kind):
            zone = "" if kind.tz is None else "+00:00"
            return _moment(scalar.value, _UNITS[kind.unit], between, zone)
        if pa.types.is_date(kind):
            days = scalar.value if pa.types.is_date32(kind) else scalar.value // 86_400_000
            return _infinite(days, 32) or _day(days)
        if pa.types.is_time(kind) or pa.types.is_duration(kind):
            return _clock(scalar.value, _UNITS[kind.unit])
        return str(scalar)


_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _infinite(value: int, bits: int) -> str | None:
    """What DuckDB means by the largest integer of a type, and by the smallest but one."""
    return {2 ** (bits - 1) - 1: "infinity", 1 - 2 ** (bits - 1): "-infinity"}.get(value)


def _moment(value: int, unit: int, between: str, zone: str) -> str:
    days, rest = divmod(value, 86_400 * unit)
    return _infinite(value, 64) or f"{_day(days, between + _clock(rest, unit) + zone)}"


def _day(days: int, behind: str = "") -> str:
    """A day of the proleptic Gregorian calendar, counted from 1970, as DuckDB writes it; years before 1 are BC."""
    cycles, rest = divmod(days + 719_468, 146_097)  # of 400 years, from the first of March of the year 0
    year = (rest - rest // 1_460 + rest // 36_524 - rest // 146_096) // 365
    day = rest - (365 * year + year // 4 - year // 100)
    month = (5 * day + 2) // 153
    day, month, year = day - (153 * month + 2) // 5 + 1, (month + 2) % 12 + 1, year + 400 * cycles + (month >= 10)
    shown, era = (year, "") if year > 0 else (1 - year, " (BC)")
    return f"{shown:04}-{month:02}-{day:02}{era}{behind}"


def _clock(value: int, unit: int) -> str:
    sign, value = ("-", -value) if value < 0 else ("", value)
    seconds, part = divmod(value, unit)
    fraction = f".{part:0{len(str(unit)) - 1}}".rstrip("0") if part else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def interval_text(months: int, days: int, nanoseconds: int) -> str:
    """An INTERVAL as DuckDB writes and reads it: ``1 year 2 months 3 days 04:05:06``."""
    sign = 1 if months > 0 else -1
    counts = {"year": sign * (abs(months) // 12), "month": sign * (abs(months) % 12), "day": days}
    parts = [f"{count} {unit}{'' if count in (1, -1) else 's'}" for unit, count in counts.items() if count]
    if nanoseconds or not parts:
        parts.append(_clock(nanoseconds, 10**9))
    return " ".join(parts)


def _write_parquet(reader: pa.RecordBatchReader, file: IO[bytes], metadata: Mapping[bytes, bytes] | None) -> int:
    import pyarrow.parquet as pq

    as_text = [pa.types.is_interval(field.type) for field in reader.schema]
    if any(as_text):
        names = [name for name, text in zip(reader.schema.names, as_text, strict=True) if text]
        note(f"Parquet has no INTERVAL: as text are written {', '.join(names)}")
    fields = [
        pa.field(name, pa.string() if text else field.type)
        for name, field, text in zip(_unique(reader.schema.names), reader.schema, as_text, strict=True)
    ]
    for field in fields:
        try:
            pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
        except (pa.ArrowException, ValueError) as error:
            raise UsageError(
                f"Parquet cannot hold the column {field.name!r} of the type {field.type}; cast it to VARCHAR"
            ) from error
    schema = pa.schema(fields, metadata)
    count = 0
    try:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in reader:
                columns = [
                    pa.array(_values(column, " "), pa.string()) if text else column
                    for column, text in zip(batch.columns, as_text, strict=True)
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                count += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"Parquet cannot hold the answer: {one_line(str(error), 300)}; cast it to VARCHAR") from error
    return count


def _csv(
    names: list[str], schema: pa.Schema, rows: Iterable[tuple[Any, ...]], spreadsheet: bool, printed: bool
) -> Iterator[str]:
    numbers = [_is_number(field.type) or pa.types.is_boolean(field.type) for field in schema]
    shown = printable if printed else str
    yield csv_line([shown(name) for name in names], spreadsheet=spreadsheet)
    for row in rows:
        cells = [shown(value) if isinstance(value, str) else _text(value, repr, "") for value in row]
        yield csv_line(cells, numbers=numbers, spreadsheet=spreadsheet)


def _json(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    before = "["
    for line in _ndjson(names, rows):
        yield f"{before}\n{line[:-1]}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _ndjson(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    keys = _unique(names)
    for row in rows:
        yield escaped_json(_JSON.encode(dict(zip(keys, row, strict=True))).decode()) + "\n"


def _unique(names: list[str]) -> list[str]:
    """Names of columns as keys: one that comes again is numbered, as in ``class_2``."""
    keys: list[str] = []
    for name in names:
        key, number = name, 2
        while key in keys:
            key, number = f"{name}_{number}", number + 1
        keys.append(key)
    return keys


def _table(
    names: list[str], schema: pa.Schema, rows: Iterable[tuple[Any, ...]], width: int | None, left_out: list[str]
) -> Iterator[str]:
    """Aligned columns under a rule, numbers to the right.

    :param left_out: gets the names of the columns that do not fit, the last ones.
    """
    right = [_is_number(field.type) for field in schema]
    header = [printable(name) for name in names]
    first, others = _measured(rows)
    widths = [max(cell_len(cells[i]) for cells in [header, *first]) for i in range(len(header))]
    if width is not None:
        needed = [max([1, *(cell_len(cells[i]) for cells in first)]) for i in range(len(header))]
        widths = _fit(widths, needed, right, width)
        left_out += header[len(widths) :]
    cut = width is not None
    more = "  …" if left_out else ""
    yield _line(header, widths, right, cut, header=True) + more + "\n"
    yield "  ".join("─" * size for size in widths) + "\n"
    for cells in first:
        yield _line(cells, widths, right, cut) + "\n"
    for row in others:
        yield _line(_cells(row), widths, right, cut) + "\n"


def _measured(rows: Iterable[tuple[Any, ...]]) -> tuple[list[list[str]], Iterator[tuple[Any, ...]]]:
    """The cells of the first rows, which the widths of columns are measured over, and the other rows."""
    iterator = iter(rows)
    return [_cells(row) for row, _ in zip(iterator, range(_MEASURED_ROWS), strict=False)], iterator


def _cells(row: tuple[Any, ...]) -> list[str]:
    return [_text(value, _rounded, _NULL) for value in row]


def _fit(widths: list[int], needed: list[int], right: list[bool], width: int) -> list[int]:
    """Widths of the columns that fit, the widest made narrower first; those at the end that do not are left out.

    Texts are cut before the names of columns, and those before texts are cut to their least; numbers are never cut.

    :param needed: the widths of the cells alone, without the names above them.
    """
    texts = [[min(size, floor) for size in widths] for floor in _FLOORS]
    names = [min(size, max(least, 4)) for size, least in zip(widths, needed, strict=True)]
    for least in (
        [size if number else text for size, text, number in zip(widths, texts[0], right, strict=True)],
        [name if number else text for name, text, number in zip(names, texts[0], right, strict=True)],
        [name if number else text for name, text, number in zip(names, texts[1], right, strict=True)],
    ):
        widths = _narrowed(widths, least, width)
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            return widths
    fitting = len(least)
    while fitting > 1 and sum(least[:fitting]) + 2 * (fitting - 1) + 3 > width:
        fitting -= 1
    return _narrowed(widths[:fitting], least[:fitting], width - 3)


def _narrowed(widths: list[int], least: list[int], width: int) -> list[int]:
    """Widths, the widest made narrower, none below its least, until a table fits or no more can be done."""
    widths = list(widths)
    too_wide = sum(widths) + 2 * (len(widths) - 1) - width
    while too_wide > 0:
        wide = [i for i, size in enumerate(widths) if size > least[i]]
        if not wide:
            break
        widths[max(wide, key=lambda i: widths[i])] -= 1
        too_wide -= 1
    return widths


def _markdown(names: list[str], schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """A table of GitHub's Markdown, aligned to be read as text too; no text of a cell becomes markup."""
    right = [_is_number(field.type) for field in schema]
    header = [_marked(printable(name)) for name in names]
    first, others = _measured(rows)
    first = [list(map(_marked, cells)) for cells in first]
    widths = [max(3, *(cell_len(cells[i]) for cells in [header, *first])) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            " " * (size - cell_len(cell)) + cell if number else cell + " " * (size - cell_len(cell))
            for cell, size, number in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |\n"

    yield line(header)
    yield line(["-" * (size - number) + ":" * number for size, number in zip(widths, right, strict=True)])
    yield from map(line, first)
    for row in others:
        yield line(list(map(_marked, _cells(row))))


def _marked(text: str) -> str:
    """A text as Markdown shows it letter for letter."""
    return _MARKS.sub(lambda found: f"\\{found[0]}", text)


def _expanded(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """The columns of a row below each other, in full, under the row's number."""
    header = [printable(name) for name in names]
    wide = max(map(cell_len, header), default=0)
    for number, row in enumerate(rows, 1):
        yield f"── row {number:,} {'─' * max(2, wide - len(f'{number:,}'))}\n"
        for name, cell in zip(header, _cells(row), strict=True):
            yield f"{name}{' ' * (wide - cell_len(name))}  {cell}".rstrip() + "\n"


def _expanded_markdown(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """A table of Markdown for each row, with a line for each column."""
    schema = pa.schema([("column", pa.string()), ("value", pa.string())])
    for number, row in enumerate(rows):
        yield from ["\n"] if number else []
        yield from _markdown(schema.names, schema, zip(names, _cells(row), strict=True))


def _line(cells: list[str], widths: list[int], right: list[bool], cut: bool, header: bool = False) -> str:
    """A line of a table without its end; cells beyond the widths are left out.

    :param cut: whether what is too wide is cut: texts, and of a ``header`` all names.
    """
    shown = []
    for cell, size, numeric in zip(cells, widths, right, strict=False):
        length = cell_len(cell)
        if cut and length > size and (header or not numeric):
            shown.append(_shortened(cell, size))
        else:
            padding = " " * max(size - length, 0)
            shown.append(padding + cell if numeric else cell + padding)
    return "  ".join(shown).rstrip()


def _shortened(text: str, size: int) -> str:
    """A text cut to a number of the terminal's columns: a path in its middle, others at their end."""
    tail = text[-((size - 1) * 2 // 3) :] if "/" in text and size > 4 and text.isascii() else ""
    return set_cell_size(text, size - 1 - len(tail)) + "…" + tail


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _text(value: Any, number: Callable[[float], str], null: str) -> str:
    if value is None:
        return null
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int | Decimal):
        return str(value)
    if hasattr(value, "isoformat"):
        return str(value)
    encoded = _JSON.encode(value).decode()
    return encoded[1:-1] if encoded.startswith('"') else encoded  # bytes are base64, a span of time is ISO 8601


def _rounded(value: float) -> str:
    """Six significant digits where that is plain to read, else all of them."""
    if value == 0 or (math.isfinite(value) and 1e-4 <= abs(value) < 1e6):
        return f"{value:.6g}"
    return f"{value:.6g}" if abs(value) < 1 or not math.isfinite(value) else f"{value:.10g}"
