"""``logitstore export``: a store as files that other people's code reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import click

from logitstore.cli.command import answer, command
from logitstore.options import JsonOptions, Option, Store
from logitstore.texts import one_line


@dataclass(frozen=True, kw_only=True)
class _Export(JsonOptions):
    store: Store
    format: Annotated[
        Literal["parquet", "ced"],
        Option("What to write: one flat Parquet table, or the files that CED's training reads.", group="Output"),
    ]
    out: Annotated[
        str,
        Option("The Parquet file, or the folder for CED's files; it must not exist.", group="Output", short="o",
               metavar="PLACE"),
    ]  # fmt: skip
    class_indices: Annotated[
        bool, Option("In Parquet, give classes by their number (uint16) and not by their name.", group="Output")
    ] = False


@command("export", _Export)
def export_command(options: _Export) -> None:
    """Write STORE in a format that others read: one flat table, or the files that CED's training reads.

    `ced` needs the extra `ced`, and a store without augmentation or one that was imported with --keep-seeds: CED's code
    replays views from seeds of its own, which no other store has.

    \b
    Example:
      logitstore export store --format parquet --out targets.parquet
      logitstore export store --format ced --out logits/chunk_10
    """
    from logitstore.cli.progress import counting
    from logitstore.jobs.export import export_ced, export_parquet
    from logitstore.store.reader import open_store

    if options.class_indices and options.format == "ced":
        raise click.UsageError("--class-indices is for --format parquet; CED's files hold numbers in any case")
    store = open_store(options.store)
    with counting("exporting", "views") as advance:
        if options.format == "parquet":
            summary = export_parquet(store, options.out, class_indices=options.class_indices, advance=advance)
        else:
            summary = export_ced(store, options.out, advance=advance)
    answer(options, {"store": options.store, "out": options.out, "format": options.format}, one_line(summary))
