"""``logitstore teachers check``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from logitstore.cli.command import answer, command, next_steps, note
from logitstore.errors import ModelOutputError
from logitstore.jobs.options import CheckOptions
from logitstore.options import JsonOptions


@dataclass(frozen=True, kw_only=True)
class _Check(JsonOptions, CheckOptions):
    pass


@command("check", _Check)
def check_command(options: _Check) -> None:
    """Load a teacher and try it; exit code 1 if it breaks what is asked of every teacher.

    Shapes and ranges of its answers, the same answers twice, alone and in a batch, silence, sound at full scale, masks,
    the end of a view, half precision, speed; and what of its answers survives the recipe, op by op. Without SOURCE it
    hears sounds that are made here, which say little of how it fares on yours.

    \b
    Example:
      logitstore teachers check runs/teacher-1 audio/
      logitstore teachers check python:my_teacher:factory --recipe gentle
    """
    from logitstore.cli.afterwards import AUDIO, with_teachers
    from logitstore.cli.progress import working
    from logitstore.jobs.check import check

    with working("trying the teacher"):
        found = check(options)
    for line in found.notes:
        note(line)
    wrong = None
    if found.failed:
        wrong = ModelOutputError(
            f"teacher {found.teacher!r} breaks what is asked of every teacher: {', '.join(found.failed)}; what to do "
            "is told above"
        )
    answer(options, found.to_dict(), found.render(), wrong)
    if wrong is not None:
        raise wrong
    audio = shlex.join(options.source) or AUDIO
    next_steps(f"logitstore build {audio} {with_teachers([options.spec])} --out store")
