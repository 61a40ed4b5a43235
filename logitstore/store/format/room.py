"""What a Parquet file takes when it is read, told from its page headers, before Arrow takes memory for it.

A few kilobytes can stand for gigabytes: pages that unpack to more than they say, a long text that a dictionary repeats,
rows that cost nothing because they are all alike. So the headers of the pages that shall be read are walked, without
unpacking one, and what they come to is held against the size of the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: A table may take so much memory, and so much more for each byte of its file.
LEAST_ROOM = 1 << 26
ROOM_A_BYTE = 100

_LEAST_WIDTH = 24  # bytes of a row in memory: path, start, length and rate
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
_CODED = (2, 8)  # encodings: PLAIN_DICTIONARY, RLE_DICTIONARY
_ENCODINGS = (0, 2, 3, 4, 5, 6, 8, 9)  # all but DELTA_BYTE_ARRAY, in which a text may begin as the one before
_SMALL = 1 << 16
_HEADER_BYTES, _MOST_HEADER_BYTES = 1 << 12, 1 << 22
_MOST_COLUMNS, _MOST_DEPTH, _MOST_NESTED = 10_000, 64, 16
_MAGIC = b"PAR1"

#: Where a Parquet file is: a file of this machine, or its bytes.
Source = Path | bytes
#: Reads so many bytes from an offset, fewer at the end.
ReadAt = Callable[[int, int], bytes]


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[tuple[ReadAt, int]]:
    """How to read parts of a file, and its size."""
    if isinstance(source, bytes):
        yield (lambda offset, size: source[offset : offset + size]), len(source)
        return
    with source.open("rb") as file:
        yield (lambda offset, size: os.pread(file.fileno(), size, offset)), os.fstat(file.fileno()).st_size


def open_parquet(source: Source) -> pq.ParquetFile:
    """A Parquet file, of which Arrow has read the end, after that was looked at.

    :raises ValueError: it is none, or of columns within columns within columns.
    """
    with _reading(source) as (read, size):
        _check_end(read, size)
    bytes_or_path = pa.BufferReader(source) if isinstance(source, bytes) else source
    # with pre_buffer, two threads that read from one ParquetFile can fail with an error of its ReadRangeCache
    file = pq.ParquetFile(bytes_or_path, pre_buffer=False)
    metadata = file.metadata
    if metadata.num_rows * _LEAST_WIDTH > LEAST_ROOM + ROOM_A_BYTE * size:
        raise ValueError(f"its {size:,} bytes cannot be {metadata.num_rows:,} rows")
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if sum(groups) != metadata.num_rows or any(rows < 0 for rows in groups):
        raise ValueError(f"it claims {metadata.num_rows:,} rows, and its groups have {sum(groups):,}")
    return file


def _check_end(read: ReadAt, size: int) -> None:
    end = read(max(0, size - 8), 8)
    length = int.from_bytes(end[:4], "little")
    if size < 12 or end[4:] != _MAGIC or read(0, 4) != _MAGIC or length > size - 12:
        raise ValueError("it is no Parquet file, or not whole")
    schema = _parsed(read, size - 8 - length, length, until=2).get(2)
    if not isinstance(schema, list) or not 2 <= len(schema) <= _MOST_COLUMNS:
        raise ValueError(f"it has {len(schema) if isinstance(schema, list) else 'no'} columns")
    left: list[int] = []  # of every column that holds columns, how many are still to come
    for element in schema:
        children = element.get(5, 0) if isinstance(element, dict) else 0
        if left:
            left[-1] -= 1
        if isinstance(children, int) and children > 0:
            left.append(children)
        while left and left[-1] <= 0:
            left.pop()
        if len(left) > _MOST_DEPTH:
            raise ValueError(f"its columns are nested more than {_MOST_DEPTH} deep")


def require_room(
    source: Source, file: pq.ParquetFile, columns: Sequence[str] | None = None, groups: Iterable[int] | None = None
) -> None:
    """Refuse to read some columns of some groups of rows, all by default, where that would take more than it may.

    :raises ValueError: it would, or the file is not what it claims.
    """
    metadata = file.metadata
    taken = 0
    coded: list[tuple[int, int, str, int]] = []  # texts in a dictionary: (bytes at most, group, column, values)
    with _reading(source) as (read, size):
        room = LEAST_ROOM + ROOM_A_BYTE * size
        for group in range(metadata.num_row_groups) if groups is None else groups:
            of_group = metadata.row_group(group)
            for number in range(of_group.num_columns):
                column = of_group.column(number)
                path = column.path_in_schema
                if columns is not None and path.split(".", 1)[0] not in columns:
                    continue
                pages = _pages(column, read, size, room)
                width = _WIDTHS.get(column.physical_type) or max(1, file.schema.column(number).length)
                taken += pages.bytes + max(pages.values, of_group.num_rows) * width
                if pages.coded and column.physical_type == "BYTE_ARRAY":
                    coded.append((pages.coded * pages.dictionary, group, path, pages.coded))
                if taken > room:
                    raise ValueError(_too_much(taken, size))
    if taken + sum(most for most, *_ in coded) <= room:
        return
    for most, group, path, values in sorted(coded):
        taken += min(most, values * _longest(source, group, path)) if most > _SMALL else most
        if taken > room:
            raise ValueError(_too_much(taken, size))


def _too_much(taken: int, size: int) -> str:
    return f"its {size:,} bytes would take {taken:,} in memory, and may take {LEAST_ROOM + ROOM_A_BYTE * size:,}"


def _longest(source: Source, group: int, path: str) -> int:
    """Bytes of the longest text in the dictionary of a chunk of a column; endless where that cannot be told."""
    again = pq.ParquetFile(
        pa.BufferReader(source) if isinstance(source, bytes) else source, read_dictionary=[path], pre_buffer=False
    )
    with again:
        batch = next(again.iter_batches(1, row_groups=[group], columns=[path], use_threads=False), None)
    values = None if batch is None else batch.column(0)
    while values is not None and (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        values = values.values
    if values is None or not pa.types.is_dictionary(values.type) or not len(values.dictionary):
        return sys.maxsize
    return int(pc.max(pc.binary_length(values.dictionary)).as_py() or 0)


class _Pages(NamedTuple):
    """What a chunk of a column comes to: bytes of its pages unpacked, ``values``, those of them that are ``coded`` by
    the dictionary, and the bytes of that."""

    bytes: int
    values: int
    coded: int
    dictionary: int


def _pages(column: Any, read: ReadAt, size: int, room: int) -> _Pages:
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    at, total, values, coded, dictionary = min(starts), 0, 0, 0, 0
    end = at + column.total_compressed_size
    if not 0 < at <= end <= size:
        raise ValueError(f"the column {column.path_in_schema} lies outside of the file")
    while at < end:
        header, length = _header(read, at, end)
        unpacked, packed = header.get(2), header.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise ValueError(f"the column {column.path_in_schema} has a page without a size")
        total += unpacked
        page = header.get(5) or header.get(8)
        if isinstance(header.get(7), dict):
            dictionary = max(dictionary, unpacked)
        elif isinstance(page, dict):
            count, encoding = page.get(1, 0), page.get(2 if 5 in header else 4, 0)
            if not isinstance(count, int) or count < 0 or encoding not in _ENCODINGS:
                raise ValueError(f"the column {column.path_in_schema} is encoded as no column of a store is")
            values += count
            coded += count if encoding in _CODED else 0
        if total > room:
            break
        at += length + packed
    return _Pages(total, values, coded, dictionary)


def _header(read: ReadAt, at: int, end: int) -> tuple[dict[int, Any], int]:
    window = min(_HEADER_BYTES, end - at)
    while True:
        thrift = _Thrift(read(at, window))
        try:
            return thrift.struct(), thrift.at
        except IndexError:
            if window >= min(end - at, _MOST_HEADER_BYTES):
                raise ValueError("the header of a page is cut off") from None
            window = min(window * 16, end - at)


def _parsed(read: ReadAt, at: int, length: int, until: int) -> dict[int, Any]:
    window = min(length, _HEADER_BYTES)
    while True:
        try:
            return _Thrift(read(at, window)).struct(until)
        except IndexError:
            if window >= length:
                raise ValueError("its description is cut off") from None
            window = min(length, window * 16)


class _Thrift:
    """Reads values of Thrift's compact protocol, which Parquet describes itself in.

    :raises IndexError: the bytes end before the value does. :raises ValueError: they are none.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def struct(self, until: int = 1 << 15, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct by their numbers, up to one of them."""
        if depth > _MOST_NESTED:
            raise ValueError("its description is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while number < until:
            head = self._byte()
            if not head:
                break
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # a truth value, which its type tells
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._skipped(8)
        if kind == 8:
            return self._skipped(self._number())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.struct(depth=depth + 1)
        raise ValueError("its description cannot be read")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._number()
        if count > len(self.content):
            raise IndexError
        if kind in (1, 2):
            return [self._byte() == 1 for _ in range(count)]
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _skipped(self, size: int) -> None:
        if self.at + size > len(self.content):
            raise IndexError
        self.at += size

    def _byte(self) -> int:
        value = self.content[self.at]
        self.at += 1
        return value

    def _number(self) -> int:
        value, shift = 0, 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("its description has a number that is too long")

    def _signed(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)
