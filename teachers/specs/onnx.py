"""ONNX files as teachers: waveforms in, scores out, described by a sidecar."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from logitstore.digests import hasher
from logitstore.errors import MissingExtraError, ModelOutputError, TeacherError
from logitstore.models.onnx_session import open_session, runtime_errors
from logitstore.models.sidecar import read_sidecar
from logitstore.models.tagger import probabilities
from logitstore.views.recipe import Masks
from teachers.contract import Contract, Window
from teachers.teacher import Teacher
from teachers.windows import in_windows

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("onnx:FILE", "waveform -> scores, described by FILE.json")


class OnnxTeacher(Teacher):
    """A session of onnxruntime; its one input is float32 (B, S), its first output (B, C)."""

    if_logits = 'say "output": "logits" in its sidecar, and "scores" of the right kind'

    def __init__(self, spec: str, file: str) -> None:
        path = Path(file)
        if not path.is_file():
            raise TeacherError(f"teacher {spec!r}: no file {file!r}; give an ONNX model")
        sidecar = read_sidecar(path, required=("classes", "scores", "sample_rate"))
        if sidecar is None or sidecar.classes is None or sidecar.scores is None or sidecar.sample_rate is None:
            raise TeacherError(f"teacher {spec!r}: its sidecar is not complete")  # read_sidecar has said so already
        self.spec = spec
        self.path = path
        usual = path.with_name(path.name + ".data")  # as torch names it; earlier releases knew no other
        self._files = [path, usual, *(file for file in external_files(path, spec) if file != usual)]
        self.session = self._session("cpu")
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
            described = ", ".join(f"{item.name}: {item.type} {item.shape}" for item in inputs)
            raise TeacherError(
                f"teacher {spec!r} takes ({described}); it must take one input, float waveforms (clips, samples)"
            )
        found = outputs[0].shape
        if len(found) != 2 or (isinstance(found[1], int) and found[1] != len(sidecar.classes)):
            raise TeacherError(
                f"teacher {spec!r} gives scores of shape {found} and its sidecar names {len(sidecar.classes)} classes; "
                "they must be (clips, classes)"
            )
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        batch, samples = inputs[0].shape
        self.batch = batch if isinstance(batch, int) else None
        self.contract = Contract(
            name="onnx",
            classes=sidecar.classes,
            scores=sidecar.scores,
            sample_rate=sidecar.sample_rate,
            digest=_digest(self._files),
            output=sidecar.output,
            window=Window(samples=samples, hop=samples) if isinstance(samples, int) else None,
            trained_seconds=sidecar.clip_seconds,
            arguments={"output": sidecar.output},
        )

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        window = self.contract.window
        if window is None:
            return self._said(waveforms, masks)
        return in_windows(waveforms, masks, window, self.sample_rate, self._said)

    def _said(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        clips = waveforms.detach().to("cpu", torch.float32).contiguous().numpy()
        step = self.batch or max(1, len(clips))
        scores = np.concatenate([self._scores(clips[first : first + step]) for first in range(0, len(clips), step)])
        result = torch.from_numpy(scores).to(waveforms.device)
        return probabilities(result, self.scores) if self.contract.output == "logits" else result

    def earlier_digests(self) -> tuple[str, ...]:
        return (_digest(self._files[:2]),)

    def to(self, device: str | torch.device) -> Self:
        self.session = self._session(torch.device(device).type)
        return self

    def _scores(self, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        count = len(clips)
        if self.batch is not None and count < self.batch:
            clips = np.concatenate([clips, np.zeros((self.batch - count, clips.shape[1]), dtype=np.float32)])
        try:
            (scores,) = self.session.run([self.output_name], {self.input_name: clips})
        except runtime_errors() as error:
            raise ModelOutputError(
                f"teacher {self.spec!r} failed on a batch: {' '.join(str(error).split())}"
            ) from error
        return np.asarray(scores, dtype=np.float32)[:count]

    def _session(self, device: str) -> Any:
        try:
            return open_session(str(self.path), device)
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", f"teacher {self.spec!r}") from error
        except runtime_errors() as error:
            raise TeacherError(
                f"teacher {self.spec!r} is not an ONNX model that onnxruntime can run: {' '.join(str(error).split())}"
            ) from error


def load(spec: str, rest: str) -> OnnxTeacher:
    """The teacher of ``onnx:FILE``.

    :raises TeacherError: no such file, no sidecar, not an ONNX model, or one of other inputs or outputs.
    :raises MissingExtraError: onnxruntime is not installed.
    """
    return OnnxTeacher(spec, rest)


def _digest(files: Sequence[Path]) -> str:
    """BLAKE2b-128, hex, of the content of files one after the other; those that are not there are left out."""
    digest = hasher()
    for part in files:
        if part.is_file():
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def external_files(path: Path, spec: str) -> list[Path]:
    """The files that hold tensors of a model, in the order of their names; no tensor is read.

    Of a file that is no ONNX model there are none; opening it says so.

    :raises TeacherError: one is missing or lies outside of the model's folder.
    :raises MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", f"teacher {spec!r}") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError:
        return []
    found = []
    for location in sorted({place for place in _locations(model) if place}):
        named = Path(os.path.normpath(path.parent / location))
        # a model hub's cache links both, the model and its tensors, to a folder of contents
        homes = {path.parent.resolve(), path.resolve().parent}
        inside = named.is_relative_to(Path(os.path.normpath(path.parent))) and not Path(location).is_absolute()
        if not inside or not any(named.resolve().is_relative_to(home) for home in homes):
            raise TeacherError(
                f"teacher {spec!r} keeps tensors in {location!r}, outside of its folder {str(path.parent)!r}; only "
                "files beside the model are read: save it anew with its tensors beside it"
            )
        if not named.is_file():
            raise TeacherError(
                f"teacher {spec!r} keeps tensors in {location!r}, and there is no such file in {str(path.parent)!r}; "
                "put it beside the model"
            )
        found.append(named)
    return found


def _locations(message: Any) -> Iterator[str]:
    """Where the tensors of a message, and of all messages in it, lie; of those that do not lie in the file itself."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        if message.data_location == message.EXTERNAL:
            yield next((entry.value for entry in message.external_data if entry.key == "location"), "")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "__len__") else (value,):
                yield from _locations(each)
