"""Model files that a runtime opens, waveforms in and scores out: layouts, batches, windows, and what they are called.

What both kinds, ``onnx:`` and ``tflite:``, share. The waveforms may go in as (clips, samples), (samples,), or either
with one channel; the answers may be (clips, classes), or (clips, frames, classes), which are pooled as declared.
"""

from __future__ import annotations

import os
import struct
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from logitstore.arrays import F32
from logitstore.classes import check_classes, read_classes
from logitstore.errors import ModelOutputError, TeacherError
from logitstore.models.sidecar import Sidecar, non_commercial, sidecar_path
from logitstore.models.tagger import probabilities
from logitstore.notes import note, say
from logitstore.views.recipe import Masks
from teachers.contract import Contract, Window
from teachers.frames import Answer, answered
from teachers.teacher import Teacher
from teachers.windows import in_windows, pool

#: What a sidecar or the model itself must say.
REQUIRED = ("scores", "sample_rate")
_CARRY = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "QuantizeLinear", "DequantizeLinear", "CAST", "RESHAPE",
                    "SQUEEZE", "QUANTIZE", "DEQUANTIZE"})  # fmt: skip
_LABELS = (".txt", ".csv", ".tsv")
_MOST_LABELS = 1 << 22  # bytes of a file of labels that was not named
_MOST_ENTRIES, _MOST_BESIDE = 64, 200
_END = 1 << 16  # bytes at the end of a file in which a ZIP archive says how long its list of entries is


