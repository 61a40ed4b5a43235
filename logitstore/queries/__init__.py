"""Questions: SQL that ships with the program, one a file. ``@NAME`` in the place of SQL asks that of ``NAME.sql``.

A question is one SELECT over the tables of a store. Lines of comment come first; the first of them says what is asked.
"""

from __future__ import annotations

from importlib import resources

from logitstore.errors import QueryError

_FOLDER = resources.files(__name__)


def names() -> dict[str, str]:
    """What each question asks, by its name."""
    files = {file.name.removesuffix(".sql"): file for file in _FOLDER.iterdir() if file.name.endswith(".sql")}
    return {name: files[name].read_text("utf-8").splitlines()[0].removeprefix("--").strip() for name in sorted(files)}


def asked(sql: str) -> str:
    """SQL as it was given, or that of the question ``@NAME``.

    :raises QueryError: there is no question of that name.
    """
    return question(sql[1:].strip()) if sql.startswith("@") else sql


def question(name: str) -> str:
    """The SQL of a question.

    :raises QueryError: there is none of that name; those that there are, are listed.
    """
    known = names()
    if name not in known:
        listed = "; ".join(f"@{each}: {about}" for each, about in known.items())
        raise QueryError(f"there is no question @{name}; there are: {listed}")
    return (_FOLDER / f"{name}.sql").read_text("utf-8")
