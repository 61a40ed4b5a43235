"""``logitstore inspect``: a summary of a store, or the answer to a question in SQL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from logitstore.errors import StoreError, UsageError

if TYPE_CHECKING:
    from logitstore.store.reader import Store

_SUFFIXES = {".csv": "csv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_FORMATS = ("table", "csv", "json", "ndjson", "parquet")  # formats.FORMATS, which would import pyarrow
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@click.command("inspect")
@click.argument("location", metavar="STORE")
@click.argument("sql", required=False)
@click.option("--also", multiple=True, metavar="STORE", help="Another store, read as one with STORE. Repeatable.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(_FORMATS),
    help="How to print the answer.  [default: by the ending of --output, else table]",
)
@click.option("--output", metavar="FILE", help="Write there and not to the terminal; needed for parquet.")
@click.option(
    "-p",
    "--parameter",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A value for $NAME in the SQL: a number where it looks like one, text otherwise. Repeatable.",
)
def inspect_command(
    location: str,
    sql: str | None,
    also: tuple[str, ...],
    kind: str | None,
    output: str | None,
    parameters: tuple[tuple[str, str], ...],
) -> None:
    """Summarise STORE, or ask it a question in SQL; `-` reads the SQL from stdin, `@` lists questions that are ready.

    Tables, joined by clip: clips, views, topk, members (where kept), teachers, failures, blocks. DESCRIBE shows the
    columns of one. The SQL is one SELECT; it can change nothing, and reads nothing but the store. The clips of stores
    that are read as one are numbered through, STORE's first.

    \b
    Example:
      logitstore inspect store
      logitstore inspect store "DESCRIBE views"
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      logitstore inspect store "SELECT * FROM topk WHERE class = \\$name" -p name Dog --format csv
      logitstore inspect store "FROM views" --output views.parquet
      logitstore inspect store @classes -p limit 5
      logitstore inspect store --also store-2 "SELECT count(*) FROM clips"
    """
    from logitstore.store.reader import open_store

    store = open_store([location, *also])
    if output is not None:
        for place in (location, *also):
            _refuse_inside(place, output)
    kind = kind or (_SUFFIXES.get(Path(output).suffix.lower()) if output else None) or "table"
    if sql is None:
        if parameters:
            raise UsageError("-p gives values to SQL, and there is no SQL; write it after the store")
        if kind not in ("table", "json"):
            raise UsageError(f"the summary cannot be printed as {kind}; allowed are table and json, or give SQL")
        with _destination(output) as file:
            file.write(_summary_text(store, kind).encode())
        return
    if sql == "@":
        from logitstore.queries import questions

        click.echo("\n".join(each.render() for each in questions().values()))
        return
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; give --output FILE")
    _answer(store, _read_stdin() if sql == "-" else sql, kind, output, typed(parameters))


def _answer(store: Store, sql: str, kind: str, output: str | None, parameters: dict[str, Any]) -> None:
    from logitstore.cli.common import stderr
    from logitstore.cli.formats import write
    from logitstore.store.sql.query import stream_query

    on_terminal = output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    with stream_query(store, sql, parameters) as reader, _destination(output) as file:
        rows = write(reader, kind, file, width)
    if on_terminal and kind == "table" and stderr.is_terminal:
        stderr.print(f"({rows:,} {'row' if rows == 1 else 'rows'})", style="dim")


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


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"the SQL on stdin is not UTF-8 text (byte {error.start}); give it as UTF-8") from error


def _refuse_inside(store: str, output: str) -> None:
    from logitstore.store.storage import is_url

    if not is_url(store) and Path(output).resolve().is_relative_to(Path(store).resolve()):
        raise UsageError(f"--output {output} lies in the store, which is read-only; give a place outside of it")


@contextlib.contextmanager
def _destination(output: str | None) -> Iterator[IO[bytes]]:
    """Stdout, or a file that takes its name only when it is whole."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(output)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        file = part.open("xb")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}; give another place") from error
    try:
        with file:
            yield file
        part.replace(target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise UsageError(f"--output {output} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _summary_text(store: Store, kind: str) -> str:
    import json

    from logitstore.store.summary import summarise

    found = summarise(store)
    if kind == "json":
        return json.dumps(found.to_dict(), ensure_ascii=False, indent=1) + "\n"
    return found.render() + "\n"
