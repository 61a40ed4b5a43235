"""``logitstore teachers list``."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass

from logitstore.cli.afterwards import AUDIO
from logitstore.cli.command import answer, command, next_steps
from logitstore.models.sidecar import non_commercial
from logitstore.options import JsonOptions
from logitstore.texts import in_lines
from teachers.registry import Kind, kinds

_WIDTH, _GAP = 80, "    "


@dataclass(frozen=True, kw_only=True)
class _List(JsonOptions):
    pass


@command("list", _List)
def list_command(options: _List) -> None:
    """List the kinds of teachers, how each is named, and the published models that each opens.

    mAP is as published, on AudioSet's evaluation set. Nothing of a model comes with this package.

    \b
    Example:
      logitstore teachers list
    """
    found = kinds()
    answer(options, {"kinds": [asdict(kind) for kind in found]}, in_lines(_lines(found)))
    next_steps("logitstore teachers check SPEC", f"logitstore tag --teacher SPEC {AUDIO}")


def _lines(found: list[Kind]) -> list[str]:
    """What can stand behind --teacher, within 80 columns but for addresses."""
    wide = max((len(model.name) for kind in found for model in kind.published), default=0)
    lines = ["what can stand behind --teacher, with published models and their licences"]
    barred = False
    for kind in found:
        lines += ["", kind.form, *_wrapped(kind.help)]
        if kind.extra is not None:
            how = "" if kind.ready else f", which is not here: pip install 'logitstore[{kind.extra}]'"
            lines.append(f"{_GAP}needs the extra {kind.extra}{how}")
        origins = {model.origin for model in kind.published}
        for model in kind.published:
            measured = "" if model.map is None else f".{round(1000 * model.map):03} mAP"
            classes = "" if model.classes is None else f"{model.classes:,} classes"
            rate, mark = f"{model.sample_rate / 1000:g} kHz", " *" if non_commercial(model.licence) else ""
            barred |= bool(mark)
            lines.append(f"{_GAP}{model.name:<{wide}} {rate:>6} {classes:>13} {measured:>8}  {model.licence}{mark}")
            if len(origins) > 1:
                lines.append(f"{_GAP}    {model.origin}")
        if len(origins) == 1:
            lines.append(f"{_GAP}from {origins.pop()}")
    lines += ["", "mAP is on AudioSet's evaluation set, as published. Licences are of the weights;"]
    lines.append("every store keeps what `teachers show SPEC` finds in the file at hand.")
    return [*lines, "* not for commercial use"] if barred else lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=_GAP, subsequent_indent=_GAP, break_on_hyphens=False)
