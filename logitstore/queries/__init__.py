"""Questions that ship with the tool: one SQL query a file, ``NAME.sql``, whose header says what the answer tells.

A file begins with comment lines of the form ``-- key: text``, and the SQL follows:

=====================  ===============================================================================================
``title``              one line, what is asked
``tells``              what the answer shows; repeated for more lines
``needs``              a table that not every store has, and what to do about it: ``members: build with …``
``$name = value``      a parameter of the query, its default, and after a colon what it is for
=====================  ===============================================================================================

To add a question, add its file: ``logitstore inspect STORE @`` lists it and ``logitstore inspect STORE @NAME`` asks it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from logitstore.errors import MismatchError, UsageError

_HEADER = re.compile(r"--\s*(?P<key>\$?\w+)\s*(?P<sign>[:=])\s*(?P<text>.*?)\s*")


@dataclass(frozen=True)
class Parameter:
    """A value that a question takes: its name, what it is by default, and what it is for."""

    name: str
    default: int | float | str
    meaning: str


@dataclass(frozen=True)
class Question:
    """A named query. ``tells`` says what its answer shows; ``needs`` are tables, and what to do without them."""

    name: str
    title: str
    tells: str
    sql: str
    parameters: tuple[Parameter, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values to ask it with: the defaults, and what was given in their stead.

        :raises UsageError: a value for a parameter that it does not have.
        """
        known = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise UsageError(f"the question {self.name} has no parameter {name!r}{_like(name, known)}; {takes}")
        return {parameter.name: parameter.default for parameter in self.parameters} | dict(given)

    def require(self, tables: Collection[str], location: str) -> None:
        """Refuse a store that lacks a table that the question needs.

        :param tables: the names of those that it has. :param location: what a user calls it.
        :raises MismatchError: one is missing; it says what to do.
        """
        for table, remedy in self.needs.items():
            if table not in tables:
                raise MismatchError(
                    f"the question {self.name} needs the table {table}, which {location} lacks; {remedy}"
                )

    def render(self) -> str:
        """A few lines for people: what it tells and takes."""
        lines = [f"@{self.name}  {self.title}"]
        lines += [f"    -p {each.name} {each.default}: {each.meaning}" for each in self.parameters]
        return "\n".join(lines)


@cache
def questions() -> dict[str, Question]:
    """All questions that ship with the tool, by name."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    names = sorted((file.name.removesuffix(".sql"), file) for file in files)
    return {name: parse(name, file.read_text(encoding="utf-8")) for name, file in names}


def question(name: str) -> Question:
    """A question by its name, with or without the ``@``.

    :raises UsageError: there is none of that name; similar names are given.
    """
    name = name.removeprefix("@")
    found = questions().get(name)
    if found is None:
        known = list(questions())
        raise UsageError(f"there is no question @{name}{_like(name, known)}; the questions are {', '.join(known)}")
    return found


def parse(name: str, text: str) -> Question:
    """The question in a file; see the module for its form.

    :raises ValueError: there is no title, no SQL, or a header line of another form.
    """
    lines = text.strip().splitlines()
    head = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    single: dict[str, str] = {}
    tells, parameters, needs = [], [], {}
    for line in lines[:head]:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise ValueError(f"{name}.sql: the header line {line!r} is not of the form `-- key: text`")
        key, content = match["key"], match["text"]
        if key.startswith("$") and match["sign"] == "=":
            value, _, meaning = content.partition(":")
            parameters.append(Parameter(key[1:], _value(value.strip()), meaning.strip()))
        elif key == "tells":
            tells.append(content)
        elif key == "needs":
            table, _, remedy = content.partition(":")
            needs[table.strip()] = remedy.strip()
        elif key == "title":
            single[key] = content
        else:
            raise ValueError(f"{name}.sql: the header has {key!r}; allowed are title, tells, needs and $parameter")
    sql = "\n".join(lines[head:]).strip()
    if "title" not in single or not sql:
        raise ValueError(f"{name}.sql needs a line `-- title: …` and SQL below its header")
    return Question(name, single["title"], " ".join(tells), sql, tuple(parameters), needs)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("'\"")


def _like(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""
