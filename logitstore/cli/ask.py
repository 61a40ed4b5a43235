"""How ``inspect`` answers a question: in a format, on the terminal or in a file, with what it took to answer it."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from logitstore.cli.command import next_steps, stderr
from logitstore.errors import QueryError, UsageError
from logitstore.files import check_out, open_out
from logitstore.sql.limits import Limits
from logitstore.texts import printable

if TYPE_CHECKING:
    from logitstore.queries import Parameter, Question
    from logitstore.store.reader import Store
    from logitstore.store.sql.explain import Explanation

#: The formats of an answer by the ending of its file.
ENDINGS = {
    ".csv": "csv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet", ".txt": "table",
    ".md": "markdown",
}  # fmt: skip
_TABLES = ("table", "markdown")
_UNBROKEN = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def typed(parameters: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Values of ``-p``: int or float where the text is one, the text itself otherwise."""
    values: dict[str, Any] = {}
    for name, text in parameters:
        name = name.removeprefix("$")
        if not name.isidentifier():
            raise UsageError(f"-p {name!r} is no name of a parameter; give letters, digits and _, as in -p fold 5")
        if name in values:
            raise UsageError(f"-p {name} is given twice; give each parameter one value")
        if re.fullmatch(r"[+-]?\d+", text):
            values[name] = int(text)
        else:
            values[name] = float(text) if _NUMBER.fullmatch(text) else text
    return values


@dataclass(frozen=True)
class Manner:
    """How an answer is written: its format, by ``out``'s ending else; where to, None for the terminal; and so on."""

    format: str | None = None
    out: str | None = None
    limits: Limits = field(default_factory=Limits)
    transpose: bool = False
    explain: bool = False
    spreadsheet: bool = False

    @property
    def kind(self) -> str:
        """The format: what was asked for, else what the name of the file says, else a table."""
        return self.format or ENDINGS.get(Path(self.out or "").suffix.lower(), "table")

    def check(self, places: Sequence[str]) -> None:
        """Refuse what cannot be written, before any work.

        :param places: the stores, which are read-only.
        :raises UsageError: the file cannot be written, lies in a store, or its name says another format, or none that
            there is; or a format that does not go with the rest.
        """
        if self.out is not None:
            ending = Path(self.out).suffix.lower()
            check_out(self.out, endings=() if self.format or not ending else tuple(ENDINGS))
            if self.format and self.format != ENDINGS.get(ending, self.format):
                raise UsageError(
                    f"--out is {self.out!r} and --format {self.format}; leave --format out, or give another name"
                )
            for place in places:
                _refuse_inside(place, self.out)
        if self.transpose and self.kind not in _TABLES:
            raise UsageError(f"--transpose is for {' and '.join(_TABLES)}, and the format is {self.kind}; leave it out")
        if self.kind == "parquet" and self.out is None and sys.stdout.isatty():
            raise UsageError("parquet is not for a terminal; give --out FILE")


def ask(store: Store, sql: str, parameters: Mapping[str, Any], manner: Manner) -> tuple[int, Explanation | None]:
    """Write the answer to a query, and return the number of its rows, and what it took where that was asked for.

    :param sql: or ``@NAME``. :param manner: has been checked.
    """
    from logitstore.cli.formats import write
    from logitstore.store.sql.explain import Explanation
    from logitstore.store.sql.query import stream_query

    on_terminal = manner.out is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    explanation = Explanation() if manner.explain else None
    begun = time.monotonic()
    with stream_query(store, sql, parameters, manner.limits, explanation) as reader:
        numbered = "clip" in reader.schema.names
        metadata = _numbering(store) if numbered and manner.kind == "parquet" else None
        with _destination(manner.out) as file:
            rows = write(
                reader, manner.kind, file, width, spreadsheet=manner.spreadsheet, printed=on_terminal,
                transpose=manner.transpose, metadata=metadata,
            )  # fmt: skip
        if explanation is not None:
            explanation.finish()
    if on_terminal and manner.kind in _TABLES and stderr.is_terminal:
        took = time.monotonic() - begun
        stderr.print(f"({rows:,} {'row' if rows == 1 else 'rows'} in {took:.2f} s)", style="dim")
    if numbered and manner.out is not None and manner.kind in ("parquet", "csv"):
        places = " ".join(shlex.quote(piece.location) for piece in store.pieces)
        next_steps(
            f"train-student {places} --audio-root DIR --clips {shlex.quote(manner.out)} --student cnn4 --out student"
        )
    return rows, explanation


def _numbering(store: Store) -> dict[bytes, bytes]:
    from logitstore.store.subset import numbering

    return numbering(store)


