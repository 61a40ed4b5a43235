"""ONNX files as teachers: waveforms in, scores out, described by a sidecar."""

from __future__ import annotations

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
from teachers.teacher import Teacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("onnx:FILE", "waveform -> scores, described by FILE.json")


class OnnxTeacher(Teacher):
    """A session of onnxruntime; its one input is float32 (B, S), its first output (B, C)."""

    takes_masks = False
    if_logits = 'say "output": "logits" in its sidecar, and "scores" of the right kind'

    def __init__(self, spec: str, file: str) -> None:
        path = Path(file)
        if not path.is_file():
            raise TeacherError(f"teacher {spec!r}: no file {file!r}; give an ONNX model")
        sidecar = read_sidecar(path, required=("classes", "scores", "sample_rate"))
        if sidecar is None or sidecar.classes is None or sidecar.scores is None or sidecar.sample_rate is None:
            raise TeacherError(f"teacher {spec!r}: its sidecar is not complete")  # read_sidecar has said so already
        self.spec = spec
        self.name = "onnx"
        self.path = path
        self.classes = sidecar.classes
        self.scores = sidecar.scores
        self.sample_rate = sidecar.sample_rate
        self.output = sidecar.output
        self.trained_seconds = sidecar.clip_seconds
        self.session = self._session("cpu")
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
            described = ", ".join(f"{item.name}: {item.type} {item.shape}" for item in inputs)
            raise TeacherError(
                f"teacher {spec!r} takes ({described}); it must take one input, float waveforms (clips, samples)"
            )
        found = outputs[0].shape
        if len(found) != 2 or (isinstance(found[1], int) and found[1] != len(self.classes)):
            raise TeacherError(
                f"teacher {spec!r} gives scores of shape {found} and its sidecar names {len(self.classes)} classes; "
                "they must be (clips, classes)"
            )
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        batch, samples = inputs[0].shape
        self.batch = batch if isinstance(batch, int) else None
        self.samples = samples if isinstance(samples, int) else None
        self.digest = _digest(path)
        self.contract: dict[str, Any] = {"output": self.output}

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        clips = waveforms.detach().to("cpu", torch.float32).contiguous().numpy()
        if self.samples is not None and clips.shape[1] != self.samples:
            raise TeacherError(
                f"teacher {self.spec!r} takes exactly {self.samples} samples at {self.sample_rate} Hz and a view has "
                f"{clips.shape[1]}; choose --clip-seconds {self.samples / self.sample_rate:g}"
            )
        step = self.batch or max(1, len(clips))
        scores = np.concatenate([self._scores(clips[first : first + step]) for first in range(0, len(clips), step)])
        result = torch.from_numpy(scores).to(waveforms.device)
        return probabilities(result, self.scores) if self.output == "logits" else result

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


def _digest(path: Path) -> str:
    """BLAKE2b-128, hex, of the file and of the external weights that torch writes beside it as ``FILE.data``."""
    digest = hasher()
    for part in (path, path.with_name(path.name + ".data")):
        if part.is_file():
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
