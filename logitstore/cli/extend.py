"""``logitstore extend``."""

from __future__ import annotations

from typing import Any

import click

from logitstore.cli.build import BuildProgress, render_summary
from logitstore.cli.common import resumable, stderr


@click.command("extend")
@click.argument("store")
@click.argument("source")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="A teacher of the store, in its order; see build. Repeatable.",
)
@click.option("--audio-root", metavar="DIR", help="What a manifest's paths are relative to.")
@click.option("--where", metavar="SQL", help="Keep only the rows of the source for which this holds.")
@click.option("--views", type=int, help="Views of every new clip.  [default: as many as the store has]")
@click.option("--skip-known", is_flag=True, help="Leave out clips that the store has, instead of refusing them.")
@click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: the kind that the store was built on]")
@click.option("--shards", metavar="A:B", help="Build only the shards A to B - 1 of the store, as one of several jobs.")
@click.option("--strict", is_flag=True, help="Stop at the first clip that cannot be decoded.")
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed before.")
@click.option("--dry-run", is_flag=True, help="Say what would be added, and in which shards.")
def extend_command(dry_run: bool, **options: Any) -> None:
    """Add the clips of SOURCE to STORE, asking the same teachers in the same way; nothing that is there is touched.

    All else comes from the store: recipe, seed, classes, lengths. A clip that the store has is refused by name. The
    same command goes on where an interrupted one stopped.

    \b
    Example:
      logitstore extend store more-audio/ --teacher ced:ced_base.pt
      logitstore extend store audio/ --skip-known --teacher ced:ced_base.pt
    """  # fmt: skip
    from logitstore.jobs.build import extend
    from logitstore.jobs.build.job import run

    with stderr.status("scanning the source and loading the teachers"):
        job = extend.prepare_extend(extend.ExtendOptions(**options))
    if dry_run:
        click.echo(extend.dry_run(job))
        return
    with resumable(), BuildProgress(job.options.views) as progress:
        summary = run(job, progress.callbacks())
    click.echo(render_summary(summary))
