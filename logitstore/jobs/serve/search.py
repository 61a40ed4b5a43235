"""Search over the clips of a store: by class, text, question, SQL condition and verdict, sorted by any measure."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.arrays import I64, Bool
from logitstore.errors import QueryError, QueryLimitError, UsageError
from logitstore.jobs.serve.index import Index
from logitstore.options import nearest
from logitstore.queries import Parameter, Question, asked, questions
from logitstore.sql.check import check_expression, check_query
from logitstore.sql.limits import Limits
from logitstore.sql.sandbox import Sandbox, abandoned_queries
from logitstore.store.sql.lazy import LazyTable, TablePart
from logitstore.store.sql.tables import tables
from logitstore.store.verdicts import VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.reader import Store

#: What one query of a page may take.
LIMITS = Limits(timeout=10.0, memory=256 * 10**6, temp_space=200 * 10**6)
#: What one question may take: its SQL is the package's own.
QUESTION_LIMITS = Limits(timeout=120.0, memory=384 * 10**6, temp_space=500 * 10**6)
#: Clips of one answer at most.
MOST_ROWS = 500
#: How many clips a question ranks where it has a parameter ``limit`` and no value is given for it.
QUESTION_LIMIT = 1000
_MOST_TEXT = 4000  # characters of a search
_SHOWN = 3  # classes of a clip that a page shows, and that a text is looked for in
_RUNNING, _WAITING, _PATIENCE = 2, 8, 5.0  # queries at a time, those that wait, and for how many seconds
_KEPT = 32  # answers of queries
_CLOSING = 1.0  # seconds that queries have to end when the server does


class BusyError(UsageError):
    """Too many queries run already."""


@dataclass(frozen=True)
class Asked:
    """What is searched for; empty texts and None ask for nothing.

    :param verdict: one of "right", "wrong", "unsure", "none" (not judged), "any" (judged).
    :param sort: a measure, "clip", "path", or with a class "probability"; by default the order of the question, the
        probability of the class, or the number of the clip.
    """

    of_class: str = ""
    text: str = ""
    question: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    verdict: str = ""
    sort: str = ""
    descending: bool | None = None


@dataclass(frozen=True)
class Found:
    """The clips found, int64 (n,), in their order; the SQL that was run, if any; the seconds that it took."""

    clips: I64
    sql: str
    seconds: float


class Search:
    """Searches one store. Safe to share between threads.

    :param verdicts: gives of every clip its verdict as a position in "right", "wrong", "unsure", or -1: int8 (N,).
    :param verdict_table: gives SQL's table ``verdicts``.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        verdicts: Callable[[], Any],
        verdict_table: Callable[[], pa.Table],
        limits: Limits = LIMITS,
    ) -> None:
        self.store, self.index, self.limits = store, index, limits
        self._verdicts, self._verdict_table = verdicts, verdict_table
        self._class_numbers = {name: number for number, name in enumerate(store.manifest.classes)}
        self._running = threading.BoundedSemaphore(_RUNNING)
        self._waiting = threading.BoundedSemaphore(_RUNNING + _WAITING)
        self._answers: OrderedDict[tuple[Any, ...], tuple[I64, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._usable: dict[str, bool] | None = None
        self._asking: set[Sandbox] = set()
        self._closed = False

    def close(self) -> None:
        """End the queries that run, and refuse new ones."""
        self._closed = True
        end = time.monotonic() + _CLOSING
        while self._asking and time.monotonic() < end:  # DuckDB forgets what it hears before a query has begun
            with self._lock:
                for sandbox in self._asking:
                    sandbox.connection.interrupt()
            time.sleep(0.02)

    @contextlib.contextmanager
    def _interruptible(self, sandbox: Sandbox) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise BusyError("the server ends")
            self._asking.add(sandbox)
        try:
            yield
        finally:
            with self._lock:
                self._asking.remove(sandbox)

    def __call__(self, wanted: Asked) -> Found:
        """Search.

        :raises UsageError: what is asked cannot be: an unknown class, question, measure or verdict.
        :raises QueryError: the SQL condition is none that may be run, or takes more than it may.
        """
        begun = time.perf_counter()
        for text in (wanted.of_class, wanted.text, wanted.where, wanted.question, *map(str, wanted.values.values())):
            if len(text) > _MOST_TEXT:
                raise UsageError(f"a search of {len(text):,} characters; at most {_MOST_TEXT:,} are allowed")
        kept = np.ones(len(self.index), np.bool_)
        probabilities = None
        if wanted.of_class:
            probabilities = self.of_class(wanted.of_class)
            kept &= probabilities > 0
        if wanted.text:
            kept &= self._holding(wanted.text)
        if wanted.verdict:
            kept &= self._judged(wanted.verdict)
        sqls = []
        if wanted.where.strip():
            clips, sql = self._where(wanted.where)
            chosen = np.zeros(len(kept), np.bool_)
            chosen[clips] = True
            kept &= chosen
            sqls.append(sql)
        order = None
        if wanted.question:
            ranked, sql = self._ranked(wanted.question, wanted.values)
            order = ranked[kept[ranked]]
            sqls.append(sql)
        clips = np.flatnonzero(kept) if order is None else order
        clips = self._sorted(clips, wanted, probabilities, ranked=order is not None)
        return Found(clips, "\n\n".join(sqls), time.perf_counter() - begun)

    def of_class(self, name: str) -> Any:
        """The mean probability of a class in every clip, float32 (N,), 0 where it is not among the likeliest.

        :raises UsageError: there is no such class.
        """
        if name not in self._class_numbers:
            raise UsageError(f"there is no class {name[:80]!r} in {self.store.location}; {self._nearest(name)}")
        return np.where(self.index.classes == self._class_numbers[name], self.index.probabilities, 0).max(axis=1)

    def _nearest(self, name: str) -> str:
        classes = self.store.manifest.classes
        return nearest(name[:80], classes) if len(classes) < 1000 else "give one as it is written there"

    def _holding(self, text: str) -> Bool:
        """Which clips have a text in their path, in a column, or in the name of a class that is shown."""
        kept = np.zeros(len(self.index), np.bool_)
        for name in ("path", *self.index.columns):
            kept[_rows_holding(self.index.clips[name], text)] = True
        folded = text.casefold()
        named = [number for name, number in self._class_numbers.items() if folded in name.casefold()]
        return kept | np.isin(self.index.classes[:, :_SHOWN], named).any(axis=1)

    def _judged(self, verdict: str) -> Bool:
        allowed = (*VERDICTS, "none", "any")
        if verdict not in allowed:
            raise UsageError(f"{verdict[:80]!r} is no verdict to search for; allowed are {', '.join(allowed)}")
        codes = self._verdicts()
        found = codes < 0 if verdict == "none" else codes >= 0 if verdict == "any" else codes == allowed.index(verdict)
        return np.asarray(found, np.bool_)

    def _sorted(self, clips: I64, wanted: Asked, probabilities: Any, *, ranked: bool) -> I64:
        sort, descending = wanted.sort, wanted.descending
        if not sort:
            if ranked:
                return clips[::-1] if descending is False else clips
            sort = "clip" if probabilities is None else "probability"
        if sort == "clip":
            clips = np.sort(clips)
            return clips[::-1] if descending else clips
        if sort == "path":
            import pyarrow as pa
            import pyarrow.compute as pc

            paths = self.index.clips["path"].take(pa.array(np.sort(clips)))
            order = pc.sort_indices(paths, sort_keys=[("", "descending" if descending else "ascending")])
            by_path: I64 = np.sort(clips)[order.to_numpy()]
            return by_path
        if sort == "probability" and probabilities is not None:
            values, falling = probabilities.astype(np.float64), True
        elif sort in self.index.measures:
            measure = self.index.measures[sort]
            values, falling = measure.values, measure.descending
        else:
            known = ["clip", "path", *self.index.measures, *(["probability"] if probabilities is not None else [])]
            raise UsageError(f"there is nothing called {sort[:80]!r} to sort by; {nearest(sort[:80], known)}")
        falling = falling if descending is None else descending
        ordered: I64 = clips[np.argsort(-values[clips] if falling else values[clips], kind="stable")]  # NaN comes last
        return ordered

    # what goes through SQL

    def _tables(self) -> dict[str, Callable[[], Any]]:
        kept = self.index.views
        views = LazyTable(kept.schema, kept.parts)  # a new one for each query, which notes why it failed
        makers = dict(tables(self.store)) | {"views": lambda: views, "verdicts": self._verdict_table}
        if "levels" in makers:
            levels = LazyTable(self._levels.schema, self._levels.parts)
            makers["levels"] = lambda: levels
        return makers

    @functools.cached_property
    def _levels(self) -> LazyTable:
        """The table ``levels``, which listens to a clip once."""
        table = tables(self.store)["levels"]()
        names = set(table.schema.names)

        def heard(part: TablePart) -> TablePart:
            whole = functools.cache(lambda: part.decode(names))

            def decode(columns: Set[str]) -> pa.Table:
                return whole().select([each for each in table.schema.names if each in columns])

            return replace(part, decode=decode)

        return LazyTable(table.schema, [heard(part) for part in table.parts])

    def _where(self, condition: str) -> tuple[I64, str]:
        makers = self._tables() | {"clips": lambda: self.index.clips}
        sql = f"SELECT clip FROM clips WHERE (\n{condition}\n)"

        def check(sandbox: Sandbox) -> tuple[str, ...]:
            check_expression(sandbox.connection, condition, tuple(makers))
            return check_query(sandbox.connection, sql, tuple(makers))

        clips, _ = self._answer(("where", condition), sql, {}, makers, check, self.limits)
        return clips, sql

    def _ranked(self, name: str, values: Mapping[str, Any]) -> tuple[I64, str]:
        """The clips that a question answers with, each once, in its order."""
        makers = self._tables()
        known = questions().get(name)
        defaults = {} if known is None else {each.name: each.default for each in self.parameters(known)}
        given = {each: value for each, value in defaults.items() if value is not None} | dict(values)
        sql, given = asked(f"@{name}", given, makers, self.store.location, lambda: self._columns)
        key = ("question", name, *sorted((each, str(value)) for each, value in given.items()))

        def check(sandbox: Sandbox) -> tuple[str, ...]:
            return check_query(sandbox.connection, sql, tuple(makers), given)

        return self._answer(key, sql, given, makers, check, QUESTION_LIMITS)

    def _answer(
        self,
        key: tuple[Any, ...],
        sql: str,
        values: dict[str, Any],
        makers: Mapping[str, Callable[[], Any]],
        check: Callable[[Sandbox], tuple[str, ...]],
        limits: Limits,
    ) -> tuple[I64, str]:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        with self._slot(), Sandbox(limits) as sandbox, self._interruptible(sandbox):
            names = check(sandbox)
            for name in names:
                sandbox.register(name, makers[name]())
            with sandbox.stream(sql, values) as reader:
                if "clip" not in reader.schema.names:
                    raise QueryError("the answer has no column clip, so no clips can be shown for it")
                parts = [_as_numbers(batch.column("clip")) for batch in reader]
        clips = self._numbers(parts)
        if "verdicts" not in names:
            with self._lock:
                self._answers[key] = (clips, sql)
                while len(self._answers) > _KEPT:
                    self._answers.popitem(last=False)
        return clips, sql

    def _numbers(self, parts: list[Any]) -> I64:
        """Numbers of clips, each where it comes first."""
        if not parts:
            return np.zeros(0, np.int64)
        values = np.concatenate(parts)
        values = values[(values >= 0) & (values < len(self.index))].astype(np.int64)
        _, first = np.unique(values, return_index=True)
        return values[np.sort(first)]

    def _slot(self) -> _Slot:
        return _Slot(self._waiting, self._running)

    # questions

    def parameters(self, question: Question) -> list[Parameter]:
        """The parameters of a question: a page shows more clips than a terminal, and knows the column of labels."""

        def of_page(each: Parameter) -> Parameter:
            if each.name == "limit":
                return replace(each, default=QUESTION_LIMIT)
            label = self.index.label_column
            return replace(each, default=label) if each.column and label is not None else each

        return [of_page(each) for each in question.parameters]

    @property
    def _columns(self) -> list[str]:
        return ["clip", "path", "start", "length", "rate", *self.index.columns]

    def questions(self) -> list[tuple[Question, bool]]:
        """The questions whose answer has a column ``clip``, and whether this store has what they need."""
        if self._usable is None:
            self._usable = self._usable_questions()
        return [(each, self._usable[name]) for name, each in questions().items() if name in self._usable]

    def _usable_questions(self) -> dict[str, bool]:
        makers = self._tables()
        found = {}
        with Sandbox(self.limits) as sandbox:
            registered: set[str] = set()
            for name, each in questions().items():
                if any(table not in makers for table in each.needs):
                    if re.search(r"\bclip\b", each.sql):
                        found[name] = False
                    continue
                given = {one.name: 0 if one.default is None else one.default for one in self.parameters(each)}
                try:
                    asked_sql, values = each.bound(given, lambda: self._columns)
                    sql = f"SELECT * FROM (\n{asked_sql}\n) LIMIT 0"
                    for table in check_query(sandbox.connection, asked_sql, tuple(makers), values):
                        if table not in registered:
                            sandbox.register(table, makers[table]())
                            registered.add(table)
                    with sandbox.stream(sql, values) as reader:
                        if "clip" in reader.schema.names:
                            found[name] = True
                except QueryLimitError:
                    raise
                except QueryError:  # it takes a column that the store lacks
                    if re.search(r"\bclip\b", each.sql):
                        found[name] = False
        return found


def _rows_holding(column: pa.ChunkedArray, text: str) -> I64:
    """The rows of a column whose cell, or an item of it, holds a text, whatever its case; none of bytes or structs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = None
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        rows = pc.list_parent_indices(column).to_numpy()
        column = pc.list_flatten(column)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return np.zeros(0, np.int64)
    found = pc.match_substring(pc.cast(column, pa.large_string()), text, ignore_case=True)
    places: I64 = pc.indices_nonzero(found).to_numpy().astype(np.int64)
    return places if rows is None else np.asarray(rows[places], np.int64)


def _as_numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    """Numbers of clips as float64, NaN for NULL."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise QueryError(f"the answer's column clip holds values of the type {column.type}, not numbers") from None


class _Slot:
    """A place among the queries that run, in a ``with``.

    :raises BusyError: there is none for too long.
    """

    def __init__(self, waiting: threading.BoundedSemaphore, running: threading.BoundedSemaphore) -> None:
        self._waiting, self._running = waiting, running

    def __enter__(self) -> None:
        if abandoned_queries() >= _RUNNING:
            raise BusyError("queries that were ended still run; wait until they have, or start the server again")
        if not self._waiting.acquire(blocking=False):
            raise BusyError(f"{_RUNNING + _WAITING} queries run or wait already; try again in a moment")
        if not self._running.acquire(timeout=_PATIENCE):
            self._waiting.release()
            raise BusyError(f"{_RUNNING} queries run already, for more than {_PATIENCE:g} s; try again in a moment")

    def __exit__(self, *_: object) -> None:
        self._running.release()
        self._waiting.release()
