"""``logitstore export``: a store as files that other people's code reads."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click

from logitstore.cli.command import answer, command, next_steps, note
from logitstore.files import check_out, open_out
from logitstore.options import JsonOptions, Option, Store
from logitstore.texts import one_line


@dataclass(frozen=True, kw_only=True)
class _Export(JsonOptions):
    store: Store
    format: Annotated[
        Literal["parquet", "ced", "hf", "listing"],
        Option("What to write: one flat Parquet table; the files that CED's training reads; a folder for the Hugging "
               "Face hub, with the store, a table and a card; or the listing that a store on a web server needs.",
               group="Output"),
    ]  # fmt: skip
    out: Annotated[
        str,
        Option("The file for parquet and listing, the folder for the others; it must not exist.", group="Output",
               short="o", metavar="PLACE"),
    ]  # fmt: skip
    class_indices: Annotated[
        bool, Option("In Parquet, give classes by their number (uint16) and not by their name.", group="Output")
    ] = False
    title: Annotated[
        str | None,
        Option("What the card of a folder for the hub calls it.", group="Output", metavar="TEXT",
               default="the name of --out"),
    ] = None  # fmt: skip
    licence: Annotated[
        str | None,
        Option("The licence of the targets on the card, as the hub names it, such as cc-by-4.0.", group="Output",
               metavar="NAME", default="not stated"),
    ] = None  # fmt: skip


@command("export", _Export)
def export_command(options: _Export) -> None:
    """Write STORE in a format that others read: a flat table, CED's files, a data set for the Hugging Face hub.

    `ced` needs the extra `ced`, and a store without augmentation or one that was imported with --keep-seeds: CED's code
    replays views from seeds of its own, which no other store has.

    \b
    Example:
      logitstore export store --format parquet --out targets.parquet
      logitstore export store --format ced --out logits/chunk_10
      logitstore export store --format hf --licence cc-by-4.0 --out esc10-yamnet
      logitstore export store --format listing --out store/listing.json
    """
    from logitstore.cli.progress import counting
    from logitstore.jobs.export import export_ced, export_parquet
    from logitstore.jobs.export_hub import export_hub, listing_of, upload_line
    from logitstore.store.names import LISTING
    from logitstore.store.reader import open_store

    out = options.out
    if options.class_indices and options.format != "parquet":
        raise click.UsageError("--class-indices is for --format parquet")
    for flag, value in (("--title", options.title), ("--licence", options.licence)):
        if value is not None and options.format != "hf":
            raise click.UsageError(f"{flag} is for the card of --format hf")
    store = open_store(options.store)
    with counting("exporting", "views") as advance:
        if options.format == "parquet":
            summary = export_parquet(store, out, class_indices=options.class_indices, advance=advance)
        elif options.format == "ced":
            summary = export_ced(store, out, advance=advance)
        elif options.format == "hf":
            title = Path(out).name if options.title is None else options.title
            summary = export_hub(store, out, title=title, licence=options.licence, advance=advance)
        else:
            check_out(out, endings=(".json",))
            content = listing_of(store)
            with open_out(out) as file:
                file.write(content)
            summary = f"the listing of {store.location} written to {out}"
    answer(options, {"store": options.store, "out": out, "format": options.format}, one_line(summary))
    if options.format == "listing" and Path(out).name != LISTING:
        note(f"a web server needs it beside the store's zarr.json, under the name {LISTING}")
    if options.format == "hf":
        next_steps(upload_line(out))
    elif options.format == "parquet":
        next_steps(f"python -c {shlex.quote(f'import duckdb; print(duckdb.read_parquet({out!r}).limit(5))')}")
    elif options.format == "ced":
        next_steps(f"logitstore verify {shlex.quote(options.store)}")
