"""``logitstore compare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from logitstore.cli.command import answer, command, next_steps
from logitstore.jobs.options import CompareOptions
from logitstore.options import JsonOptions, only
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from logitstore.jobs.compare import Comparison, Side

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class _Compare(JsonOptions, CompareOptions):
    pass


@command("compare", _Compare)
def compare_command(options: _Compare) -> None:
    """Say how far B agrees with A on the same sound, without labels, and what each costs.

    Each is a teacher, a student, an ONNX file or a store; classes are joined by MID or name. Models hear the clips of
    SOURCE as they are. With a store, what it holds is compared with what the model says of the same views, replayed; of
    a student that was trained from it, on the clips that it held out.

    \b
    Example:
      logitstore compare runs/teacher runs/student audio --where "fold = 5"
      logitstore compare store runs/student audio
      logitstore compare runs/student student.int8.onnx audio --json
    """
    from logitstore.cli.afterwards import after_compare
    from logitstore.cli.progress import of_total
    from logitstore.jobs.compare import compare

    with of_total("comparing", "views") as told:
        found = compare(only(options, CompareOptions), told)
    answer(options, found.to_dict(), render(found))
    next_steps(*after_compare(options.b, options.source, options.audio_root))


def render(found: Comparison) -> str:
    """What both cost, and how far they agree."""
    from logitstore.cli.agreement import agreement_lines, table

    rows = [_side("A", found.a), _side("B", found.b)]
    lines = table(("", "", "classes", "parameters", "MACs", "views/s"), rows, range(2, 6))
    lines += ["", f"compared on {found.heard}, of {found.seconds:g} s" + _where(found), ""]
    lines += agreement_lines(found.agreement)
    if found.failures:
        lines += ["", f"left out: {len(found.failures):,} clips that could not be decoded:"]
        lines += [f"  {path}: {reason}" for path, reason in found.failures[:_MOST_NAMED]]
        lines += ["  …"] if len(found.failures) > _MOST_NAMED else []
    return in_lines(lines)


def _where(found: Comparison) -> str:
    return "" if found.device == "none" else f"; on {found.device}"


def _side(letter: str, side: Side) -> tuple[str, ...]:
    unknown = "-" if side.store else "not known"
    speed = unknown if side.views_per_second is None else f"{side.views_per_second:,.1f}"
    return (
        letter,
        side.spec,
        f"{side.classes:,}",
        unknown if side.parameters is None else f"{side.parameters:,}",
        unknown if side.macs is None else _short(side.macs),
        speed,
    )


def _short(macs: int) -> str:
    return f"{macs / 1e9:,.2f} G" if macs >= 1e9 else f"{macs / 1e6:,.1f} M"
