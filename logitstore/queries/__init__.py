"""Questions: SQL that ships with the tool, one query a file. ``@NAME`` in the place of SQL asks that of ``NAME.sql``.

Lines of comment come first. The first of them says what is asked, the next ones what the answer tells. Two forms are
read by the tool::

    -- $limit = 20: how many classes to show           a parameter, its default, and what it is for
    -- "$label" = label: the column of labels          one that names a column of the clip table: in quotes, here and in
                                                       the SQL, where the column's name takes its place
    -- needs members: build a store with …             a table that not every store has, and what to do without

To add a question, add its file: ``logitstore inspect STORE @`` lists it and ``logitstore inspect STORE @NAME`` asks it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from logitstore.errors import MismatchError, QueryError

_PARAMETER = re.compile(r"(?P<quote>\"?)\$(?P<name>\w+)(?P=quote) = (?P<default>[^:]+): (?P<meaning>.+)")
_NEEDS = re.compile(r"needs (?P<table>\w+): (?P<remedy>.+)")


@dataclass(frozen=True)
class Parameter:
    """A value that a question takes: its name, what it is where none is given (None: one must be), what it is for.

    ``column``: it is the name of a column of the clip table.
    """

    name: str
    default: int | float | str | None = None
    meaning: str = ""
    column: bool = False


@dataclass(frozen=True)
class Question:
    """A query with a name. ``asks`` says what is asked, ``tells`` what the answer shows; ``needs`` has the tables that
    not every store has, and what to do without."""

    name: str
    asks: str
    tells: str
    sql: str
    parameters: tuple[Parameter, ...]
    needs: Mapping[str, str]

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values to ask it with: the defaults, and what was given in their stead.

        :raises QueryError: a value for a parameter that it does not have.
        """
        known = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise QueryError(f"the question @{self.name} has no parameter {name!r}{_like(name, known)}; {takes}")
        return {each.name: each.default for each in self.parameters if each.default is not None} | dict(given)

    def bound(self, given: Mapping[str, Any], columns: Callable[[], Collection[str]]) -> tuple[str, dict[str, Any]]:
        """Its SQL with the columns that it is about in their places, and the values of its other parameters.

        :param given: as for :meth:`values`. :param columns: gives those of the clip table; called where one is named.
        :raises QueryError: a parameter that it does not have, or a column that is not there.
        """
        values, sql = self.values(given), self.sql
        for each in self.parameters:
            if each.column and each.name in values:
                found = self._column(each.name, str(values.pop(each.name)), columns())
                sql = sql.replace(f'"${each.name}"', '"' + found.replace('"', '""') + '"')
        return sql, values

    def _column(self, parameter: str, name: str, columns: Collection[str]) -> str:
        """The column of a name, whose case does not count where there is no other."""
        if name in columns:
            return name
        alike = [each for each in columns if each.lower() == name.lower()]
        if len(alike) == 1:
            return alike[0]
        raise QueryError(
            f"the question @{self.name} takes the column {name!r} of clips as its {parameter}, and there is none"
            f"{_like(name, columns)}; the columns are {', '.join(columns)}; give one with -p {parameter} COLUMN"
        )

    def require(self, tables: Collection[str], location: str) -> None:
        """Refuse a store that lacks a table that the question needs.

        :param tables: the names of those that it has. :param location: what a user calls it.
        :raises MismatchError: one is missing; it says what to do.
        """
        for table, remedy in self.needs.items():
            if table not in tables:
                raise MismatchError(f"the question @{self.name} needs the table {table}, not in {location}; {remedy}")

    def render(self) -> str:
        """A line for people, and one for each parameter."""
        lines = [f"@{self.name}  {self.asks}"]
        for each in self.parameters:
            default = ("COLUMN" if each.column else "VALUE") if each.default is None else each.default
            lines.append(f"    -p {each.name} {default}" + (f": {each.meaning}" if each.meaning else ""))
        return "\n".join(lines)


def asked(
    sql: str,
    values: Mapping[str, Any],
    tables: Collection[str],
    location: str,
    columns: Callable[[], Collection[str]] = tuple,
) -> tuple[str, dict[str, Any]]:
    """SQL as it was given, or that of the question ``@NAME``, and the values of its parameters.

    :param tables: the names of those that the store has. :param location: what a user calls it.
    :param columns: gives the names of the columns of its clip table.
    :raises QueryError: there is no question of that name, or it has not these parameters, or the store not its column.
    :raises MismatchError: the store lacks a table that the question needs.
    """
    if not sql.startswith("@"):
        return sql, dict(values)
    found = question(sql[1:].strip())
    found.require(tables, location)
    return found.bound(values, columns)


@cache
def questions() -> dict[str, Question]:
    """All questions that ship with the tool, by name."""
    files = {file.name.removesuffix(".sql"): file for file in resources.files(__name__).iterdir()}
    return {name: parse(name, files[name].read_text("utf-8")) for name in sorted(files) if name != files[name].name}


def question(name: str) -> Question:
    """A question by its name.

    :raises QueryError: there is none of that name; similar names are given.
    """
    known = questions()
    if name not in known:
        raise QueryError(f"there is no question @{name}{_like(name, known)}; the questions are {', '.join(known)}")
    return known[name]


def parse(name: str, text: str) -> Question:
    """The question in a file; see the module for its form.

    :raises ValueError: it does not begin with a comment, or there is no SQL.
    """
    lines = text.strip().splitlines()
    head = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    sql = "\n".join(lines[head:]).strip()
    if not head or not sql:
        raise ValueError(f"{name}.sql needs a line of comment, which says what is asked, and SQL below it")
    asks, *more = (line.removeprefix("--").strip() for line in lines[:head])
    tells, parameters, needs = [], dict[str, Parameter](), {}
    for line in more:
        if match := _PARAMETER.fullmatch(line):
            default, column = match["default"].strip(), bool(match["quote"])
            value = default if column else _value(default)
            parameters[match["name"]] = Parameter(match["name"], value, match["meaning"], column)
        elif match := _NEEDS.fullmatch(line):
            needs[match["table"]] = match["remedy"]
        else:
            tells.append(line)
    for quote, used in re.findall(r"(\"?)\$(\w+)\1", sql):
        parameters.setdefault(used, Parameter(used, column=bool(quote)))
    return Question(name, asks, " ".join(tells), sql, tuple(parameters.values()), needs)


def _value(text: str) -> int | float | str:
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _like(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""
