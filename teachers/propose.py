"""A sidecar for a model file, as far as the model tells: what it says, what is a guess and why, what is left open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitstore.classes import audioset
from logitstore.errors import TeacherError
from logitstore.models.foreign import require_model
from logitstore.models.sidecar import of_metadata
from teachers.model_file import Described, labels_beside, labels_inside

TOLD, GUESS, OPEN = "told", "guess", "open"
#: Usual rates in Hz, and lengths in seconds that models take.
_RATES = (16_000, 32_000, 48_000, 44_100, 22_050, 8_000)
_SECONDS = (0.5, 0.975, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 30.0)
_SAID = {"Sigmoid": "sigmoid", "LOGISTIC": "sigmoid", "Softmax": "softmax", "SOFTMAX": "softmax"}


@dataclass(frozen=True)
class Line:
    """One key of a proposed sidecar: its value, whether it is "told", a "guess" or "open", and why."""

    key: str
    value: Any
    known: str
    why: str


def propose(path: Path) -> tuple[Described, tuple[Line, ...]]:
    """What a model file tells, and the lines of its sidecar.

    :raises TeacherError: it is no ONNX and no TensorFlow Lite file, or one that cannot be opened.
    :raises MissingExtraError: the runtime is not installed.
    """
    kinds = {".onnx": "onnx", ".tflite": "tflite"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise TeacherError(f"{str(path)!r}: sidecars are for files that end in {' or '.join(kinds)}; give one")
    spec = f"{kind}:{path}"
    require_model(spec, path, "a model file")
    if kind == "onnx":
        from teachers.specs.onnx import describe
    else:
        from teachers.specs.tflite import describe
    found = describe(spec, path)
    return found, _lines(path, found)


def _lines(path: Path, found: Described) -> tuple[Line, ...]:
    told = of_metadata(found.metadata)
    lines: dict[str, Line] = {}

    def add(key: str, value: Any, known: str, why: str) -> None:
        lines.setdefault(key, Line(key, value, known, why))

    for key, value in vars(told).items():
        if value is not None:
            add(key, list(value) if isinstance(value, tuple) else value, TOLD, "its metadata say so")
    at = _scores_output(found)
    name, _, shape = found.outputs[at]
    outputs = shape[-1] if shape and isinstance(shape[-1], int) and shape[-1] > 0 else None
    if len(found.outputs) > 1:
        others = ", ".join(f"{each} {list(sizes)}" for each, _, sizes in found.outputs)
        add("output_name", name, GUESS, f"of its outputs {others}")
    _add_classes(add, path, outputs)
    scores = _SAID.get(found.last[at] or "")
    if scores is not None:
        add("scores", scores, TOLD, f"its last op is {found.last[at]}")
        add("output", "probabilities", TOLD, f"its last op is {found.last[at]}")
    else:
        kind = f"its last op is {found.last[at]}" if found.last[at] else "its last op is not known"
        add("scores", None, OPEN, f'{kind}: "sigmoid" where classes go together, "softmax" where one excludes others')
        add("output", "logits", GUESS, f'{kind}, neither a sigmoid nor a softmax; or "probabilities"')
    _add_rate(add, found.inputs[0][2])
    if len(shape) == 3:
        add("pooling", "mean", GUESS, f'it answers frame by frame, {list(shape)}; or "max"')
    order = ("classes", "scores", "sample_rate", "output", "output_name", "pooling")
    return tuple(sorted(lines.values(), key=lambda line: (*order, line.key).index(line.key)))


def _scores_output(found: Described) -> int:
    """The output that is likeliest the scores: one that a sigmoid or softmax gives, else the first."""
    squashed = [at for at, kind in enumerate(found.last) if kind in _SAID]
    return squashed[0] if squashed else 0


def _add_classes(add: Any, path: Path, outputs: int | None) -> None:
    inside, beside = labels_inside(path, outputs), labels_beside(path, outputs)
    if inside:
        name, names = next(iter(inside.items()))
        add("classes", list(names), TOLD, f"the labels {name!r} in its metadata")
    elif len(beside) == 1:
        file = next(iter(beside))
        add("classes", file.name, GUESS, f"{file.name!r} beside it has as many lines as it has outputs, {outputs}")
    elif beside:
        add("classes", None, OPEN, f"several files beside it have {outputs} lines: {', '.join(f.name for f in beside)}")
    elif outputs == len(audioset()):
        add("classes", "audioset", GUESS, f"it has {outputs} outputs, as AudioSet has classes")
    else:
        count = "its outputs" if outputs is None else f"its {outputs} outputs"
        add("classes", None, OPEN, f"the names of {count}: a list, or the name of a file of names beside it")


def _add_rate(add: Any, shape: tuple[Any, ...]) -> None:
    fixed = [size for size in shape if isinstance(size, int) and size > 1]
    if not fixed:
        add("sample_rate", None, OPEN, "Hz of the waveforms that it takes; it takes any length, which tells nothing")
        return
    samples = max(fixed)
    fits = [(rate, samples / rate) for rate in _RATES if round(samples / rate, 6) in _SECONDS]
    if len(fits) == 1:
        rate, seconds = fits[0]
        add("sample_rate", rate, GUESS, f"it takes {samples} samples: {seconds:g} s at that rate")
        return
    could = ", or ".join(f"{rate} ({seconds:g} s)" for rate, seconds in fits)
    add("sample_rate", None, OPEN, f"Hz; it takes {samples} samples{f': {could}' if could else ''}")
