"""``logitstore merge``."""

from __future__ import annotations

from dataclasses import dataclass

from logitstore.cli.command import again, answer, command, next_steps, note, resumable
from logitstore.jobs.options import MergeOptions
from logitstore.options import JsonOptions


@dataclass(frozen=True, kw_only=True)
class _Merge(JsonOptions, MergeOptions):
    pass


@command("merge", _Merge)
def merge_command(options: _Merge) -> None:
    """Write stores that heard the same views (see `build --like`) as one store of the ensemble of all their teachers.

    A class is averaged over the stores that know it. What a store did not keep of a class is estimated: 0.6 of the
    smallest probability that it kept of that view. The same command goes on where an interrupted one stopped, and
    brings the merged store up to stores that have grown.

    \b
    Example:
      logitstore merge --ensemble store store-2 --out joint
      logitstore merge --ensemble store store-2 --store-weight 1 --store-weight 2 --out joint
    """
    from logitstore.cli.afterwards import AUDIO, after_build
    from logitstore.cli.progress import build_document, of_total, render_build
    from logitstore.jobs.merge import MergeProgress, merge

    with resumable(), of_total("merging", "blocks") as advance:
        summary = merge(options, MergeProgress(advance, note))
    answer(options, build_document(summary), render_build(summary))
    next_steps(*after_build(summary.location, AUDIO, len(summary.failures), summary.missing, again()))
