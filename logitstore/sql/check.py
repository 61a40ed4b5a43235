"""Whether SQL may be run: DuckDB's own syntax tree of it, as JSON, is walked before anything of it runs.

Everything is on a list of what is allowed: statements (one query, or EXPLAIN of one), kinds of nodes, tables, functions
(``functions.py``) and table functions. What a new DuckDB adds is therefore refused until someone has looked at it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Any

import duckdb
import msgspec

from logitstore.errors import QueryError
from logitstore.sql.functions import FUNCTIONS, REFUSED_FUNCTIONS, REFUSED_TABLE_FUNCTIONS, TABLE_FUNCTIONS

_ALLOWED = "allowed is one SELECT (WITH, VALUES, FROM-first, DESCRIBE, SUMMARIZE, SHOW TABLES and EXPLAIN too)"
TOO_DEEP = "the SQL is nested too deeply; split it with WITH"

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_SOURCES = {
    "BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF",
}  # fmt: skip
_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW",
}  # fmt: skip
_BLANK = r"(?:\s|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)"
_EXPLAIN = re.compile(rf"{_BLANK}*EXPLAIN\b(?:{_BLANK}+ANALYZE\b)?", re.IGNORECASE | re.ASCII)


def check_query(connection: Any, sql: str, names: tuple[str, ...], parameters: Collection[str] = ()) -> tuple[str, ...]:
    """Which of the tables ``names`` a query reads, given values for the named parameters.

    :raises QueryError: it is not exactly one query, or it reads anything else; nothing of it has been run.
    """
    (node,) = _parsed(connection, sql)
    tree = _Tree(names)
    tree.walk(node)
    tree.check_parameters(parameters)
    return tuple(name for name in names if name in tree.used)


def check_expression(connection: Any, sql: str, names: tuple[str, ...]) -> None:
    """Check that SQL is exactly one expression, as in WHERE, that reads nothing but the tables ``names``.

    :raises QueryError: it is anything else; nothing of it has been run.
    """
    if not sql.strip():
        raise QueryError("it is empty; give a condition such as fold = 1 AND label <> 'x'")
    (node,) = _parsed(connection, f"SELECT (\n{sql}\n)")
    (plain,) = _parsed(connection, "SELECT (1)")
    frame, expected = (
        {key: value for key, value in each["node"].items() if key != "select_list"} for each in (node, plain)
    )
    if frame != expected or len(node["node"]["select_list"]) != 1:
        raise QueryError("it is not one SQL expression; give a condition such as fold = 1 AND label <> 'x'")
    tree = _Tree(names)
    tree.walk(node)
    tree.check_parameters(())


def _parsed(connection: Any, sql: str) -> list[dict[str, Any]]:
    """The syntax tree of SQL that is one query, or EXPLAIN of one, in a list of its own."""
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
    if kind == "EXPLAIN" and (explained := _EXPLAIN.match(sql)):
        sql = sql[explained.end() :]
    elif kind != "SELECT":
        raise QueryError(f"the SQL is a statement of the kind {kind}, and SQL is read-only here; {_ALLOWED}")
    serialised = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0]
    try:
        document = msgspec.json.decode(serialised)
    except RecursionError as error:
        raise QueryError(TOO_DEEP) from error
    if document.get("error") or len(document["statements"]) != 1:
        found = " ".join(str(document.get("error_message", "no statement")).split())
        raise QueryError(f"the SQL cannot be checked ({found}); {_ALLOWED}")
    trees: list[dict[str, Any]] = document["statements"]
    return trees


def is_explain(sql: str) -> bool:
    """Whether SQL asks how a query is answered, and not for its answer."""
    return _EXPLAIN.match(sql) is not None


class _Tree:
    """A walk over a query's syntax tree that refuses what is not allowed and notes what is used."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.used: set[str] = set()
        self.parameters: set[str] = set()

    def walk(self, node: dict[str, Any]) -> None:
        """Walk a whole tree."""
        try:
            self._visit(node, frozenset())
        except RecursionError as error:
            raise QueryError(TOO_DEEP) from error

    def check_parameters(self, given: Collection[str]) -> None:
        """Refuse parameters without a value, and values without a parameter."""
        if positional := sorted(name for name in self.parameters if name.isdecimal()):
            raise QueryError(f"the SQL has {len(positional)} parameters without a name; write $name and give its value")
        if missing := sorted(self.parameters - set(given)):
            raise QueryError(f"the SQL has the parameter ${missing[0]} and no value for it; give -p {missing[0]} VALUE")
        if unused := sorted(set(given) - self.parameters):
            known = ", ".join(f"${name}" for name in sorted(self.parameters)) or "none"
            raise QueryError(f"the SQL has no parameter ${unused[0]}; it has {known}")

    def _visit(self, node: Any, scope: frozenset[str]) -> None:
        """Walk a subtree in which the names ``scope`` mean queries of a WITH."""
        if isinstance(node, list):
            for item in node:
                self._visit(item, scope)
        if not isinstance(node, dict):
            return
        kind = str(node.get("type", ""))
        self._check_kind(node, kind)
        children = dict(node)
        for entry in (children.pop("cte_map", None) or {}).get("map", ()):
            self._visit(entry["value"], scope)
            scope = scope | {str(entry["key"]).lower()}
        if kind == "BASE_TABLE":
            self._table(node, scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(str(node["function"].get("function_name", "")).lower())
            children["function"] = {**node["function"], "function_name": ""}
        elif kind == "SHOW_REF" and not node.get("query"):
            self._show(node)
        elif kind == "CTE_NODE":
            self._visit(children.pop("query", None), scope)
            scope = scope | {str(node.get("cte_name", "")).lower()}
        elif kind == "RECURSIVE_CTE_NODE":
            self._visit(children.pop("left", None), scope)
            scope = scope | {str(node.get("cte_name", "")).lower()}
        elif kind == "VALUE_PARAMETER":
            self.parameters.add(str(node.get("identifier", "")))
        if node.get("function_name"):
            self._function(str(node["function_name"]).lower())
        for child in children.values():
            self._visit(child, scope)

    def _check_kind(self, node: dict[str, Any], kind: str) -> None:
        if "class" in node:
            known, what = str(node["class"]) in _EXPRESSIONS, f"an expression of the kind {node['class']}"
        elif kind.endswith("_NODE"):
            known, what = kind in _QUERIES, f"a {kind.split('_')[0]}"
        elif "sample" in node:
            known, what = kind in _SOURCES, f"a source of rows of the kind {kind}"
        else:
            return
        if not known:
            raise QueryError(f"the SQL holds {what}, and SQL is read-only here; {_ALLOWED}")

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name = str(node.get("table_name", ""))
        whole = _path(node) or [name]
        if len(whole) == 1 and name.lower() in scope:
            return
        if len(whole) > 1 or name.lower() not in self.names:
            raise QueryError(f"there is no table {'.'.join(whole)!r}; the tables are {', '.join(self.names)}")
        self.used.add(name.lower())

    def _show(self, node: dict[str, Any]) -> None:
        name = str(node.get("table_name", "")).strip('"').lower()
        if len(_path(node)) <= 1 and name in ("tables", "__show_tables_expanded"):
            self.used.update(self.names)
        elif len(_path(node)) <= 1 and name in self.names:
            self.used.add(name)
        else:
            what = f"SHOW {name} is" if name else "this SHOW is"
            raise QueryError(
                f"{what} not possible; allowed are SHOW TABLES, and DESCRIBE or SUMMARIZE of {', '.join(self.names)}"
            )

    def _table_function(self, name: str) -> None:
        if name in TABLE_FUNCTIONS:
            return
        if name in REFUSED_TABLE_FUNCTIONS:
            what = f"the table function {name}() is not allowed: SQL reads its tables and no file, network, setting or "
            what += "environment"
        else:
            what = f"there is no table function {name}(), or it is newer than the list of those that are allowed"
        raise QueryError(
            f"{what}; the tables are {', '.join(self.names)}, the table functions " + ", ".join(sorted(TABLE_FUNCTIONS))
        )

    def _function(self, name: str) -> None:
        if name in FUNCTIONS:
            return
        if name in REFUSED_FUNCTIONS:
            raise QueryError(
                f"the function {name}() is not allowed: SQL reads its tables and no file, network, setting or "
                "environment; use functions of their arguments alone"
            )
        near = difflib.get_close_matches(name, FUNCTIONS, 3)
        advice = f"; near it are {', '.join(near)}" if near else "; use functions that are known"
        raise QueryError(
            f"there is no function {name}(), or it is newer than the list of those that are allowed{advice}"
        )


def _path(node: dict[str, Any]) -> list[str]:
    """The parts of a name: catalogue and schema, where given, before the table."""
    qualified = (node.get("qualified_name") or {}).get("path") or []
    parts = [node.get("catalog_name"), node.get("schema_name"), node.get("table_name")]
    return max([str(part) for part in parts if part], [str(part) for part in qualified], key=len)


def one_line(error: BaseException, sql: str) -> str:
    """DuckDB's message as one line, with the place in the query where DuckDB shows one."""
    text = str(error)
    if "Max expression depth" in text:
        return TOO_DEEP
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
