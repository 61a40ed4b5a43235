"""``logitstore extend``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from logitstore.cli.command import again, answer, command, first_speaks, next_steps, note, resumable
from logitstore.jobs.options import ExtendOptions
from logitstore.options import JsonOptions, Option


@dataclass(frozen=True, kw_only=True)
class _Extend(JsonOptions, ExtendOptions):
    dry_run: Annotated[
        bool, Option("Write nothing: say what would be added, and in which shards.", group="Running")
    ] = False


@command("extend", _Extend)
def extend_command(options: _Extend) -> None:
    """Add the clips of SOURCE to STORE, asking the same teachers in the same way; nothing that is there is touched.

    All else comes from the store: recipe, seed, classes, lengths, precision. A clip that the store has is refused by
    name. The same command goes on where an interrupted one stopped.

    \b
    Example:
      logitstore extend store more-audio/ --teacher ced:ced_base.pt
      logitstore extend store audio/ --skip-known --teacher ced:ced_base.pt
    """  # fmt: skip
    from logitstore.cli.afterwards import after_build, audio_root
    from logitstore.cli.progress import BuildProgress, build_document, render_build, working
    from logitstore.jobs.build import extend
    from logitstore.jobs.build.job import run

    first_speaks()
    with working("scanning the source and loading the teachers"):
        job = extend.prepare_extend(options)
    if options.dry_run:
        for each in job.notes:
            note(each)
        with working("asking the teachers"):
            plan = extend.dry_run(job)
        answer(options, plan.to_dict(), plan.render())
        next_steps(again("--dry-run"))
        return
    with resumable(), BuildProgress(job.views, job.manifest.clip_seconds) as progress:
        summary = run(job, progress.callbacks())
    answer(options, build_document(summary), render_build(summary))
    root = audio_root(options.source, options.audio_root)
    next_steps(*after_build(summary.location, root, len(summary.failures), summary.missing, again()))
