"""``logitstore import`` and ``logitstore export``: to and from what other people's code reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from logitstore.cli.common import stderr

_SHARED = (
    click.option("--out", required=True, help="Where the store is, or shall be."),
    click.option("--value-bits", default=8, show_default=True, help="Bits a probability: 4 to 8, or 16 for float16."),
    click.option("--shard-clips", type=int, help="Clips a block.  [default: by the number of clips, at most 4096]"),
    click.option("--strict", is_flag=True, help="Stop if a clip is missing or has another length."),
    click.option("--workers", type=int, help="Threads that read headers.  [default: the number of cores]"),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.group("import")
def import_group() -> None:
    """Make a store of scores that somebody else has published."""


@import_group.command("ced")
@click.argument("folder", metavar="DIR")
@click.option(
    "--audio-root", required=True, metavar="A", help="Folder of audio, or packed audio, that holds the clips."
)
@click.option("--classes", required=True, metavar="FILE", help="Names of the classes, one a line, in CED's order.")
@click.option("--recipe", default="ced", show_default=True, help="ced, none, or a YAML file: what CED was run with.")
@click.option("--frames", type=int, help="Frames that batches were padded to.  [default: the longest clip's]")
@click.option("--chunk-seconds", default=10.0, show_default=True, help="Length of CED's chunks.")
@click.option("--epochs", type=int, help="Import the first epochs only.  [default: all]")
@click.option("--keep-seeds", is_flag=True, help="Keep CED's seeds beside the draws: 4 bytes a view, for `export`.")
@_shared
def import_ced_command(**options: Any) -> None:
    """CED's logits in DIR (logits_ep1_0.h5, logits_ep1_0.parquet, …) as a store. Needs the extra `ced`.

    Every epoch becomes a view, and every seed the draw that it stands for. meta.pt is not read: if CED was not run
    with its published settings, say with which by --recipe.

    \b
    Example:
      logitstore import ced logits/chunk_10 --audio-root audio --classes audioset.txt --out store
    """
    from logitstore.jobs.imports.ced import CedImport, import_ced

    with _bar("views") as advance:
        summary = import_ced(CedImport(**options), advance)
    click.echo(summary.render())


@import_group.command("npy")
@click.argument("array", metavar="LOGITS.npy")
@click.option("--names", required=True, metavar="FILE", help="Text file: line i is the name of the clip of row i.")
@click.option("--classes", required=True, metavar="FILE", help="Names of the classes, one a line, a column each.")
@click.option(
    "--scores",
    required=True,
    type=click.Choice(["logits", "probabilities"]),
    help="What the array holds; logits go through a sigmoid.",
)
@click.option("--audio-root", metavar="A", help="Folder of audio, or packed audio, that holds the clips.")
@click.option("--topk", type=int, help="Classes kept of every clip.  [default: 20, or all where there are fewer]")
@click.option("--clip-seconds", default=10.0, show_default=True, help="Length of every view.")
@click.option("--sample-rate", default=16000, show_default=True, help="Rate of every view in Hz.")
@_shared
def import_npy_command(**options: Any) -> None:
    """A dense array of scores, one row a clip, as a store of one unaugmented view.

    \b
    Example:
      logitstore import npy ensemble.npy --names names.txt --classes audioset.txt --scores logits \\
          --audio-root audio --sample-rate 32000 --out store
    """
    from logitstore.jobs.imports.npy import NpyImport, import_npy

    with _bar("views") as advance:
        summary = import_npy(NpyImport(**options), advance)
    click.echo(summary.render())


@click.command("export")
@click.argument("store")
@click.option("--format", "kind", required=True, type=click.Choice(["parquet", "ced"]), help="What to write.")
@click.option("--out", required=True, help="A Parquet file, or the folder for CED's files; it must not exist.")
@click.option("--class-indices", is_flag=True, help="Parquet: classes by number (uint16), not by name.")
def export_command(store: str, kind: str, out: str, class_indices: bool) -> None:
    """Write STORE in a format that others read: one flat table, or the files that CED's training reads.

    `ced` needs the extra `ced`, and a store without augmentation or one that was imported with --keep-seeds: CED's code
    replays views from seeds of its own, which no other store has.

    \b
    Example:
      logitstore export store --format parquet --out targets.parquet
      logitstore export store --format ced --out logits/chunk_10
    """
    from logitstore.jobs.export import export_ced, export_parquet
    from logitstore.store.reader import open_store

    with _bar("views") as advance:
        if kind == "parquet":
            summary = export_parquet(open_store(store), out, class_indices=class_indices, advance=advance)
        elif class_indices:
            raise click.UsageError("--class-indices is for --format parquet; CED's files hold numbers in any case")
        else:
            summary = export_ced(open_store(store), out, advance=advance)
    click.echo(summary)


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that counts; nothing where stderr is not a terminal."""
    bar = Progress(
        TextColumn("{task.completed:,.0f} " + unit),
        BarColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
    task = bar.add_task(unit, total=None)
    with bar:
        yield lambda count: bar.advance(task, count)
