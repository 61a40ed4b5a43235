"""``logitstore import``: stores of what other people have published."""

from __future__ import annotations

import click

from logitstore.cli.command import SETTINGS, command
from logitstore.jobs.options import CedImport, NpyImport


@command("ced", CedImport)
def import_ced_command(options: CedImport) -> None:
    """Make a store of CED's logits in DIR (logits_ep1_0.h5, logits_ep1_0.parquet, …). Needs the extra `ced`.

    Every epoch becomes a view, and every seed the draw that it stands for. meta.pt is not read: if CED was not run
    with its published settings, say with which by --recipe.

    \b
    Example:
      logitstore import ced logits/chunk_10 --audio-root audio --classes audioset.txt --out store
    """
    from logitstore.cli.progress import counting
    from logitstore.jobs.imports.ced import import_ced

    with counting("views") as advance:
        summary = import_ced(options, advance)
    click.echo(summary.render())


@command("npy", NpyImport)
def import_npy_command(options: NpyImport) -> None:
    """Make a store of a dense array of scores: one unaugmented view of every clip.

    \b
    Example:
      logitstore import npy ensemble.npy --names names.txt --classes audioset.txt --scores logits \\
          --audio-root audio --sample-rate 32000 --out store
    """
    from logitstore.cli.progress import counting
    from logitstore.jobs.imports.npy import import_npy

    with counting("views") as advance:
        summary = import_npy(options, advance)
    click.echo(summary.render())


@click.group("import", context_settings=SETTINGS, commands=[import_ced_command, import_npy_command])
def import_group() -> None:
    """Make a store of scores that somebody else has published."""
