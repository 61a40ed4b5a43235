"""A DuckDB that can reach nothing but the tables it is given, ends when its limits are reached, and can be interrupted.

External access, extensions, replacement scans and the configuration are locked away; that holds even for SQL that
``check.py`` has not seen. DuckDB works in a thread of its own, so that the main thread hears an interrupt, keeps the
time, and watches the memory of the process: what DuckDB counts as its own leaves out what single functions take.

DuckDB looks for an interrupt between pieces of work, and one call of a function can be a long piece. A query that has
not ended within a second of being told to is abandoned: its thread is left alone, the caller goes on with the error,
and :func:`abandoned` says that the process should end without waiting for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from logitstore.errors import QueryError
from logitstore.sql.check import one_line
from logitstore.sql.limits import Limits

Result = TypeVar("Result")

_BATCH_ROWS = 1 << 16
_THREADS = 2
_TICK = 0.05  # seconds between two looks at the clock and the memory
_GRACE = 0.5  # seconds that a query has to end after it was told to
_UNCOUNTED = 640 * 10**6  # bytes beside what DuckDB counts: decoded blocks, rows on their way, single functions
_FOLDER = "logitstore-sql-"
_ONLY_TEXT = re.compile(r"\b(UHUGEINT|BIT|BIGNUM|VARINT|TIME WITH TIME ZONE|GEOMETRY)\b")
_abandoned: list[threading.Thread] = []


def abandoned() -> bool:
    """Whether a query that was ended still runs; the process should then leave with ``os._exit``."""
    return abandoned_queries() > 0


def abandoned_queries() -> int:
    """How many queries that were ended still run."""
    return sum(thread.is_alive() for thread in _abandoned)


class Sandbox:
    """One connection under limits, to use in a ``with``; ``connection`` is DuckDB's own."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._stack = contextlib.ExitStack()
        self._spill = self._stack.enter_context(_spill_folder())
        self.connection = connect(limits, self._spill)
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="query", daemon=True)
        self._tables: list[Any] = []
        self._stuck = False  # on a call that does not end
        self._left = limits.timeout
        self._most = _own_memory() + limits.memory + _UNCOUNTED

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)
        self._thread.join(0 if self._stuck else _GRACE)
        if self._thread.is_alive():
            _abandoned.append(self._thread)  # closing its connection would wait for it
        else:
            self.connection.close()
        self._stack.close()

    def register(self, name: str, table: Any) -> None:
        """Give a table a name; its ``failure``, if it has one, is what a query fails with."""
        self.connection.register(name, table)
        self._tables.append(table)

    @contextlib.contextmanager
    def stream(self, sql: str, parameters: dict[str, Any] | None = None) -> Iterator[pa.RecordBatchReader]:
        """The answer to SQL that has been checked, as batches that are made when they are read.

        :raises QueryError: DuckDB cannot answer it.
        :raises QueryLimitError: it takes more than it may.
        """

        def start() -> pa.RecordBatchReader:
            relation = self.connection.sql(sql, params=parameters) if parameters else self.connection.sql(sql)
            return _told_in_arrow(relation).to_arrow_reader(_BATCH_ROWS)

        def batches() -> Iterator[pa.RecordBatch]:
            while (batch := self._run(lambda: next(reader, None), sql)) is not None:
                self._most += batch.nbytes  # the reader may keep it
                yield batch

        reader = self._run(start, sql)
        try:
            yield pa.RecordBatchReader.from_batches(reader.schema, batches())
        finally:
            if not self._stuck:
                closed = self._put(reader.close)
                wait([closed], _GRACE / 2)
                self._end(closed)

    def _run(self, call: Callable[[], Result], sql: str) -> Result:
        """The result of a call in the thread; an interrupt, or a limit, ends it."""
        future = self._put(call)
        try:
            begun = time.monotonic()
            while not future.done():
                wait([future], _TICK)
                if self.limits.timeout and time.monotonic() - begun > self._left:
                    raise self.limits.exceeded("timeout")
                if _own_memory() > self._most:
                    raise self.limits.exceeded("memory")
            self._left -= time.monotonic() - begun
            return future.result()
        except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
            raise self._told(error, sql) from error
        finally:
            self._end(future)

    def _told(self, error: BaseException, sql: str) -> BaseException:
        """An error of DuckDB, or what it hides, in words for a user."""
        for table in self._tables:
            if (failure := getattr(table, "failure", None)) is not None:
                return failure  # type: ignore[no-any-return]
        if isinstance(error, MemoryError):
            return self.limits.exceeded("memory", ", or than the system gives")
        if isinstance(error, duckdb.OutOfMemoryException):
            if "max_temp_directory_size" in str(error):
                return self.limits.exceeded("temp_space")
            return self.limits.exceeded("memory", "" if self._spill else " and there is no temporary folder")
        return QueryError(one_line(error, sql))

    def _put(self, call: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        self._calls.put((future, call))
        return future

    def _end(self, future: Future[Any]) -> None:
        """Interrupt a call that is not done, and again, for DuckDB forgets what it hears before the call has begun."""
        self._stuck = True  # should another interrupt end the waiting
        end = time.monotonic() + _GRACE
        while not future.done() and time.monotonic() < end:
            self.connection.interrupt()
            wait([future], _TICK)
        self._stuck = not future.done()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
                future.set_exception(error)
            del item, future, call


def connect(limits: Limits, spill: str) -> Any:
    """A connection that can reach no file, network, extension or setting; ``spill`` is "" for no temporary files."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "threads": _THREADS,
            "memory_limit": f"{limits.memory}B",
        },
    )
    connection.execute("SET temp_directory = ?", [spill])
    connection.execute(f"SET max_temp_directory_size = '{limits.temp_space}B'")  # DuckDB 2.0.0 ignores it in ``config``
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _told_in_arrow(relation: Any) -> Any:
    """A relation with those columns as text whose values Arrow would change: 2**127 as a UHUGEINT, a zone of a TIME."""
    kinds = [str(kind) for kind in relation.types]
    if not any(map(_ONLY_TEXT.search, kinds)):
        return relation
    quoted = ['"' + name.replace('"', '""') + '"' for name in relation.columns]
    return relation.project(
        ", ".join(
            f"CAST(#{place} AS VARCHAR) AS {name}" if _ONLY_TEXT.search(kind) else f"#{place} AS {name}"
            for place, (kind, name) in enumerate(zip(kinds, quoted, strict=True), 1)
        )
    )


def _own_memory() -> int:
    """Bytes of memory that this process holds and no file backs; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _spill_folder() -> Iterator[str]:
    """The path of a private folder for what does not fit in memory, or "" (no spilling) where none can be made.

    It is locked while it is used, and those whose process was killed, which nobody locks, are removed first.
    """
    try:
        _sweep()
        folder = tempfile.mkdtemp(prefix=_FOLDER)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield ""
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep() -> None:
    """Remove this user's folders that no process uses any more; a new one, not locked yet, is left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            found = os.fstat(lock)
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < 60:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)
