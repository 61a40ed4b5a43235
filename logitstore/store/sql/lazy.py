"""Arrow tables that are decoded when they are read: part by part, and only the columns asked for.

DuckDB scans such a table like any Arrow dataset. It asks for columns and hands over the filters that it has taken upon
itself to push down; a scan decodes the parts that may hold such rows, a few ahead, and forgets them again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

BATCH_ROWS = 1 << 17
_THREADS = 2
_LARGE_PART = 1 << 21  # rows of a part beyond which parts are decoded one at a time, to bound memory


@dataclass(frozen=True)
class TablePart:
    """A range of a table's rows that is decoded as a whole.

    ``bounds`` are half-open ranges of its integer columns: what a filter can exclude the part by. ``rows`` is about
    its size. ``decode`` gives its rows with at least the columns asked for. ``name`` is what a user calls it.
    """

    bounds: dict[str, tuple[int, int]]
    rows: int
    decode: Callable[[Set[str]], pa.Table]
    name: str = ""


@dataclass
class Scan:
    """What one scan of a table has read so far.

    ``columns`` were asked for, and decoded with those that the filter needs. ``skipped`` parts were ruled out by their
    bounds; ``decoded`` are the names of the others, those that were come to. Of ``rows`` and ``bytes`` (as Arrow holds
    them) that were decoded, ``passed`` rows were handed on: those that satisfied the filter, of the parts that were
    wanted. ``seconds`` are those of all threads that decoded.
    """

    columns: tuple[str, ...]
    skipped: int = 0
    decoded: list[str] = field(default_factory=list)
    rows: int = 0
    passed: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def decode(self, part: TablePart, columns: Set[str]) -> pa.Table:
        """A part's rows, counted."""
        begun = time.monotonic()
        table = part.decode(columns)
        self.seconds += time.monotonic() - begun
        self.decoded.append(part.name)
        self.rows += table.num_rows
        self.bytes += table.nbytes
        return table


class LazyTable(ds.Dataset):  # type: ignore[misc]
    """A table in parts. DuckDB scans it like any Arrow dataset: again and again, with projection and filters.

    ``failure`` is the error, if any, that ended a scan; DuckDB itself hands on no more than its text. ``scans`` say
    what each has read.
    """

    def __init__(
        self, schema: pa.Schema, parts: Sequence[TablePart]
    ) -> None:  # the base class refuses to be initialised
        self._columns = schema
        self.parts = parts
        self.failure: BaseException | None = None
        self.scans: list[Scan] = []

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._columns

    def scanner(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: Any
    ) -> LazyScanner:
        """A scan of some columns (all, where none are named) of the rows that satisfy a filter; each begins anew."""
        return LazyScanner(self, list(columns) if columns else self._columns.names, filter)

    def kept_parts(self, condition: pc.Expression | None) -> Sequence[TablePart]:
        """The parts that may hold rows that satisfy a condition, by what Arrow can prove from their bounds."""
        bounded = {name for part in self.parts for name in part.bounds}
        if condition is None or not bounded & referenced(condition, self._columns):
            return self.parts
        nowhere = pyarrow.fs.LocalFileSystem()  # fragments are named by number and never opened
        fragments = [
            ds.IpcFileFormat().make_fragment(str(number), nowhere, partition_expression=_guarantee(part.bounds))
            for number, part in enumerate(self.parts)
        ]
        described = ds.FileSystemDataset(fragments, self._columns, ds.IpcFileFormat(), nowhere)
        return [self.parts[int(fragment.path)] for fragment in described.get_fragments(filter=condition)]

    def __reduce__(self) -> Any:
        raise TypeError("a table of a store cannot be pickled; open the store in each process")


class LazyScanner:
    """One scan of a :class:`LazyTable`."""

    def __init__(self, table: LazyTable, columns: list[str], condition: pc.Expression | None) -> None:
        self._table = table
        self._columns = columns
        self._condition = condition

    @property
    def projected_schema(self) -> pa.Schema:
        """Names and types of the columns of the scan."""
        return pa.schema([self._table.schema.field(name) for name in self._columns])

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows, decoded as they are read."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        needed = set(self._columns)
        scan = Scan(tuple(self._columns))
        self._table.scans.append(scan)
        if self._condition is not None:
            needed |= referenced(self._condition, self._table.schema)
        try:
            parts = self._table.kept_parts(self._condition)
            scan.skipped = len(self._table.parts) - len(parts)
            for table in _decode_ahead(parts, needed, scan):
                chosen = table if self._condition is None else table.filter(self._condition)
                scan.passed += chosen.num_rows
                yield from chosen.select(self._columns).to_batches(max_chunksize=BATCH_ROWS)
        except Exception as error:
            self._table.failure = error
            raise


def referenced(condition: pc.Expression, schema: pa.Schema) -> set[str]:
    """The columns of a schema that an expression reads: those without which Arrow cannot bind it."""
    found = set()
    for name in schema.names:
        without = schema.remove(schema.get_field_index(name)).empty_table()
        try:
            ds.dataset(without).scanner(filter=condition)
        except (pa.ArrowInvalid, KeyError):
            found.add(name)
    return found


def _guarantee(bounds: dict[str, tuple[int, int]]) -> pc.Expression:
    expression = pc.scalar(True)
    for name, (low, high) in bounds.items():
        expression = expression & (pc.field(name) >= low) & (pc.field(name) <= high - 1)  # Arrow knows no integers
    return expression


def _decode_ahead(parts: Sequence[TablePart], columns: Set[str], scan: Scan) -> Iterator[pa.Table]:
    """Parts in their order, the next ones being decoded by other threads meanwhile."""
    ahead = _THREADS if all(part.rows <= _LARGE_PART for part in parts) else 1
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="tables")
    waiting: deque[Future[pa.Table]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(scan.decode, part, columns))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
