"""Query results as text or Parquet, batch by batch, so that memory does not grow with the result."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len, set_cell_size

FORMATS = ("table", "csv", "json", "ndjson", "parquet")

_MEASURED_ROWS = 10_000  # a table's widths are measured over its first rows
_NARROWEST = 8
_NULL = "NULL"
_JSON = msgspec.json.Encoder(decimal_format="number")


def write(reader: pa.RecordBatchReader, kind: str, file: IO[bytes], width: int | None = None) -> int:
    """Write a result and return its number of rows.

    :param kind: one of ``FORMATS``. In JSON a NaN or infinity is null and bytes are base64; in CSV NULL is empty.
    :param file: a binary stream; text is written as UTF-8.
    :param width: columns of the terminal that a ``table`` shall fit into; None for as wide as it is.
    """
    if kind == "parquet":
        return _write_parquet(reader, file)
    rows = _Counted(_rows(reader))
    names = reader.schema.names
    if kind == "table":
        lines: Iterator[str] = _table(names, reader.schema, rows, width)
    else:
        lines = {"csv": _csv, "json": _json, "ndjson": _ndjson}[kind](names, rows)
    for line in lines:
        file.write(line.encode("utf-8", "replace"))
    file.flush()
    return rows.count


class _Counted:
    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._rows:
            self.count += 1
            yield row


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(_plain(column).to_pylist() for column in batch.columns), strict=True)


def _plain(column: pa.Array) -> pa.Array:
    """A float32 column as the float64 that prints alike (0.1, not 0.10000000149011612); others as they are."""
    return pc.cast(pc.cast(column, pa.string()), pa.float64()) if pa.types.is_float32(column.type) else column


def _write_parquet(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _csv(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in _with_header(names, rows):
        writer.writerow([value if isinstance(value, str) else _text(value, repr, "") for value in row])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _json(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    before = "["
    for line in _ndjson(names, rows):
        yield f"{before}\n{line[:-1]}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _ndjson(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    keys = _unique(names)
    for row in rows:
        yield _JSON.encode(dict(zip(keys, row, strict=True))).decode() + "\n"


def _unique(names: list[str]) -> list[str]:
    """Names of columns as keys: one that comes again is numbered, as in ``class_2``."""
    keys: list[str] = []
    for name in names:
        key, number = name, 2
        while key in keys:
            key, number = f"{name}_{number}", number + 1
        keys.append(key)
    return keys


def _with_header(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    yield tuple(names)
    yield from rows


def _table(names: list[str], schema: pa.Schema, rows: Iterable[tuple[Any, ...]], width: int | None) -> Iterator[str]:
    """Aligned columns under a rule, numbers to the right."""
    right = [_is_number(field.type) for field in schema]
    header = [_printable(name) for name in names]
    iterator = iter(rows)
    first = [
        [_text(value, _rounded, _NULL) for value in row]
        for row, _ in zip(iterator, range(_MEASURED_ROWS), strict=False)
    ]
    widths = [max(cell_len(cells[i]) for cells in [header, *first]) for i in range(len(header))]
    cut = width is not None
    if width is not None:
        widths = _fit(widths, right, width)
    yield _line(header, widths, right, cut)
    yield "  ".join("─" * size for size in widths) + "\n"
    for cells in first:
        yield _line(cells, widths, right, cut)
    for row in iterator:
        yield _line([_text(value, _rounded, _NULL) for value in row], widths, right, cut)


def _fit(widths: list[int], right: list[bool], width: int) -> list[int]:
    """Narrow the widest text columns until a table fits; numbers are never cut."""
    widths = list(widths)
    too_wide = sum(widths) + 2 * (len(widths) - 1) - width
    while too_wide > 0:
        texts = [i for i, numeric in enumerate(right) if not numeric and widths[i] > _NARROWEST]
        if not texts:
            break
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] -= 1
        too_wide -= 1
    return widths


def _line(cells: list[str], widths: list[int], right: list[bool], cut: bool) -> str:
    shown = []
    for cell, size, numeric in zip(cells, widths, right, strict=True):
        length = cell_len(cell)
        if cut and length > size and not numeric:
            shown.append(set_cell_size(cell, size - 1) + "…")
        else:
            padding = " " * max(size - length, 0)
            shown.append(padding + cell if numeric else cell + padding)
    return "  ".join(shown).rstrip() + "\n"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _text(value: Any, number: Callable[[float], str], null: str) -> str:
    if value is None:
        return null
    if isinstance(value, str):
        return _printable(value)
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


def _printable(text: str) -> str:
    """Text without what could steer a terminal or break a line: such characters as Python escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _rounded(value: float) -> str:
    """Six significant digits where that is plain to read, else all of them."""
    if value == 0 or (math.isfinite(value) and 1e-4 <= abs(value) < 1e6):
        return f"{value:.6g}"
    return f"{value:.6g}" if abs(value) < 1 or not math.isfinite(value) else f"{value:.10g}"
