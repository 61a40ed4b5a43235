"""``logitstore teachers init``."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from logitstore.cli.command import answer, command, next_steps
from logitstore.errors import UsageError
from logitstore.options import JsonOptions, Option
from logitstore.texts import in_lines

if TYPE_CHECKING:
    from teachers.model_file import Described
    from teachers.propose import Line

_SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class _Init(JsonOptions):
    file: Annotated[str, Option("The model, FILE.onnx or FILE.tflite.", argument=True, metavar="FILE")]
    force: Annotated[bool, Option("Write over a FILE.json that is there.", group="Output")] = False


@command("init", _Init)
def init_command(options: _Init) -> None:
    """Write FILE.json, which says what a model file is, as far as the model itself tells.

    Each key is shown with whether it was told or is a guess, and why. What is left open stands in the file as null, and
    the model is no teacher before somebody who knows it has filled that in.

    \b
    Example:
      logitstore teachers init tagger.onnx
    """
    from logitstore.files import open_out
    from logitstore.models.sidecar import sidecar_path
    from teachers.propose import propose

    path = Path(options.file)
    target = sidecar_path(path)
    if target.exists() and not options.force:
        raise UsageError(f"{str(target)!r} is there already; --force writes over it")
    found, lines = propose(path)
    document = {line.key: line.value for line in lines}
    with open_out(str(target), "FILE.json") as file:
        file.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
    answer(
        options,
        {
            "file": str(path),
            "sidecar": str(target),
            "inputs": _tensors(found.inputs),
            "outputs": _tensors(found.outputs),
            "keys": [asdict(line) for line in lines],
        },
        in_lines(_lines(path, target, found, lines)),
    )
    next_steps(f"logitstore teachers check {shlex.quote(f'{path.suffix[1:]}:{path}')}")


def _tensors(described: tuple[tuple[str, str, tuple[Any, ...]], ...]) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind, "shape": list(shape)} for name, kind, shape in described]


def _lines(path: Path, target: Path, found: Described, lines: tuple[Line, ...]) -> list[str]:
    shown = [f"{path}: takes {_all(found.inputs)}; gives {_all(found.outputs)}", f"wrote {target}"]
    wide = max(len(line.key) for line in lines)
    for line in lines:
        value = json.dumps(line.value, ensure_ascii=False)
        value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
        shown.append(f"  {line.key:<{wide}}  {line.known:<5}  {value}: {line.why}")
    still = [line.key for line in lines if line.known == "open"]
    guessed = [line.key for line in lines if line.known == "guess"]
    if still:
        shown.append(f"fill in {', '.join(still)}" + (f", and check {', '.join(guessed)}" if guessed else ""))
    elif guessed:
        shown.append(f"check {', '.join(guessed)}")
    return shown


def _all(described: tuple[tuple[str, str, tuple[Any, ...]], ...]) -> str:
    return ", ".join(f"{name} {kind} ({', '.join(map(str, shape))})" for name, kind, shape in described)
