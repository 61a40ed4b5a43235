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
from logitstore.sql.limits import Limits, size

if TYPE_CHECKING:
    from logitstore.store.reader import Store

_SUFFIXES = {".csv": "csv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_FORMATS = ("table", "csv", "json", "ndjson", "parquet")  # formats.FORMATS, which would import pyarrow
_DEFAULTS = Limits()
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
@click.option(
    "--timeout",
    metavar="SECONDS",
    help=f"End a query that has worked for so long; 0 for no limit.  [default: {_DEFAULTS.timeout:g}]",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory that a query may use before it goes on in temporary files, or ends where it cannot, as in 2GB.  "
    f"[default: {size(_DEFAULTS.memory)}]",
)
@click.option(
    "--temp-space",
    metavar="SIZE",
    help=f"Temporary files that a query may make; 0 for none.  [default: {size(_DEFAULTS.temp_space)}]",
)
def inspect_command(
    location: str,
    sql: str | None,
    also: tuple[str, ...],
    kind: str | None,
    output: str | None,
    parameters: tuple[tuple[str, str], ...],
    timeout: str | None,
    memory: str | None,
    temp_space: str | None,
) -> None:
    """Summarise STORE, or ask it a question in SQL; `-` reads the SQL from stdin.

    Tables, joined by clip: clips, views, topk, members (where kept), teachers, failures, blocks. DESCRIBE shows the
    columns of one. The SQL is one SELECT, or EXPLAIN of one; it can change nothing, reads nothing but the store, and
    ends at its limits. The clips of stores that are read as one are numbered through, STORE's first.

    \b
    Example:
      logitstore inspect store
      logitstore inspect store "DESCRIBE views"
      logitstore inspect store "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY n DESC LIMIT 5"
      logitstore inspect store "SELECT * FROM topk WHERE class = \\$name" -p name Dog --format csv
      logitstore inspect store "FROM views" --output views.parquet
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
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; give --output FILE")
    limits = Limits.of(timeout, memory, temp_space)
    _answer(store, _read_stdin() if sql == "-" else sql, kind, output, typed(parameters), limits)


def _answer(store: Store, sql: str, kind: str, output: str | None, parameters: dict[str, Any], limits: Limits) -> None:
    from logitstore.cli.common import stderr
    from logitstore.cli.formats import write
    from logitstore.store.query import stream_query

    on_terminal = output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    with stream_query(store, sql, parameters, limits) as reader, _destination(output) as file:
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


# the summary


def summary(store: Store) -> dict[str, Any]:
    """What a store is and holds, as plain JSON values; no block is decoded.

    ``clips`` counts the clip table, ``clips_failed`` those of finished blocks that cannot be decoded; ``views`` is the
    highest view of any block plus one, ``views_stored`` the views that have targets, summed over clips; a block is
    missing where a shard lacks some of the views; ``percent_of_pcm`` relates the store to its clips as 16-bit PCM.
    """
    import numpy as np
    import pyarrow as pa

    from logitstore.store.clip_files import clip_files
    from logitstore.store.combined import members
    from logitstore.view.lengths import samples_at

    manifest = store.manifest
    clips, samples, shards = 0, 0, 0
    columns: dict[str, None] = {}
    files = [(each.manifest.shard_clips, file) for each in members(store) for file in clip_files(each).values()]
    for shard_clips, file in files:
        clips += file.metadata.num_rows
        shards += -(-file.metadata.num_rows // shard_clips)
        columns |= dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches(columns=["length", "rate"], use_threads=False):
            length, rate = (column.cast(pa.int64()).to_numpy() for column in batch.columns)
            samples += int(samples_at(length, np.maximum(rate, 1), manifest.sample_rate).sum())
    covered: dict[int, int] = {}
    for commit in store.commits:
        covered[commit.shard] = covered.get(commit.shard, 0) + commit.views
    finished = sum(views == store.views for views in covered.values())
    size, stored = store.size(), store.view_count()
    return {
        "store": store.location,
        "format_version": manifest.format_version,
        "clips": clips,
        "clips_failed": len({commit.first_clip + row for commit in store.commits for row, _ in commit.failed}),
        "views": store.views,
        "views_stored": stored,
        "blocks": len(store.commits),
        "shards": shards,
        "shards_finished": finished if store.views else 0,
        "topk": manifest.topk,
        "classes": len(manifest.classes),
        "scores": manifest.scores,
        "value_bits": _common([each.manifest.value_bits for each in members(store)]),
        "members_kept": manifest.keep_members,
        "relations": _relations(store),
        "recipe": manifest.recipe.to_dict(),
        "seed": _common([each.manifest.seed for each in members(store)]),
        "clip_seconds": manifest.clip_seconds,
        "sample_rate": manifest.sample_rate,
        "teachers": [
            {"name": member.name, "weight": member.weight, "digest": member.digest} for member in manifest.teachers
        ],
        "average": _common([each.manifest.average for each in members(store)]),
        "bytes": size,
        "bytes_a_view": size / stored if stored else None,
        "percent_of_pcm": 100 * size / (2 * samples) if samples else None,
        "columns": [name for name in columns if name not in ("path", "start", "length", "rate")],
    }


def _relations(store: Store) -> dict[str, Any] | None:
    """What is kept for the similarity losses: frames T and components or None, and bytes a view; None for nothing."""
    from logitstore.store.combined import members
    from logitstore.store.relations import relation_bytes

    spec, views = store.manifest.relations, store.view_count()
    if spec is None:
        return None
    found = [relation_bytes(each.storage.sizes()) for each in members(store)]
    sizes = {name: sum(each[name] for each in found) for name in found[0]}
    return {
        "frames": spec.frames,
        "clips": spec.clips,
        "pooled": spec.pooled,
        "bytes_a_view": {name: size / views for name, size in sizes.items() if size} if views else {},
    }


def _common(values: list[Any]) -> Any:
    """What all stores have, or a list where they differ."""
    return values[0] if all(value == values[0] for value in values) else values


def _summary_text(store: Store, kind: str) -> str:
    import json

    found = summary(store)
    if kind == "json":
        return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    return render_summary(found) + "\n"


def render_summary(found: dict[str, Any]) -> str:
    """The lines that ``logitstore inspect STORE`` prints."""
    missing = found["shards"] - found["shards_finished"]
    ops = ", ".join(op["op"] for op in found["recipe"]["ops"]) or "no augmentation"
    values = "float16" if found["value_bits"] == 16 else f"{found['value_bits']} bits"
    size = f"{found['bytes']:,} bytes"
    if found["bytes_a_view"] is not None:
        size += f", {found['bytes_a_view']:.1f} a view"
    if found["percent_of_pcm"] is not None:
        size += f", {found['percent_of_pcm']:.2f} % of the clips' 16-bit PCM"
    weights = len({member["weight"] for member in found["teachers"]}) > 1
    teachers = [
        member["name"] + (f" x{member['weight']:g}" if weights else "") + f" ({member['digest'][:12]})"
        for member in found["teachers"]
    ]
    state = "finished"
    if missing:
        state = f"{missing:,} shard{'s' * (missing > 1)} not finished: run the same build again"
    tables = [
        "clips",
        "views",
        "topk",
        *(["members"] if found["members_kept"] else []),
        "teachers",
        "failures",
        "blocks",
    ]
    lines = [
        ("store", f"{found['store']}, format {found['format_version']}"),
        ("clips", f"{found['clips']:,} of {found['clip_seconds']:g} s at {found['sample_rate']:,} Hz"
                  + (f", {found['clips_failed']:,} failed" if found["clips_failed"] else "")),
        ("views", f"{found['views']:,} a clip, {found['views_stored']:,} stored"),
        ("blocks", f"{found['blocks']:,} in {found['shards_finished']:,} of {found['shards']:,} shards, {state}"),
        ("targets", f"top {found['topk']:,} of {found['classes']:,} classes, {found['scores']}, {values}"),
        ("recipe", f"{found['recipe']['name']}: {ops}; seed {found['seed']}"),
        ("teachers", f"{len(teachers)}, mean of {found['average']}: {', '.join(teachers)}"),
        ("size", size),
        ("columns", ", ".join(found["columns"]) or "none but path, start, length, rate"),
        ("tables", ", ".join(tables)),
    ]  # fmt: skip
    kept = found["relations"]
    if kept is not None:
        from logitstore.store.relations import relation_sizes

        shown = [f"Gram matrices of {kept['frames']} frames"] if kept["frames"] else []
        shown += [f"vectors of {kept['clips']} components"] if kept["clips"] else []
        lines.insert(7, ("relations", f"{' and '.join(shown)}; {relation_sizes(kept['bytes_a_view'], 1)}"))
    return "\n".join(f"{name:<11}{text}" for name, text in lines)
