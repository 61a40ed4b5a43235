"""Sidecar files: ``FILE.json`` beside a model file that cannot say its classes, score kind and rate itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from logitstore.classes import audioset, check_classes
from logitstore.documents import parse_json
from logitstore.errors import TeacherError
from logitstore.files import read_text

_KEYS = ("classes", "scores", "sample_rate", "output", "clip_seconds")
#: Bytes and values that a sidecar may have.
_MOST_BYTES = 1 << 24
_MOST_VALUES = 200_000


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar states; None where it does not.

    :param classes: names in the order of the outputs; written as a list, or as "audioset" for its 527 display names.
    :param scores: "sigmoid" or "softmax". :param sample_rate: Hz.
    :param output: whether the model gives "probabilities" or "logits".
    :param clip_seconds: length of the clips that it learnt from.
    """

    classes: tuple[str, ...] | None = None
    scores: str | None = None
    sample_rate: int | None = None
    output: str = "probabilities"
    clip_seconds: float | None = None


def sidecar_path(path: Path) -> Path:
    """``FILE.json`` of FILE."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path, *, required: tuple[str, ...] = ()) -> Sidecar | None:
    """The sidecar of a model file; None where there is none and nothing is required.

    :raises TeacherError: it is missing and required, unreadable, or says something that no model can have.
    """
    file = sidecar_path(path)
    if not file.is_file():
        if required:
            raise TeacherError(f"{str(path)!r} needs a sidecar {file.name!r} beside it with {', '.join(required)}")
        return None
    whose = f"sidecar {str(file)!r}"
    try:
        document = parse_json(read_text(file, _MOST_BYTES), _MOST_VALUES)
    except (ValueError, OSError) as error:
        raise TeacherError(f"{whose} is not readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise TeacherError(f"{whose} is not a JSON object; it needs the keys {', '.join(required) or 'classes'}")
    for key in document:
        if key not in _KEYS:
            raise TeacherError(f"{whose}: unknown key {key!r}; allowed are {', '.join(_KEYS)}")
    for key in required:
        if key not in document:
            raise TeacherError(f"{whose} has no {key!r}; it must have {', '.join(required)}")
    classes = document.get("classes")
    if classes == "audioset":
        classes = [row.display_name for row in audioset()]
    return Sidecar(
        classes=None if classes is None else check_classes(classes, whose=whose),
        scores=None if "scores" not in document else check_scores(document["scores"], whose=whose),
        sample_rate=None if "sample_rate" not in document else check_rate(document["sample_rate"], whose=whose),
        output=_check_output(document.get("output", "probabilities"), whose=whose),
        clip_seconds=check_seconds(document.get("clip_seconds"), whose=whose),
    )


def check_scores(scores: object, *, whose: str) -> str:
    """Check a score kind, and give it back.

    :raises TeacherError: neither "sigmoid" nor "softmax".
    """
    if scores not in ("sigmoid", "softmax"):
        raise TeacherError(f"{whose}: the score kind is {scores!r}; allowed are 'sigmoid' and 'softmax'")
    return str(scores)


def check_rate(rate: object, *, whose: str) -> int:
    """Check a sample rate in Hz, and give it back.

    :raises TeacherError: not a positive whole number.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise TeacherError(f"{whose}: the sample rate is {rate!r}; it must be a whole number of Hz, such as 16000")
    return rate


def check_seconds(seconds: object, *, whose: str, name: str = "clip_seconds") -> float | None:
    """Check a length in seconds, and give it back; None where there is none.

    :raises TeacherError: not a number above 0.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise TeacherError(f"{whose}: {name} is {seconds!r}; it must be a number of seconds above 0")
    return float(seconds)


def _check_output(output: object, *, whose: str) -> str:
    if output not in ("probabilities", "logits"):
        raise TeacherError(f"{whose}: the output is {output!r}; allowed are 'probabilities' and 'logits'")
    return str(output)
