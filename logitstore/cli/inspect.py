"""``logitstore inspect``: a summary of a store, or the answer to a question in SQL."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from logitstore.cli.ask import Manner, ask, described, document, list_questions, named, printed, read_stdin, show, typed
from logitstore.cli.command import answer, command, echo, next_steps, streamed
from logitstore.errors import UsageError
from logitstore.files import open_out
from logitstore.options import STORE_WEIGHT, JsonOptions, Option, SpreadsheetOptions, StoreWeights
from logitstore.options import Store as StoreOption
from logitstore.sql.limits import Limits, size
from logitstore.texts import in_json

if TYPE_CHECKING:
    from logitstore.store.reader import Store

_DEFAULTS = Limits()


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
    print_sql: Annotated[
        bool, Option("Print the SQL of @NAME, what it tells and takes, and do not ask it.", group="Question",
                     flag="sql", key="print-sql")
    ] = False  # fmt: skip
    shell: Annotated[
        bool,
        Option("Ask one question after the other at a prompt, or those of a script on stdin.", group="Question"),
    ] = False
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
        Literal["table", "markdown", "csv", "json", "ndjson", "parquet"] | None,
        Option("How the answer is written.", group="Output", default="by the ending of --out, else table"),
    ] = None
    transpose: Annotated[
        bool, Option("Show the columns of a row below each other, one row after the other.", group="Output")
    ] = False
    explain: Annotated[
        bool,
        Option("Say on stderr, or in --json, what was decoded for the answer, and how DuckDB went about it.",
               group="Output"),
    ] = False  # fmt: skip
    out: Annotated[
        str | None,
        Option("Write there and not to the terminal; needed for parquet.", group="Output", short="o", metavar="FILE",
               old={"--output": None}),
    ] = None  # fmt: skip


@command("inspect", _Inspect)
def inspect_command(options: _Inspect) -> None:
    """Summarise STORE, or ask it a question in SQL; `-` reads the SQL from stdin, `@` lists questions that are ready.

    Tables, joined by clip: clips, views, topk, answers, members, frames (where kept), levels (with --audio-root),
    verdicts (where given), teachers, recipe, ops, failures, blocks. DESCRIBE shows the columns of one. The SQL is one
    SELECT, or EXPLAIN of one; it can change nothing, reads nothing but the store, and ends at its limits. The clips of
    stores that are read as one are numbered through, STORE's first; stores of the same clips, seed and recipe are one
    ensemble, by class.

    \b
    Example:
      logitstore inspect store
      logitstore inspect store "DESCRIBE views"
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      logitstore inspect store "SELECT * FROM topk WHERE class = \\$name" -p name Dog --format csv
      logitstore inspect store "FROM views" --out views.parquet
      logitstore inspect store @classes -p limit 5
      logitstore inspect store --audio-root audio @loudest
      logitstore inspect store @classes --sql
      logitstore inspect store "FROM views LIMIT 1" --transpose
      logitstore inspect store "SELECT clip FROM clips WHERE fold < 5" --out some.parquet
      logitstore inspect store --shell
      logitstore inspect store --also store-2 "SELECT count(*) FROM clips"
    """
    from logitstore.store.reader import open_store

    sql, parameters = options.sql, options.parameters
    if options.json and options.format is not None:
        raise UsageError("--json and --format are both given; give one of them")
    limits = Limits.of(options.timeout, options.memory, options.temp_space)
    manner = Manner(
        options.format, options.out, limits, options.transpose, options.explain, options.spreadsheet_safe
    )  # fmt: skip
    places = [options.store, *options.also]
    if sql is not None and (Path(sql) / "zarr.json").is_file():  # no SELECT is called so
        places, sql = [options.store, sql, *options.also], None
    _check(options, sql, manner)
    store = open_store(places, audio_root=list(options.audio_root) or None, weights=options.store_weights)
    if store.audible:
        _ = store.audio  # a folder that is not there is an error whatever is asked
    store.verdicts = options.verdicts
    manner.check(places)
    if options.shell:
        from logitstore.cli.prompt import Shell

        Shell(store, places, manner, parameters).run()
    elif sql is None:
        _summarise(store, manner.kind, options)
    elif options.print_sql:
        question = named(sql)
        answer(options, printed(question, parameters, store), described(question, parameters, store))
    elif sql == "@":
        _list(store, options)
    elif options.json and options.out is None:
        _answer_in_json(store, read_stdin() if sql == "-" else sql, options, manner)
    else:
        rows, explanation = ask(store, read_stdin() if sql == "-" else sql, parameters, manner)
        if options.json:
            took = {} if explanation is None else {"explain": explanation.to_dict()}
            answer(options, {"out": options.out, "format": manner.kind, "row_count": rows, **took}, "")
        else:
            show(explanation)


def _check(options: _Inspect, sql: str | None, manner: Manner) -> None:
    """Refuse options that do not go together.

    :raises UsageError: naming them.
    """
    if options.shell:
        taken = {"SQL": sql, "--json": options.json, "--out": options.out, "--sql": options.print_sql}
        for name, value in taken.items():
            if value:
                raise UsageError(f"--shell asks for queries itself; leave {name} out")
        return
    for name, value in (("--explain", options.explain), ("--sql", options.print_sql)):
        if value and sql in (None, "@"):
            raise UsageError(f"{name} is about one question, and there is none; write SQL or @NAME after the store")
    if options.print_sql and options.explain:
        raise UsageError(
            "--sql prints a question and does not ask it, so there is nothing to --explain; give one of them"
        )
    if sql is not None:
        return
    if options.parameters:
        raise UsageError("-p gives values to SQL, and there is no SQL; write it after the store")
    if manner.kind not in ("table", "json"):
        raise UsageError(f"the summary cannot be printed as {manner.kind}; allowed are table and json, or give SQL")
    if options.transpose:
        raise UsageError("--transpose is for the answer to a question, and there is none; write SQL or @NAME")


def _list(store: Store, options: _Inspect) -> None:
    """Print the questions that are ready."""
    from logitstore.queries import questions
    from logitstore.store.sql.tables import tables

    has = tables(store)
    documents = [
        document(each, {}) | {"answerable": all(table in has for table in each.needs)} for each in questions().values()
    ]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    answer(options, {"questions": documents}, list_questions(store, width))
    place = shlex.quote(options.store)
    next_steps(f"logitstore inspect {place} @classes", f"logitstore inspect {place} @classes --sql")


def _answer_in_json(store: Store, sql: str, options: _Inspect, manner: Manner) -> None:
    from logitstore.cli.formats import write_object
    from logitstore.store.sql.explain import Explanation
    from logitstore.store.sql.query import stream_query

    explanation = Explanation() if options.explain else None
    with stream_query(store, sql, options.parameters, manner.limits, explanation) as reader:

        def write(file: IO[str]) -> None:
            write_object(reader, file)
            if explanation is not None:
                explanation.finish()
                file.write(f'"explain": {in_json(explanation.to_dict())}, ')

        streamed(write)


def _summarise(store: Store, kind: str, options: _Inspect) -> None:
    import json

    from logitstore.cli.afterwards import after_store
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
        if kind == "table":
            next_steps(*after_store(options.store, found.failed))
