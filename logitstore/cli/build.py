"""``logitstore build``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from logitstore.cli.command import again, answer, command, first_speaks, next_steps, note, resumable
from logitstore.jobs.options import BuildOptions
from logitstore.options import JsonOptions, Option


@dataclass(frozen=True, kw_only=True)
class _Build(JsonOptions, BuildOptions):
    dry_run: Annotated[
        bool,
        Option("Write nothing: scan the audio, time a batch of each teacher, see what of their answers survives the "
               "recipe, and say what the build would do.",
               group="Running"),
    ] = False  # fmt: skip


@command("build", _Build)
def build_command(options: _Build) -> None:
    """Run teachers over SOURCE and store what they say of every augmented view.

    The same command goes on where an interrupted one stopped, and several of them may fill one store.

    \b
    Example:
      logitstore build audio/ --out store --teacher ced:ced_base.pt --views 10
      logitstore build clips.csv --audio-root audio --where "fold < 5" --out store --teacher runs/t1 --teacher runs/t2
    """  # fmt: skip
    from logitstore.cli.afterwards import after_build, audio_root
    from logitstore.cli.progress import BuildProgress, build_document, render_build, working
    from logitstore.jobs.build.job import prepare, run

    first_speaks()
    with working("scanning the source and loading the teachers"):
        job = prepare(options)
    if options.dry_run:
        for each in job.notes:
            note(each)
        from logitstore.jobs.build.dry_run import dry_run

        with working("asking the teachers"):
            plan = dry_run(job)
        answer(options, plan.to_dict(), plan.render())
        next_steps(again("--dry-run"))
        return
    with resumable(), BuildProgress(job.views, job.manifest.clip_seconds) as progress:
        summary = run(job, progress.callbacks())
    answer(options, build_document(summary), render_build(summary))
    root = audio_root(options.source, options.audio_root)
    next_steps(*after_build(summary.location, root, len(summary.failures), summary.missing, again()))
