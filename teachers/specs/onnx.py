"""ONNX files as teachers: waveforms in, scores out, described by their own metadata or a sidecar.

A second input (clips, 4) takes masks: of each clip the time from and to in seconds and the frequency from and to in Hz,
half-open, equal ends where nothing is masked. ``export-student --masks`` writes such files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from logitstore.arrays import F32
from logitstore.digests import hasher
from logitstore.documents import parse_json
from logitstore.errors import MissingExtraError, ModelOutputError, TeacherError
from logitstore.models.foreign import ONNX, looks_like, require_model
from logitstore.models.onnx_session import open_session, runtime_errors
from logitstore.models.sidecar import of_metadata, stated
from teachers.model_file import (
    REQUIRED,
    Described,
    FileTeacher,
    check_outputs,
    chosen_output,
    classes_of,
    contract_of,
    has_frames,
    last_op,
    warn_of_licence,
    window_of,
)
from teachers.registry import split_options

#: Its form, and what it is; see :mod:`teachers.registry`.
EXTRA = ("onnx", "onnxruntime")
SPEC = ("onnx:FILE", "waveform -> scores, described by itself or by FILE.json; ?output=NAME for another output")

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_MOST_FRONT_END = 1 << 16


class OnnxTeacher(FileTeacher):
    """A session of onnxruntime."""

    def __init__(self, spec: str, file: str, output: str | None = None) -> None:
        path = Path(file)
        whose = f"teacher {spec!r}"
        require_model(spec, path, "an ONNX model")
        self.spec = spec
        self.path = path
        usual = path.with_name(path.name + ".data")  # as torch names it; earlier releases knew no other
        self._files = [path, usual, *(file for file in external_files(path, spec) if file != usual)]
        self.session = self._session("cpu")
        metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        said = stated(path, of_metadata(metadata), required=REQUIRED)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        masked = len(inputs) == 2 and list(inputs[1].shape[1:]) == [4] and inputs[1].type in _FLOATS
        if not (len(inputs) == 1 or masked) or inputs[0].type not in _FLOATS:
            described = ", ".join(f"{item.name}: {item.type} {item.shape}" for item in inputs)
            raise TeacherError(
                f"{whose} takes ({described}); it must take one input, float waveforms (clips, samples), and may take "
                "masks (clips, 4) beside it"
            )
        samples = self._lay_out(inputs[0].shape)
        self._kinds = [_FLOATS[item.type] for item in inputs]
        self._inputs = [item.name for item in inputs]
        names = [item.name for item in outputs]
        at = chosen_output(names, output if output is not None else said.output_name, whose)
        self._output = names[at]
        shape = outputs[at].shape
        last = shape[-1] if shape and isinstance(shape[-1], int) else None
        classes = classes_of(path, said, last, whose)
        check_outputs(shape, len(classes), said.pooling, whose, names)
        self.contract = contract_of(
            "onnx",
            said,
            classes,
            _digest(self._files),
            window_of(said, samples, whose),
            pooling=said.pooling if has_frames(shape, inputs[0].shape) else None,
            takes_masks=masked,
            front_end=_document(metadata.get("front_end")),
            fill=_fill(metadata.get("fill")) if masked else None,
            arguments={"output_name": self._output} if at else {},
        )
        warn_of_licence(self)

    def earlier_digests(self) -> tuple[str, ...]:
        return (_digest(self._files[:2]),)

    def to(self, device: str | torch.device) -> Self:
        self.session = self._session(torch.device(device).type)
        return self

    def _run(self, clips: F32, masks: F32 | None) -> F32:
        given = [clips] if masks is None else [clips, masks]
        feed = {name: each.astype(kind) for name, each, kind in zip(self._inputs, given, self._kinds, strict=True)}
        try:
            (scores,) = self.session.run([self._output], feed)
        except runtime_errors() as error:
            raise ModelOutputError(
                f"teacher {self.spec!r} failed on a batch: {' '.join(str(error).split())}"
            ) from error
        return np.asarray(scores, dtype=np.float32)

    def _session(self, device: str) -> Any:
        return _opened(self.spec, self.path, device)


def load(spec: str, rest: str) -> OnnxTeacher:
    """The teacher of ``onnx:FILE`` or ``onnx:FILE?output=NAME``.

    :raises TeacherError: no such file, nothing that says its classes, not an ONNX model, or one of other inputs.
    :raises MissingExtraError: onnxruntime is not installed.
    """
    name, options = split_options(spec, rest, ("output",))
    return OnnxTeacher(spec, name, options.get("output"))


def describe(spec: str, path: Path) -> Described:
    """What a file tells of itself.

    :raises TeacherError: it is no model. :raises MissingExtraError: the extra is not installed.
    """
    external_files(path, spec)
    session = _opened(spec, path, "cpu")
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    makers = {name: (node.op_type, node.input) for node in graph.node for name in node.output}
    inputs, outputs = (
        tuple((item.name, item.type, tuple(item.shape)) for item in items)
        for items in (session.get_inputs(), session.get_outputs())
    )
    kinds = tuple(last_op(makers, name) for name, _, _ in outputs)
    return Described(inputs, outputs, kinds, dict(session.get_modelmeta().custom_metadata_map))


def _opened(spec: str, path: Path, device: str) -> Any:
    try:
        return open_session(str(path), device)
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", f"teacher {spec!r}") from error
    except runtime_errors() as error:
        raise TeacherError(
            f"teacher {spec!r} is not an {ONNX} model that onnxruntime can run; {str(path)!r} looks like "
            f"{looks_like(path, ONNX)}: {' '.join(str(error).split())[:300]}"
        ) from error


def _document(text: str | None) -> dict[str, Any] | None:
    """A table of plain values in a model's metadata; None for anything else."""
    try:
        found = None if text is None or len(text) > _MOST_FRONT_END else parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found else None


def _fill(text: str | None) -> dict[str, Any] | str:
    """Stage and value of a masked cell, as a model's metadata have them."""
    found = _document(text) or {}
    stage, value = found.get("stage"), found.get("value")
    if found.keys() == {"stage", "value"} and isinstance(stage, str) and isinstance(value, int | float):
        return found
    return "its own"


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
