"""``logitstore teachers list``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from logitstore.cli.command import answer, command
from logitstore.options import JsonOptions
from logitstore.texts import in_lines
from teachers.registry import Kind, kinds


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


def _lines(found: list[Kind]) -> list[str]:
    wide = max(len(model.name) for kind in found for model in kind.published) if any(k.published for k in found) else 0
    lines = []
    for kind in found:
        lines += ["", kind.form, f"    {kind.help}"]
        for model in kind.published:
            measured = "      " if model.map is None else f".{round(1000 * model.map):03} mAP"[:8]
            classes = "" if model.classes is None else f"{model.classes:,} classes"
            lines.append(
                f"    {model.name:<{wide}}  {model.sample_rate / 1000:>4g} kHz  {classes:>13}  {measured:>8}  "
                f"{model.licence}, {model.origin}"
            )
    return lines[1:]
