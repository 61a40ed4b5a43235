"""BirdNET 2.4 as a teacher: its TensorFlow Lite file and the label file that is published beside it.

It hears 3 s at 48 kHz and says logits. A view is heard in windows of 3 s, the last filled up with zeros; a rest of less
than 1.5 s is left out, as its own analyzer does.
"""

from __future__ import annotations

from pathlib import Path

import torch

from logitstore.classes import read_classes
from logitstore.errors import TeacherError
from logitstore.models.sidecar import Sidecar
from teachers.contract import POOLINGS
from teachers.registry import split_options
from teachers.specs.tflite import TfliteTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
EXTRA = ("tflite", "ai_edge_litert")
SPEC = (
    "birdnet:PATH",
    "BirdNET 2.4's .tflite file or its folder, with its labels beside it; ?pooling=max for the surest window",
)
PUBLISHED = (("BirdNET 2.4", 6522, 48000, None, "CC BY-NC-SA 4.0", "https://github.com/birdnet-team/BirdNET-Analyzer"),)

RATE, SECONDS, LEAST_SECONDS = 48_000, 3.0, 1.5
#: Its analyzer cuts logits to so much on either side of 0.
LOGIT = 15.0
LICENCE = PUBLISHED[0][4]
_SUFFIX = ".tflite"


class BirdnetTeacher(TfliteTeacher):
    """BirdNET's interpreter."""

    def _name(self) -> str:
        return "birdnet"

    def _as_probabilities(self, given: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(given.clamp(-LOGIT, LOGIT))


def load(spec: str, rest: str) -> BirdnetTeacher:
    """The teacher of ``birdnet:PATH`` or ``birdnet:PATH?pooling=max&labels=FILE``, a file beside the model.

    :raises TeacherError: no such file, no labels beside it, or a model that is not BirdNET.
    :raises MissingExtraError: ai-edge-litert is not installed.
    """
    name, options = split_options(spec, rest, ("pooling", "labels"))
    pooling = options.get("pooling", "mean")
    if pooling not in POOLINGS:
        raise TeacherError(f"teacher {spec!r}: pooling is {pooling!r}; allowed are {' and '.join(POOLINGS)}")
    path = _file(spec, Path(name))
    labels = options.get("labels")
    said = Sidecar(
        classes=None if labels is None else read_classes(path.parent / labels, outputs=True),
        scores="sigmoid",
        sample_rate=RATE,
        output="logits",
        hop_seconds=SECONDS,
        window_seconds=SECONDS,
        least_seconds=LEAST_SECONDS,
        pooling=pooling,
        clip_seconds=SECONDS,
        licence=LICENCE,
        origin=PUBLISHED[0][5],
    )
    return BirdnetTeacher(spec, str(path), said)


def _file(spec: str, path: Path) -> Path:
    """The model in a folder, which may hold a model of places and seasons beside it."""
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix == _SUFFIX and "MData" not in file.name)
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5])
        raise TeacherError(
            f"teacher {spec!r}: the folder {str(path)!r} has {len(found)} files *{_SUFFIX} ({names or 'none'}); "
            "name the one that is meant"
        )
    return found[0]
