"""SQL over a store: exactly one SELECT over its tables, run by a DuckDB that can reach nothing else.

Two fences, each enough by itself against what it names. DuckDB runs with external access, extensions, replacement
scans and the configuration locked away. Before that, the query's syntax tree (DuckDB's own, as JSON) is walked: only
queries (no DELETE inside a WITH), only this store's tables, and no function that reads anything but its arguments.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import msgspec
import pyarrow as pa

from logitstore.errors import QueryError
from logitstore.queries import asked
from logitstore.store.sql.lazy import LazyTable
from logitstore.store.sql.tables import tables

if TYPE_CHECKING:
    from logitstore.store.reader import Store

Result = TypeVar("Result")

MEMORY_LIMIT = "384MB"  # what DuckDB may hold before it spills to a temporary folder
_BATCH_ROWS = 1 << 16
_THREADS = 2
_ALLOWED = "allowed is one SELECT (WITH, VALUES and FROM-first too) over the store's tables"

_TOO_DEEP = "the SQL is nested too deeply; split it with WITH"

_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat"}
#: Functions that DuckDB does not call pure, and that read no more than the time and chance.
_TIME_AND_CHANCE = {
    "current_date", "gen_random_uuid", "get_current_time", "get_current_timestamp", "now", "random", "today",
    "transaction_timestamp", "uuid", "uuidv4", "uuidv7", "error",
}  # fmt: skip
_REFUSED = re.compile(
    r"getenv|current_setting|getvariable|write_log|format_type|get_block_size|obj_description|col_description"
    r"|shobj_description|.*sleep.*|.*secret.*|json_(de)?serialize_.*|(pg|has|inet|duckdb|pragma|read|parquet|sniff)_.*"
    r"|__internal_.*|query|query_table|glob|.*_scan"
)


def run_query(store: Store, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """The answer to one SELECT over the tables of a store (see ``tables.py``).

    :param parameters: values of ``$name`` in the query, by name.
    :raises QueryError: the query is not one SELECT that can be answered from the store alone.
    :raises CorruptStoreError: an object that the query needs is not the one that was committed.
    """
    with stream_query(store, sql, parameters) as reader:
        return reader.read_all()


@contextlib.contextmanager
def stream_query(store: Store, sql: str, parameters: Mapping[str, Any] | None = None) -> Iterator[pa.RecordBatchReader]:
    """Like :func:`run_query`, as batches that are made when they are read: memory does not grow with the answer.

    The reader is good inside the ``with`` only. An interrupt (Ctrl-C) stops the query and leaves as KeyboardInterrupt.
    """
    makers = tables(store)
    with contextlib.ExitStack() as stack:
        spill = stack.enter_context(_spill_folder())
        connection = stack.enter_context(contextlib.closing(_connect(spill)))
        worker = stack.enter_context(contextlib.closing(_Worker(connection)))
        sql = asked(sql)
        names = check_query(connection, sql, tuple(makers), dict(parameters or {}))
        registered = {name: makers[name]() for name in names}
        for name, table in registered.items():
            connection.register(name, table)

        def guarded(call: Callable[[], Result]) -> Result:
            try:
                return worker.run(call)
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                for table in registered.values():
                    if isinstance(table, LazyTable) and table.failure is not None:
                        raise table.failure from error
                raise QueryError(one_line(error, sql)) from error

        reader = guarded(lambda: _start(connection, sql, dict(parameters or {})))
        stack.callback(lambda: worker.run(reader.close))

        def batches() -> Iterator[pa.RecordBatch]:
            while (batch := guarded(lambda: next(reader, None))) is not None:
                yield batch

        yield pa.RecordBatchReader.from_batches(reader.schema, batches())


def check_query(connection: Any, sql: str, names: tuple[str, ...], parameters: Collection[str] = ()) -> tuple[str, ...]:
    """Which of the tables ``names`` a query reads, given values for the named parameters.

    :raises QueryError: it is not exactly one SELECT, or it reads anything else; nothing of it has been run.
    """
    if re.search("[\0\ud800-\udfff]", sql):
        raise QueryError("the SQL holds a zero byte, or bytes that are not UTF-8; give it as UTF-8 text")
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(one_line(error, sql)) from error
    if len(statements) != 1:
        raise QueryError(f"the SQL holds {len(statements) or 'no'} statements; {_ALLOWED}")
    kind = str(statements[0].type).rsplit(".", 1)[-1]
    if kind == "MULTI":
        raise QueryError("a PIVOT without its values is several statements; list them: PIVOT … ON column IN (…)")
    if kind != "SELECT":
        raise QueryError(f"the SQL is a statement of the kind {kind}, and a store is read-only; {_ALLOWED}")
    serialised = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()[0]
    try:
        document = msgspec.json.decode(serialised)
    except RecursionError as error:
        raise QueryError(_TOO_DEEP) from error
    if document.get("error") or len(document["statements"]) != 1:
        raise QueryError(f"the SQL cannot be checked ({document.get('error_message', 'no statement')}); {_ALLOWED}")
    tree = _Tree(names)
    try:
        tree.visit(document["statements"][0], frozenset())
    except RecursionError as error:
        raise QueryError(_TOO_DEEP) from error
    tree.check_functions(connection)
    tree.check_parameters(parameters)
    return tuple(name for name in names if name in tree.used)


class _Tree:
    """A walk over a query's syntax tree that refuses what is not allowed and notes what is used."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.used: set[str] = set()
        self.functions: set[str] = set()
        self.parameters: set[str] = set()

    def visit(self, node: Any, scope: frozenset[str]) -> None:
        """Walk a subtree in which the names ``scope`` mean queries of a WITH."""
        if isinstance(node, list):
            for item in node:
                self.visit(item, scope)
        if not isinstance(node, dict):
            return
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _QUERY_NODES:
            raise QueryError(f"the SQL holds a {kind.split('_')[0]}, and a store is read-only; {_ALLOWED}")
        children = dict(node)
        for entry in (children.pop("cte_map", None) or {}).get("map", ()):
            name = str(entry["key"]).lower()
            self.visit(entry["value"], scope)
            scope = scope | {name}
        if kind == "BASE_TABLE":
            self._table(node, scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(node["function"])
            children["function"] = {**node["function"], "function_name": ""}
        elif kind == "SHOW_REF" and not node.get("query"):
            self._show(str(node.get("table_name", "")).strip('"').lower())
        elif kind == "CTE_NODE":  # how DuckDB before 1.4 writes a materialised query of a WITH
            self.visit(children.pop("query", None), scope)
            scope = scope | {str(node.get("cte_name", "")).lower()}
        elif kind == "RECURSIVE_CTE_NODE":
            self.visit(children.pop("left", None), scope)
            scope = scope | {str(node.get("cte_name", "")).lower()}
        elif kind == "VALUE_PARAMETER":
            self.parameters.add(str(node.get("identifier", "")))
        if node.get("function_name"):
            self._function(str(node["function_name"]))
        for child in children.values():
            self.visit(child, scope)

    def check_functions(self, connection: Any) -> None:
        """Refuse functions that DuckDB itself does not call pure."""
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE list_contains(?, lower(function_name)) "
            "AND function_type = 'scalar' AND (stability <> 'CONSISTENT' OR has_side_effects)",
            [sorted(self.functions)],
        ).fetchall()
        for (name,) in rows:
            if name not in _TIME_AND_CHANCE:
                raise _refused_function(name)

    def check_parameters(self, given: Collection[str]) -> None:
        """Refuse parameters without a value, and values without a parameter."""
        if positional := sorted(name for name in self.parameters if name.isdecimal()):
            raise QueryError(f"the SQL has {len(positional)} parameters without a name; write $name and give its value")
        if missing := sorted(self.parameters - set(given)):
            raise QueryError(f"the SQL has the parameter ${missing[0]} and no value for it; give -p {missing[0]} VALUE")
        if unused := sorted(set(given) - self.parameters):
            known = ", ".join(f"${name}" for name in sorted(self.parameters)) or "none"
            raise QueryError(f"the SQL has no parameter ${unused[0]}; it has {known}")

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name = str(node.get("table_name", ""))
        qualified = node.get("schema_name") or node.get("catalog_name")
        if not qualified and name.lower() in scope:
            return
        if qualified or name.lower() not in self.names:
            whole = ".".join(filter(None, [node.get("catalog_name"), node.get("schema_name"), name]))
            raise QueryError(f"there is no table {whole!r}; the tables are {', '.join(self.names)}")
        self.used.add(name.lower())

    def _show(self, name: str) -> None:
        if name in ("tables", "__show_tables_expanded"):
            self.used.update(self.names)
        elif name in self.names:
            self.used.add(name)
        else:
            raise QueryError(f"SHOW {name} is not possible; DESCRIBE or SUMMARIZE one of {', '.join(self.names)}")

    def _table_function(self, function: dict[str, Any]) -> None:
        name = str(function.get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise QueryError(
                f"the table function {name}() is not allowed: SQL reads the store and no file, network, setting or "
                f"environment; the tables are {', '.join(self.names)}, the table functions "
                + ", ".join(sorted(_TABLE_FUNCTIONS))
            )

    def _function(self, name: str) -> None:
        name = name.lower()
        if _REFUSED.fullmatch(name):
            raise _refused_function(name)
        self.functions.add(name)


def one_line(error: BaseException, sql: str) -> str:
    """DuckDB's message as one line, with the place in the query where DuckDB shows one."""
    text = str(error)
    if "Max expression depth" in text:
        return _TOO_DEEP
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"the query needs more than {MEMORY_LIMIT} of memory and no disk to spill to; narrow it with WHERE"
    place = re.search(r"\n+LINE (\d+): (.*)\n( *)\^", text)
    message = text[: place.start()] if place else text
    message = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", message)
    message = " ".join(message.split()).rstrip(".")
    if not place:
        return f"SQL: {message}"
    line, shown = int(place[1]), place[2]
    column = len(place[3]) - len(f"LINE {line}: ")
    near = " ".join(shown[max(column, 0) :].removeprefix("...").split())
    lines = sql.split("\n")
    if shown.startswith("...") or not 0 < line <= len(lines) or not lines[line - 1].startswith(shown[:column]):
        return f"SQL, line {line}, at {near[:40]!r}: {message}"
    return f"SQL, line {line}, column {column + 1}, at {near[:40]!r}: {message}"


class _Worker:
    """Runs calls in a thread of its own, so that the main thread hears an interrupt while DuckDB works."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="query")

    def run(self, call: Callable[[], Result]) -> Result:
        """The result of a call; an interrupt stops the query that it waits for."""
        future = self._pool.submit(call)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._connection.interrupt()
            raise

    def close(self) -> None:
        """Wait for the call that still runs, if any."""
        self._pool.shutdown(wait=True)


def _connect(spill: str) -> Any:
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "threads": _THREADS,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
        },
    )
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _start(connection: Any, sql: str, parameters: dict[str, Any]) -> pa.RecordBatchReader:
    relation = connection.sql(sql, params=parameters) if parameters else connection.sql(sql)
    name = "to_arrow_reader" if hasattr(relation, "to_arrow_reader") else "fetch_arrow_reader"  # DuckDB before 1.4
    return getattr(relation, name)(_BATCH_ROWS)


@contextlib.contextmanager
def _spill_folder() -> Iterator[str]:
    """The path of a private folder for what does not fit in memory, or "" (no spilling) where none can be made."""
    try:
        folder = tempfile.mkdtemp(prefix="logitstore-")
    except OSError:
        yield ""
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused_function(name: str) -> QueryError:
    return QueryError(
        f"the function {name}() is not allowed: SQL reads the store's tables and no file, network, setting or "
        "environment; use functions of their arguments alone"
    )
