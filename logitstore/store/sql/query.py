"""SQL over a store: exactly one SELECT over its tables, run by a DuckDB that can reach nothing else.

Two fences, each enough by itself against what it names: the SQL is checked before it runs (``sql/check.py``), and
DuckDB is locked and limited while it does (``sql/sandbox.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from logitstore.queries import asked
from logitstore.sql.check import check_query, is_explain
from logitstore.sql.limits import Limits
from logitstore.sql.sandbox import Sandbox
from logitstore.store.sql.explain import Explanation
from logitstore.store.sql.tables import tables

if TYPE_CHECKING:
    from logitstore.store.pieces import Pieces


def run_query(
    store: Pieces, sql: str, parameters: Mapping[str, Any] | None = None, limits: Limits | None = None
) -> pa.Table:
    """The answer to one SELECT over the tables of a store (see ``tables.py``).

    :param sql: or ``@NAME``, a question that ships with the tool; see :mod:`logitstore.queries`.
    :param parameters: values of ``$name`` in the query, by name.
    :param limits: what the query may take; None for the defaults and what the environment says of them.
    :raises QueryError: the query is not one SELECT that can be answered from the store alone.
    :raises QueryLimitError: the query takes more time, memory or temporary space than it may.
    :raises CorruptStoreError: an object that the query needs is not the one that was committed.
    """
    with stream_query(store, sql, parameters, limits) as reader:
        return reader.read_all()


@contextlib.contextmanager
def stream_query(
    store: Pieces,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    explanation: Explanation | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """Like :func:`run_query`, as batches that are made when they are read: memory does not grow with the answer.

    The reader is good inside the ``with`` only. An interrupt (Ctrl-C) ends the query and leaves as KeyboardInterrupt.

    :param explanation: is told what the query reads.
    """
    makers = tables(store)
    sql, given = asked(sql, parameters or {}, makers, store.location, lambda: makers["clips"]().schema.names)
    values = dict(given)
    with Sandbox(limits or Limits.of()) as sandbox:
        names = check_query(sandbox.connection, sql, tuple(makers), values)
        made = {name: makers[name]() for name in names}
        for name, table in made.items():
            sandbox.register(name, table)
        if explanation is not None:
            explanation.tables = made
            explanation.ask_plan = lambda: None if is_explain(sql) else _plan(sandbox, sql, values)
        with sandbox.stream(sql, values) as reader:
            yield reader


def _plan(sandbox: Sandbox, sql: str, values: dict[str, Any]) -> str:
    """How DuckDB goes about a query, as it draws it."""
    with sandbox.stream(f"EXPLAIN {sql}", values) as reader:
        return str(reader.read_all()["explain_value"][-1].as_py())
