"""``logitstore import``: stores of what other people have published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from logitstore.cli.command import SETTINGS, answer, command, next_steps
from logitstore.jobs.options import CedImport, NpyImport
from logitstore.options import JsonOptions

if TYPE_CHECKING:
    from logitstore.jobs.imports.shared import ImportSummary


@dataclass(frozen=True, kw_only=True)
class _Ced(JsonOptions, CedImport):
    pass


@dataclass(frozen=True, kw_only=True)
class _Npy(JsonOptions, NpyImport):
    pass


@command("ced", _Ced)
def import_ced_command(options: _Ced) -> None:
    """Make a store of CED's logits in DIR (logits_ep1_0.h5, logits_ep1_0.parquet, …). Needs the extra `ced`.

    Every epoch becomes a view, and every seed the draw that it stands for. meta.pt is not read: if CED was not run
    with its published settings, say with which by --recipe.

    \b
    Example:
      logitstore import ced logits/chunk_10 --audio-root audio --classes audioset.txt --out store
    """
    from logitstore.cli.afterwards import AUDIO, after_build
    from logitstore.cli.progress import counting
    from logitstore.jobs.imports.ced import import_ced

    with counting("importing", "views") as advance:
        summary = import_ced(options, advance)
    answer(options, import_document(summary), summary.render())
    next_steps(*after_build(summary.location, options.audio_root or AUDIO, len(summary.failures), 0, ""))


@command("npy", _Npy)
def import_npy_command(options: _Npy) -> None:
    """Make a store of a dense array of scores: one unaugmented view of every clip.

    \b
    Example:
      logitstore import npy ensemble.npy --names names.txt --classes audioset.txt --scores logits \\
          --audio-root audio --sample-rate 32000 --out store
    """
    from logitstore.cli.afterwards import AUDIO, after_build
    from logitstore.cli.progress import counting
    from logitstore.jobs.imports.npy import import_npy

    with counting("importing", "views") as advance:
        summary = import_npy(options, advance)
    answer(options, import_document(summary), summary.render())
    next_steps(*after_build(summary.location, options.audio_root or AUDIO, len(summary.failures), 0, ""))


def import_document(summary: ImportSummary) -> dict[str, Any]:
    """What a finished import prints with ``--json``."""
    made = {
        "seconds": summary.seconds,
        "failures": [vars(failure) for failure in summary.failures],
        "notes": list(summary.notes),
    }
    return summary.to_dict() | made


@click.group("import", context_settings=SETTINGS, commands=[import_ced_command, import_npy_command])
def import_group() -> None:
    """Make a store of scores that somebody else has published."""
