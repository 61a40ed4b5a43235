"""``logitstore teachers show``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from logitstore.cli.command import answer, command, next_steps
from logitstore.jobs.options import TEACHER
from logitstore.options import JsonOptions
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from teachers.teacher import Teacher

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Show(JsonOptions):
    spec: Annotated[str, TEACHER.but(help="The teacher.", argument=True, metavar="SPEC", flag=None, group="Options")]


@command("show", _Show)
def show_command(options: _Show) -> None:
    """Show what a teacher states of itself: what it takes and gives, its classes, its licence, its digest.

    That is its contract, which a store keeps in its manifest. Nothing is heard.

    \b
    Example:
      logitstore teachers show runs/teacher-1
    """
    from logitstore.cli.progress import working
    from teachers.registry import load_teacher

    with working("loading the teacher"):
        teacher = load_teacher(options.spec)
    answer(options, {"spec": teacher.spec} | asdict(teacher.contract), in_lines(_lines(teacher)))
    next_steps(f"logitstore teachers check {shlex.quote(teacher.spec)}")


def _lines(teacher: Teacher) -> list[str]:
    says = teacher.contract
    window = "any length, as a whole" if says.max_seconds is None else f"up to {says.max_seconds:.2f} s, as a whole"
    if says.window is not None:
        length, hop = (samples / says.sample_rate for samples in (says.window.samples, says.window.hop))
        window = f"windows of {length:g} s every {hop:g} s, {_pooled(says.window.pooling)}"
        if says.window.least > 1:
            window += f"; a last one with less than {says.window.least / says.sample_rate:g} s of the view is left out"
    masks = "the waveform, and masks of time and frequency" if says.takes_masks else "the waveform alone"
    if isinstance(says.fill, Mapping):
        masks += f", filled with {says.fill['value']:g} on the {says.fill['stage']}"
    scores = says.scores if says.output == "probabilities" else f"{says.scores} of its logits"
    names = ", ".join(says.classes[:_SHOWN]) + (", …" if len(says.classes) > _SHOWN else "")
    rows: list[tuple[str, str | None]] = [
        ("teacher", teacher.spec),
        ("name", says.name),
        ("rate", f"{says.sample_rate:,} Hz"),
        ("hears", window),
        ("learnt from", None if says.trained_seconds is None else f"clips of {says.trained_seconds:g} s"),
        ("takes", masks),
        ("front end", None if says.front_end is None else _pairs(says.front_end)),
        ("gives", scores + ("" if says.pooling is None else f", {_pooled(says.pooling)} over its frames")),
        ("classes", f"{len(says.classes):,}: {names}"),
        ("vocabulary", _vocabulary(teacher)),
        ("features", "over time, for --relations" if says.has_features else "none"),
        ("frames", "says when, for --frames" if says.has_frames else "none: one answer for a whole view"),
        ("further", _pairs(says.arguments) or None),
        ("licence", (says.licence or "not stated") + (", not for commercial use" if says.non_commercial else "")),
        ("origin", says.origin),
        ("digest", says.digest),
        *(("not covered", what) for what in says.not_covered),
    ]
    return [f"{name:<11}  {text}" for name, text in rows if text is not None]


def _pooled(pooling: str) -> str:
    return "their maximum" if pooling == "max" else "their mean"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {format(value, 'g') if isinstance(value, float) else value}" for key, value in values.items()
    )


def _vocabulary(teacher: Teacher) -> str:
    from logitstore.classes import audioset, mids

    known = [mid for mid in teacher.contract.mids or mids(teacher.classes) if mid is not None]
    if not known:
        return "names of its own"
    return f"{len(known):,} of AudioSet's {len(audioset())} MIDs"
