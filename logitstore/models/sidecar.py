"""Sidecar files: ``FILE.json`` beside a model file that cannot say its classes, score kind and rate itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from logitstore.classes import audioset, check_classes, read_classes
from logitstore.documents import parse_json
from logitstore.errors import TeacherError
from logitstore.files import read_text
from logitstore.texts import shown

#: What no sidecar and its model may contradict each other in: all of these decide what a number means.
_BOTH = ("classes", "scores", "sample_rate", "output")
#: Keys whose values are text, which a model's own metadata holds without quotes.
_TEXTS = ("scores", "output", "pooling", "licence", "origin")
_POOLINGS = ("mean", "max")
#: Bytes and values that a sidecar may have.
_MOST_BYTES = 1 << 24
_MOST_VALUES = 200_000
_MOST_TEXT = 2_000  # letters of a licence or origin


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What a sidecar states; None where it does not.

    :param classes: names in the order of the outputs; written as a list, as "audioset" for its 527 display names, or as
        the name of a file of class names that lies beside the sidecar.
    :param scores: "sigmoid" or "softmax". :param sample_rate: Hz.
    :param output: whether the model gives "probabilities" or "logits".
    :param output_name: which of its outputs has the scores, by name or index.
    :param window_seconds: length that a model hears at once; ``hop_seconds`` from start to start; a last window with
        less than ``least_seconds`` of a view in it is left out.
    :param pooling: "mean" or "max", of what is said of windows or frames.
    :param clip_seconds: length of the clips that it learnt from.
    :param licence: of the model, in words. :param origin: where it is from.
    """

    classes: tuple[str, ...] | None = None
    scores: str | None = None
    sample_rate: int | None = None
    output: str | None = None
    output_name: str | int | None = None
    window_seconds: float | None = None
    hop_seconds: float | None = None
    least_seconds: float | None = None
    pooling: str | None = None
    clip_seconds: float | None = None
    licence: str | None = None
    origin: str | None = None


KEYS = tuple(field.name for field in fields(Sidecar))


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
            raise _missing(path, required)
        return None
    found = _read(file, required)
    for key in required:
        if getattr(found, key) is None:
            raise TeacherError(
                f"sidecar {str(file)!r} has no {key!r}, or null; it must have {', '.join(required)}: fill it in"
            )
    return found


def stated(path: Path, told: Sidecar, *, required: tuple[str, ...]) -> Sidecar:
    """What a model tells of itself and what its sidecar says, as one.

    The two must agree on classes, scores, rate and the kind of output; in all else the sidecar has the last word.

    :param told: of the model's own metadata, see :func:`of_metadata`.
    :raises TeacherError: they contradict each other, or neither says what is required.
    """
    needed = tuple(key for key in required if getattr(told, key) is None)
    found = read_sidecar(path, required=needed)
    if found is None:
        return told
    for key in _BOTH:
        ours, theirs = getattr(found, key), getattr(told, key)
        if None not in (ours, theirs) and ours != theirs:
            raise TeacherError(
                f"sidecar {str(sidecar_path(path))!r} says {key} {_brief(ours)} and the model itself {_brief(theirs)}; "
                f"take {key!r} out of the sidecar, or remove a sidecar that is another model's"
            )
    return replace(told, **{key: value for key, value in vars(found).items() if value is not None})


def of_metadata(metadata: Mapping[str, str]) -> Sidecar:
    """What the metadata of a model file says under a sidecar's keys; what cannot be understood is not said."""
    said: dict[str, Any] = {}
    for key in KEYS:
        text = metadata.get(key)
        if text is None or len(text) > _MOST_BYTES:
            continue
        try:
            value = text if key in _TEXTS else parse_json(text, _MOST_VALUES)
            said[key] = getattr(_checked({key: value}, "metadata", None), key)
        except ValueError:
            continue
    return Sidecar(**said)


def as_metadata(document: Mapping[str, Any]) -> dict[str, str]:
    """Plain values as :func:`of_metadata` reads them: texts as they are, all else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in document.items()
    }


def non_commercial(licence: str | None) -> bool:
    """Whether the name of a licence says that it forbids commercial use, as CC BY-NC-SA does."""
    return licence is not None and re.search(r"\bNC\b|\bnon-?commercial", licence, re.IGNORECASE) is not None


def _read(file: Path, required: tuple[str, ...]) -> Sidecar:
    whose = f"sidecar {str(file)!r}"
    try:
        document = parse_json(read_text(file, _MOST_BYTES), _MOST_VALUES)
    except (ValueError, OSError) as error:
        raise TeacherError(f"{whose} is not readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise TeacherError(f"{whose} is not a JSON object; it needs the keys {', '.join(required) or 'classes'}")
    for key in document:
        if key not in KEYS:
            raise TeacherError(f"{whose}: unknown key {key!r}; allowed are {', '.join(KEYS)}")
    return _checked(document, whose, file.parent)


def _checked(document: Mapping[str, Any], whose: str, folder: Path | None) -> Sidecar:
    """The values of a sidecar, each of which may be null.

    :param folder: where a file of class names may lie; None for nowhere.
    """
    return Sidecar(
        **{key: _checked_value(key, value, whose, folder) for key, value in document.items() if value is not None}
    )


def _checked_value(key: str, value: Any, whose: str, folder: Path | None) -> Any:
    if key == "classes":
        return _classes(value, whose, folder)
    if key == "scores":
        return check_scores(value, whose=whose)
    if key == "sample_rate":
        return check_rate(value, whose=whose)
    if key == "output":
        return _one_of(key, value, ("probabilities", "logits"), whose)
    if key == "output_name":
        return _output_name(value, whose)
    if key == "pooling":
        return _one_of(key, value, _POOLINGS, whose)
    if key in ("licence", "origin"):
        return _text(key, value, whose)
    return check_seconds(value, whose=whose, name=key)


def _classes(classes: object, whose: str, folder: Path | None) -> tuple[str, ...]:
    if classes == "audioset":
        return tuple(row.display_name for row in audioset())
    if isinstance(classes, str) and folder is not None:
        file = folder / classes
        if Path(classes).name != classes or not file.is_file():
            raise TeacherError(
                f"{whose}: the classes are {shown(classes)}; allowed are a list of names, 'audioset', or the name of "
                "a file of names that lies beside it"
            )
        return read_classes(file, outputs=True)
    return check_classes(classes, whose=whose)


def _missing(path: Path, required: tuple[str, ...]) -> TeacherError:
    return TeacherError(
        f"{str(path)!r} needs a sidecar {sidecar_path(path).name!r} beside it with {', '.join(required)}; `logitstore "
        f"teachers init {path}` writes one to be filled in"
    )


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} names ({', '.join(value[:3])}{', …' if len(value) > 3 else ''})"
    return repr(value)


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


def _one_of(key: str, value: object, allowed: tuple[str, ...], whose: str) -> str:
    if value not in allowed:
        raise TeacherError(f"{whose}: the {key} is {value!r}; allowed are {' and '.join(map(repr, allowed))}")
    return str(value)


def _output_name(value: object, whose: str) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise TeacherError(f"{whose}: output_name is {value!r}; it must be the name or the index of an output")
    return value


def _text(key: str, value: object, whose: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MOST_TEXT or not value.isprintable():
        raise TeacherError(f"{whose}: {key} is {value!r}; it must be one line of text")
    return value
