"""``logitstore doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from logitstore.cli.command import answer, command, next_steps
from logitstore.errors import LogitstoreError
from logitstore.options import JsonOptions
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logitstore.jobs.doctor import Findings

_MARKS = {"ok": "ok", "missing": "--", "broken": "!!"}


@dataclass(frozen=True, kw_only=True)
class _Doctor(JsonOptions):
    pass


@command("doctor", _Doctor)
def doctor_command(options: _Doctor) -> None:
    """Say whether everything works here: versions, devices, kinds of sound, extras, space, and that views replay.

    Everything is tried: packages are imported, sound of each kind is written and read back, views are drawn and
    rendered and compared with what they were when this release was made. The exit code is 1 where something that is
    needed does not work.

    \b
    Example:
      logitstore doctor
      logitstore doctor --json | jq '.extras[] | select(.state == "missing") | .fix'
    """
    from logitstore.cli.progress import working
    from logitstore.jobs.doctor import doctor

    with working("importing what is needed, and trying it"):
        found = doctor()
    wrong = None
    if found.problems:
        wrong = LogitstoreError(
            f"not everything works here: {found.problems[0]}"
            + (f"; and {len(found.problems) - 1} more, marked !! above" if len(found.problems) > 1 else "")
        )
    answer(options, found.to_dict(), in_lines(_lines(found)), wrong)
    if wrong is not None:
        raise wrong
    next_steps("logitstore teachers", "logitstore demo")


def _lines(found: Findings) -> Iterator[str]:
    yield "versions"
    for each in found.packages:
        took = "" if each.seconds is None or each.seconds < 0.05 else f"imported in {each.seconds:.1f} s"
        yield _row(each.state, each.name, f"{each.version or 'missing':<14} {each.allowed:<14} {took}".rstrip())
        if each.state == "broken":
            yield from _more(each.reason, each.fix)
    machine = found.machine
    yield "devices"
    yield _row("ok", "CPU", f"{machine.system}, {machine.cores} core{'s' * (machine.cores > 1)}")
    if machine.memory_bytes is not None:
        yield _row("ok", "memory", f"{machine.memory_bytes / 2**30:.1f} GiB")
    for number, name in enumerate(machine.gpus):
        yield _row("ok", f"cuda:{number}", name)
    if machine.no_gpu is not None:
        yield _row("missing", "GPU", "none")
        yield from _more(machine.no_gpu)
    yield "sound, written and read back"
    for sound in found.sounds:
        yield _row(sound.state, sound.name, f"{sound.endings:<14} {'' if sound.state == 'broken' else sound.reason}")
        if sound.state == "broken":
            yield from _more(sound.reason)
    yield "extras"
    for extra in found.extras:
        yield _row(extra.state, extra.name, extra.brings)
        if extra.state == "missing":
            yield from _more(f"not here: {', '.join(extra.lacks)}", extra.fix)
    yield "space"
    for space in found.space:
        free = "" if space.free_bytes is None else f"{space.free_bytes / 2**30:,.1f} GiB free"
        yield _row(space.state, space.use, f"{free:<14} {space.path}")
        if space.reason:
            yield from _more(space.reason)
    yield "replay"
    for trial in found.replay:
        yield _row(trial.state, trial.name, "")
        if trial.reason:
            yield from _more(trial.reason)
    yield ""
    if found.problems:
        yield f"what is marked !! is needed and does not work ({found.seconds:.1f} s)"
    else:
        missing = sum(extra.state == "missing" for extra in found.extras)
        extras = f"; {missing} extra{'s' * (missing != 1)} can be added" if missing else ""
        yield f"all that is needed works here{extras} ({found.seconds:.1f} s)"


def _row(state: str, name: str, text: str) -> str:
    return f"  {_MARKS[state]}  {name:<15} {text}".rstrip()


def _more(*texts: str) -> Iterator[str]:
    for text in filter(None, texts):
        yield f"        {text}"