class FileTeacher(Teacher):
    """A model in a runtime. A kind defines :meth:`_run`, and sets ``layout``, ``batch`` and the contract.

    Attributes:
        layout: the shape that one clip goes in with, -1 for its samples: (-1,), (1, -1) or (-1, 1); ``alone`` says
            that the model takes one clip and no axis of clips.
        batch: clips that it takes at once; None for any number.
    """

    layout: tuple[int, ...] = (-1,)
    alone: bool = False
    batch: int | None = None
    if_logits = 'say "output": "logits" in its sidecar, and "scores" of the right kind'

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        window = self.contract.window
        if window is None:
            return self._said(waveforms, masks)
        return in_windows(waveforms, masks, window, self.sample_rate, self._said)

    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        if not frames or features:
            return super().answers(waveforms, masks, features=features, frames=frames)
        says = self.contract
        return answered(waveforms, masks, says.window, says.pooling, self.sample_rate, self._by_frame)

    def to(self, device: str | torch.device) -> Self:
        return self

    @abstractmethod
    def _run(self, clips: F32, masks: F32 | None) -> F32:
        """What the model gives for clips, shaped as ``layout`` says, under masks (B, 4) or none.

        :raises ModelOutputError: it fails.
        """

    def _said(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        said = self._by_frame(waveforms, masks)
        return said if said.ndim == 2 else pool(said, self.contract.pooling or "mean")

    def _by_frame(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """(B, C), or (B, T, C) of a model that answers frame by frame."""
        clips = waveforms.detach().to("cpu", torch.float32).contiguous().numpy()
        ends = _ends(masks, len(clips)) if self.takes_masks else None
        step = self.batch or max(1, len(clips))
        found = [
            self._answers(clips[at : at + step], None if ends is None else ends[at : at + step])
            for at in range(0, len(clips), step)
        ]
        return self._as_probabilities(torch.from_numpy(np.concatenate(found)).to(waveforms.device))

    def _as_probabilities(self, given: torch.Tensor) -> torch.Tensor:
        return probabilities(given, self.scores) if self.contract.output == "logits" else given

    def _answers(self, clips: F32, masks: F32 | None) -> F32:
        """(B, C) or (B, T, C) of (B, S); a batch that is too small for the model is filled up with silence."""
        count, more = len(clips), max(0, (self.batch or 0) - len(clips))
        clips = np.pad(clips, ((0, more), (0, 0)))
        masks = None if masks is None else np.pad(masks, ((0, more), (0, 0)))
        shaped = clips.reshape(*(() if self.alone else (len(clips),)), *self._laid_out(clips.shape[1]))
        found = np.asarray(self._run(shaped, masks), dtype=np.float32)
        if len(clips) == 1 and (found.ndim == 1 or (found.ndim == 2 and len(found) != 1)):
            found = found[None]  # without an axis of clips
        fits = found.ndim in (2, 3) and len(found) == len(clips) and found.shape[-1] == len(self.classes)
        if not fits or (found.ndim == 3 and (found.shape[1] < 1 or self.contract.pooling is None)):
            raise ModelOutputError(
                f"teacher {self.spec!r} gave scores of shape {found.shape} for {len(clips)} clips; (clips, "
                f"{len(self.classes)} classes) are due, or (clips, frames, classes) with a pooling in its sidecar"
            )
        return found[:count]

    def _laid_out(self, samples: int) -> tuple[int, ...]:
        return tuple(samples if size == -1 else size for size in self.layout)

    def _lay_out(self, shape: Sequence[Any], batches: bool = True) -> int | None:
        """Set how clips go into an input of this shape, whose sizes are int where they are fixed.

        :returns: the samples that it takes; None for any number.
        :raises TeacherError: it is no shape of waveforms.
        """
        sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
        self.alone = len(sizes) == 1
        inner = sizes if self.alone else sizes[1:]
        if len(inner) == 2 and 1 in inner:
            self.layout = (1, -1) if inner[0] == 1 else (-1, 1)
            inner = inner[1:] if inner[0] == 1 else inner[:1]
        elif len(inner) != 1:
            raise TeacherError(
                f"teacher {self.spec!r} takes an input of shape {list(shape)}; allowed are waveforms, (clips, samples) "
                "or (samples,), or with one channel (clips, 1, samples): a model of spectrograms is none"
            )
        self.batch = 1 if self.alone else sizes[0]
        return inner[0]


def contract_of(
    name: str, said: Sidecar, classes: tuple[str, ...], digest: str, window: Window | None, **more: Any
) -> Contract:
    """The contract of a model file of which this, and so all that is :data:`REQUIRED`, is known."""
    output = said.output or "probabilities"
    return Contract(
        name=name,
        classes=classes,
        scores=str(said.scores),
        sample_rate=int(said.sample_rate or 0),
        digest=digest,
        output=output,
        window=window,
        trained_seconds=said.clip_seconds,
        licence=said.licence,
        non_commercial=non_commercial(said.licence),
        origin=said.origin,
        has_frames=window is not None or more.get("pooling") is not None,
        arguments={"output": output} | more.pop("arguments", {}),
        **more,
    )


def window_of(said: Sidecar, samples: int | None, whose: str) -> Window | None:
    """The windows in which a model hears a view; None for a model that hears it whole.

    :param samples: that the model takes, and no others; None for any number.
    :raises TeacherError: it takes another length than the sidecar says, or a hop or a rest that no windows have.
    """
    rate = int(said.sample_rate or 0)
    asked = None if said.window_seconds is None else max(1, round(said.window_seconds * rate))
    if None not in (asked, samples) and asked != samples:
        raise TeacherError(
            f"{whose} takes {samples} samples ({_seconds(samples, rate)}) and its sidecar says window_seconds "
            f"{said.window_seconds:g}, which is {asked}; leave window_seconds out, or correct sample_rate"
        )
    length = samples if samples is not None else asked
    if length is None:
        for key in ("hop_seconds", "least_seconds"):
            if getattr(said, key) is not None:
                raise TeacherError(f"{whose} hears any length as a whole; say window_seconds with {key}, or neither")
        return None
    hop = length if said.hop_seconds is None else round(said.hop_seconds * rate)
    least = 1 if said.least_seconds is None else round(said.least_seconds * rate)
    for key, value in (("hop_seconds", hop), ("least_seconds", least)):
        if not 1 <= value <= length:
            raise TeacherError(
                f"{whose}: {key} is {getattr(said, key):g}; allowed is up to its window, {_seconds(length, rate)}"
            )
    return Window(samples=length, hop=hop, pooling=said.pooling or "mean", least=least)


def _seconds(samples: int | None, rate: int) -> str:
    return f"{(samples or 0) / rate:g} s at {rate:,} Hz"


def chosen_output(names: Sequence[str], wanted: str | int | None, whose: str) -> int:
    """Which of a model's outputs is asked for, by name or index; the first where none is, which is said.

    :raises TeacherError: there is no such output.
    """
    if wanted is None:
        if len(names) > 1:
            say("teacher", f"{whose} has the outputs {', '.join(names)}; the first is taken (?output=NAME for another)")
        return 0
    if wanted in names:
        return list(names).index(str(wanted))
    if str(wanted).isdecimal() and int(wanted) < len(names):
        return int(wanted)
    listed = ", ".join(f"{at} {name!r}" for at, name in enumerate(names))
    raise TeacherError(f"{whose} has no output {wanted!r}; allowed are {listed}, by index or name")


def check_outputs(shape: Sequence[Any], classes: int, pooling: str | None, whose: str, names: Sequence[str]) -> None:
    """Hold the shape of an output, whose sizes are int where they are fixed, against what is known of it.

    :raises TeacherError: it cannot be scores of so many classes, or has frames and nobody said how they are pooled.
    """
    last = shape[-1] if shape else None
    if not 1 <= len(shape) <= 3 or (isinstance(last, int) and last > 0 and last != classes):
        others = f"; its outputs are {', '.join(names)}: choose by ?output=" if len(names) > 1 else ""
        raise TeacherError(
            f"{whose} gives scores of shape {list(shape)} and its sidecar names {classes} classes; they must be "
            f"(clips, classes) or (clips, frames, classes){others}"
        )
    if len(shape) == 3 and pooling is None:
        raise TeacherError(
            f"{whose} answers frame by frame, {list(shape)}, and nothing says how the frames become one answer; say "
            '"pooling": "mean" or "max" in its sidecar'
        )


def has_frames(shape: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether an output of this shape has an axis of frames; ``given`` is the input's shape."""
    return len(shape) == 3 or (len(shape) == 2 and shape[0] not in (1, given[0]))


@dataclass(frozen=True)
class Described:
    """What a runtime tells of a model file.

    :param inputs: name, type and shape of each, -1 or a name for a size that is not fixed. :param outputs: likewise.
    :param last: of each output the kind of the op that gives it, None where that is not known.
    :param metadata: texts by their names.
    """

    inputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    last: tuple[str | None, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


def last_op(makers: Mapping[Any, tuple[str, Sequence[Any]]], output: Any) -> str | None:
    """The kind of the op that gives an output, passing over those that only carry its values on.

    :param makers: of each tensor the kind of the op that gives it, and that op's inputs.
    """
    for _ in range(8):
        kind, inputs = makers.get(output, (None, ()))
        if kind not in _CARRY or not inputs:
            return kind
        output = inputs[0]
    return None


def classes_of(path: Path, said: Sidecar, outputs: int | None, whose: str) -> tuple[str, ...]:
    """The classes of a model: those that it or its sidecar names, else those of the one file of labels that fits.

    :param outputs: how many scores it gives; None where that is not fixed.
    :raises TeacherError: none are named, and no file or several files beside the model have as many names.
    """
    if said.classes is not None:
        return said.classes
    inside = labels_inside(path, outputs)
    if inside:
        name, classes = next(iter(inside.items()))
        say("classes", f"{whose}: those of {name!r} in its metadata")
        return classes
    beside = labels_beside(path, outputs)
    if len(beside) == 1:
        file = next(iter(beside))
        say("classes", f"{whose}: those of {str(file)!r}, which has as many names as it has outputs")
        return read_classes(file, outputs=True)
    some = f"{len(beside)} files of {outputs} names lie beside it" if beside else "no file of as many names is there"
    count = "its scores" if outputs is None else f"its {outputs} scores"
    raise TeacherError(
        f'{whose} does not say what {count} are of, and {some}; say "classes" in {sidecar_path(path).name!r}: names, '
        '"audioset", or the name of a file of names beside it'
    )


def labels_beside(path: Path, outputs: int | None) -> dict[Path, int]:
    """Files in a model's folder that have as many lines of text as it has outputs (or a header more), sorted."""
    found: dict[Path, int] = {}
    if outputs is None or outputs < 2:
        return found
    candidates = sorted(file for file in path.parent.iterdir() if file.suffix.lower() in _LABELS)
    for file in candidates[:_MOST_BESIDE]:
        if file.is_file() and file.stat().st_size <= _MOST_LABELS and os.access(file, os.R_OK):
            lines = len([line for line in file.read_bytes().splitlines() if line.strip()])
            if lines == outputs or (lines == outputs + 1 and file.suffix.lower() != ".txt"):
                found[file] = lines
    return found


def labels_inside(path: Path, outputs: int | None) -> dict[str, tuple[str, ...]]:
    """The lists of as many names as a model has outputs in a ZIP that follows it in its file, one name a line.

    That is where TensorFlow Lite's metadata keep a model's labels; a file without any has none.
    """
    found: dict[str, tuple[str, ...]] = {}
    try:
        if not _small_zip(path):
            return found
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if Path(entry.filename).suffix.lower() not in _LABELS or entry.file_size > _MOST_LABELS:
                    continue
                with archive.open(entry) as file:
                    content = file.read(_MOST_LABELS + 1)
                names = [line.strip() for line in content.decode().splitlines() if line.strip()]
                if len(content) <= _MOST_LABELS and len(names) == outputs:
                    found[entry.filename] = check_classes(names, whose=f"{str(path)!r}, {entry.filename!r}")
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        if isinstance(error, TeacherError):
            raise
        note(f"the labels in the metadata of {str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}")
    return found


def _small_zip(path: Path) -> bool:
    """Whether a file ends in a ZIP archive whose list of entries is short."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END))
        end = file.read(_END)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        return False
    entries, size = struct.unpack_from("<HI", end, at + 10)
    return bool(entries <= _MOST_ENTRIES and size <= _END)


def warn_of_licence(teacher: Teacher) -> None:
    """Say it where a model's licence forbids commercial use."""
    says = teacher.contract
    if says.non_commercial:
        note(f"teacher {teacher.spec!r} is under the licence {says.licence}: not for commercial use; read it first")


def _ends(masks: Masks | None, clips: int) -> F32:
    """Masks as a model's input, (B, 4): seconds from and to, Hz from and to; zeros where nothing is masked."""
    if masks is None:
        return np.zeros((clips, 4), dtype=np.float32)
    ends = [masks.time_start, masks.time_end, masks.freq_low, masks.freq_high]
    return np.stack([torch.as_tensor(end).cpu().numpy() for end in ends], axis=1).astype(np.float32)