def show(explanation: Explanation | None) -> None:
    """Print to stderr what it took to answer a query, where that was asked for."""
    import textwrap

    if explanation is None:
        return

    for line in explanation.lines():
        indent = " " * (len(line) - len(line.split("  ", 1)[1].lstrip()))
        lines = textwrap.wrap(line, stderr.width, subsequent_indent=indent) if stderr.is_terminal else [line]
        stderr.print("\n".join(lines), soft_wrap=True)
    if explanation.plan is not None:
        stderr.print(f"DuckDB's plan\n{explanation.plan.strip()}", soft_wrap=True)


def list_questions(store: Store, width: int | None) -> str:
    """The questions that are ready, by name: what each asks, and takes; those that need a table last, with the remedy.

    :param width: columns of the terminal; None for any.
    """
    import textwrap

    from logitstore.queries import questions
    from logitstore.store.sql.tables import tables

    has, ready = tables(store), questions().values()
    wide = max(len(each.name) for each in ready) + 1
    groups: dict[str, list[str]] = {"": []}
    for each in ready:
        takes = "".join(f"  {_given(one).replace(' ', _UNBROKEN)}" for one in each.parameters)
        text = f"{f'@{each.name}':<{wide}}  {each.asks}{takes}"
        lines = textwrap.wrap(text, width, subsequent_indent=" " * (wide + 2)) if width is not None else [text]
        lacks = "; ".join(remedy for table, remedy in each.needs.items() if table not in has)
        groups.setdefault(lacks, []).extend(line.replace(_UNBROKEN, " ") for line in lines)
    shown = groups.pop("")
    for remedy, lines in groups.items():
        heading = f"To ask these, {remedy}:"
        shown += ["", *(textwrap.wrap(heading, width) if width is not None else [heading]), *lines]
    return "\n".join(shown)


def _given(parameter: Parameter) -> str:
    missing = "COLUMN" if parameter.column else "VALUE"
    return f"-p {parameter.name} {missing if parameter.default is None else shlex.quote(str(parameter.default))}"


def described(question: Question, given: Mapping[str, Any], store: Store) -> str:
    """A question as SQL to run, under what it asks, tells and takes.

    :param given: values of parameters, which are shown in the place of their defaults.
    :raises QueryError: it has no such parameter, or the store has no column of that name.
    """
    import textwrap

    values = question.values(given)
    lines = [question.asks, *textwrap.wrap(question.tells, 110)]
    for each in question.parameters:
        value = "has no default: give one" if each.name not in values else f"= {values[each.name]}"
        called = f'"${each.name}"' if each.column else f"${each.name}"
        lines.append(f"{called} {value}" + (f": {each.meaning}" if each.meaning else ""))
    lines += [f"needs {table}: {remedy}" for table, remedy in question.needs.items()]
    comment = "\n".join(f"-- {printable(line)}" for line in lines)
    return f"{comment}\n{_sql(question, given, store)}"


def _sql(question: Question, given: Mapping[str, Any], store: Store) -> str:
    """A question's SQL with the columns in it that are given, or that the store has by their default names."""
    from logitstore.store.sql.tables import clips_table

    columns = clips_table(store).schema.names
    try:
        return question.bound(given, lambda: columns)[0]
    except QueryError:
        if any(each.column and each.name in given for each in question.parameters):
            raise
        return question.sql


def document(question: Question, given: Mapping[str, Any]) -> dict[str, Any]:
    """A question as JSON values, with the values of its parameters, but without its SQL."""
    values = question.values(given)
    takes = [
        {"name": each.name, "value": values.get(each.name), "meaning": each.meaning} for each in question.parameters
    ]
    return {
        "name": question.name, "asks": question.asks, "tells": question.tells, "parameters": takes,
        "needs": dict(question.needs),
    }  # fmt: skip


def printed(question: Question, given: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """A question as JSON values, with its SQL."""
    return document(question, given) | {"sql": _sql(question, given, store)}


def named(sql: str) -> Question:
    """The question that ``@NAME`` names.

    :raises QueryError: it is SQL, or there is no such question.
    """
    from logitstore.queries import question

    if not sql.startswith("@"):
        raise QueryError("--sql prints the SQL of a question that is ready; give @NAME (@ lists them)")
    return question(sql[1:].strip())


def read_stdin() -> str:
    """The text on stdin.

    :raises UsageError: it is not UTF-8.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"the SQL on stdin is not UTF-8 text (byte {error.start}); give it as UTF-8") from error


def _refuse_inside(store: str, output: str) -> None:
    from logitstore.store.storage import is_url

    if not is_url(store) and Path(output).resolve().is_relative_to(Path(store).resolve()):
        raise UsageError(f"--out {output} lies in the store, which is read-only; give a place outside of it")


@contextlib.contextmanager
def _destination(output: str | None) -> Iterator[IO[bytes]]:
    """Stdout, or a file; see :func:`logitstore.files.open_out`."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with open_out(output) as file:
        yield file
