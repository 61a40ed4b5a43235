"""``logitstore inspect``: a summary of a store, or the answer to a question in SQL."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from logitstore.cli.command import answer, command, echo, stderr, streamed
from logitstore.errors import UsageError
from logitstore.files import check_out, open_out
from logitstore.options import STORE_WEIGHT, JsonOptions, Option, SpreadsheetOptions, StoreWeights
from logitstore.options import Store as StoreOption
from logitstore.sql.limits import Limits, size
from logitstore.texts import in_json

if TYPE_CHECKING:
    from logitstore.store.reader import Store

_SUFFIXES = {
    ".csv": "csv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet", ".txt": "table",
}  # fmt: skip
_DEFAULTS = Limits()
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


@dataclass(frozen=True, kw_only=True)
class _Inspect(JsonOptions, SpreadsheetOptions):
    store: StoreOption
    sql: Annotated[
        str | None,
        Option(
            "A question: one SELECT, `@NAME` for one that is ready, `@` to list those, `-` for stdin.",
            group="Question",
            argument=True,
        ),
    ] = None
    also: Annotated[
        Sequence[str],
        Option("Another store, read as one with STORE. Repeatable.", group="Question", metavar="STORE", names="store"),
    ] = ()
    store_weights: Annotated[StoreWeights, STORE_WEIGHT.but(group="Question")] = None
    verdicts: Annotated[
        str | None,
        Option("The file of the table `verdicts`.", group="Question", metavar="FILE", names="file",
               default="verdicts.csv in the folder that STORE lies in, where there is one"),
    ] = None  # fmt: skip
    audio_root: Annotated[
        Sequence[str],
        Option(
            "The folder, or packed audio, that the clips' paths are relative to: then there is the table levels, how "
            "loud they are. Repeatable, one for each store, in their order.",
            group="Question",
            metavar="DIR",
            names="audio",
        ),
    ] = ()
    parameters: Annotated[
        Mapping[str, Any],
        Option("A value for $NAME in the SQL: a number where it looks like one, text otherwise. Repeatable.",
               group="Question", flag="parameter", short="p", metavar="NAME VALUE", words=2, parse=typed),
    ] = field(default_factory=dict)  # fmt: skip
    timeout: Annotated[
        str | None,
        Option("End a query that has worked for so long; 0 for no limit.", group="Question", metavar="SECONDS",
               default=f"{_DEFAULTS.timeout:g}"),
    ] = None  # fmt: skip
    memory: Annotated[
        str | None,
        Option("Memory that a query may use before it goes on in temporary files, or ends where it cannot, as in 2GB.",
               group="Question", metavar="SIZE", default=size(_DEFAULTS.memory)),
    ] = None  # fmt: skip
    temp_space: Annotated[
        str | None,
        Option("Temporary files that a query may make; 0 for none.", group="Question", metavar="SIZE",
               default=size(_DEFAULTS.temp_space)),
    ] = None  # fmt: skip
    format: Annotated[
        Literal["table", "csv", "json", "ndjson", "parquet"] | None,
        Option("How the answer is written.", group="Output", default="by the ending of --out, else table"),
    ] = None
    out: Annotated[
        str | None,
        Option("Write there and not to the terminal; needed for parquet.", group="Output", short="o", metavar="FILE",
               old={"--output": None}),
    ] = None  # fmt: skip


@command("inspect", _Inspect)
def inspect_command(options: _Inspect) -> None:
    """Summarise STORE, or ask it a question in SQL; `-` reads the SQL from stdin, `@` lists questions that are ready.

    Tables, joined by clip: clips, views, topk, members (where kept), levels (with --audio-root), verdicts (where given),
    teachers, failures, blocks. DESCRIBE shows the columns of one. The SQL is one SELECT, or EXPLAIN of one; it can
    change nothing, reads nothing but the store, and ends at its limits. The clips of stores that are read as one are
    numbered through, STORE's first; stores of the same clips, seed and recipe are one ensemble, by class.

    \b
    Example:
      logitstore inspect store
      logitstore inspect store "DESCRIBE views"
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      logitstore inspect store "SELECT * FROM topk WHERE class = \\$name" -p name Dog --format csv
      logitstore inspect store "FROM views" --out views.parquet
      logitstore inspect store @classes -p limit 5
      logitstore inspect store --audio-root audio @loudest
      logitstore inspect store --also store-2 "SELECT count(*) FROM clips"
    """
    from logitstore.store.reader import open_store

    sql, output, parameters = options.sql, options.out, options.parameters
    if options.json and options.format is not None:
        raise UsageError("--json and --format are both given; give one of them")
    kind = _format(options.format, output)
    places = [options.store, *options.also]
    if sql is not None and (Path(sql) / "zarr.json").is_file():  # no SELECT is called so
        places, sql = [options.store, sql, *options.also], None
    store = open_store(places, audio_root=list(options.audio_root) or None, weights=options.store_weights)
    if store.audible:
        _ = store.audio  # a folder that is not there is an error whatever is asked
    store.verdicts = options.verdicts
    if output is not None:
        for place in places:
            _refuse_inside(place, output)
    if sql is None:
        if parameters:
            raise UsageError("-p gives values to SQL, and there is no SQL; write it after the store")
        if kind not in ("table", "json"):
            raise UsageError(f"the summary cannot be printed as {kind}; allowed are table and json, or give SQL")
        _summarise(store, kind, options)
        return
    if sql == "@":
        from logitstore.queries import questions

        ready = questions().values()
        named = [{"name": each.name, "asks": each.asks} for each in ready]
        answer(options, {"questions": named}, "\n".join(each.render() for each in ready))
        return
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; give --out FILE")
    limits = Limits.of(options.timeout, options.memory, options.temp_space)
    _answer(store, _read_stdin() if sql == "-" else sql, kind, options, limits)


def _format(asked: str | None, output: str | None) -> str:
    """The format of the answer: what was asked for, else what the name of the file says, else a table.

    :raises UsageError: the file cannot be written, or its name says another format, or none that there is.
    """
    if output is None:
        return asked or "table"
    ending = Path(output).suffix.lower()
    check_out(output, endings=() if asked or not ending else tuple(_SUFFIXES))
    if asked and asked != _SUFFIXES.get(ending, asked):
        raise UsageError(f"--out is {output!r} and --format {asked}; leave --format out, or give another name")
    return asked or _SUFFIXES.get(ending, "table")


def _answer(store: Store, sql: str, kind: str, options: _Inspect, limits: Limits) -> None:
    from logitstore.cli.formats import write, write_object
    from logitstore.store.sql.query import stream_query

    output = options.out
    on_terminal = output is None and not options.json and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    with stream_query(store, sql, options.parameters, limits) as reader:
        if options.json and output is None:
            streamed(lambda file: write_object(reader, file))
            return
        with _destination(output) as file:
            rows = write(reader, kind, file, width, spreadsheet=options.spreadsheet_safe, printed=on_terminal)
    if options.json:
        answer(options, {"out": output, "format": kind, "row_count": rows}, "")
    if on_terminal and kind == "table" and stderr.is_terminal:
        stderr.print(f"({rows:,} {'row' if rows == 1 else 'rows'})", style="dim")


def _read_stdin() -> str:
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


def _summarise(store: Store, kind: str, options: _Inspect) -> None:
    import json

    from logitstore.store.summary import summarise

    found = summarise(store)
    if options.out is not None:
        text = json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if kind == "json" else found.render()
        with open_out(options.out) as file:
            file.write(f"{text}\n".encode("utf-8", "surrogateescape"))
        if options.json:
            answer(options, {"out": options.out, "format": kind}, "")
    elif options.json:
        answer(options, found.to_dict(), "")
    else:
        echo(in_json(found.to_dict(), indent=1) if kind == "json" else found.render())
