"""TensorFlow Lite files as teachers, by ai-edge-litert: waveforms in, scores out, described by a sidecar.

Integer inputs and outputs are quantised and dequantised by the scale and zero point that the model states. The batch is
as large as is asked for where that does not change what the model says, which is tried once; else clip by clip.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F32
from logitstore.digests import file_digest, hasher
from logitstore.errors import MissingExtraError, ModelOutputError, TeacherError
from logitstore.models.foreign import TFLITE, looks_like, require_model
from logitstore.models.sidecar import Sidecar, stated
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
EXTRA = ("tflite", "ai_edge_litert")
SPEC = (
    "tflite:FILE",
    "a TensorFlow Lite model, waveform -> scores, described by FILE.json, with its labels in it or beside it",
)

#: What a runtime raises: of a file that is none, of an op that it does not have, of a shape that does not fit.
FAILURES = (ValueError, RuntimeError)
_INTEGERS = (np.int8, np.uint8, np.int16)
_SAME = 1e-4  # how far the answers of a batch may be from those clip by clip, of the largest


class TfliteTeacher(FileTeacher):
    """An interpreter of ai-edge-litert, on the CPU."""

    def __init__(self, spec: str, file: str, said: Sidecar | None = None, output: str | None = None) -> None:
        """The teacher of a file.

        :param said: what is known of the model without a sidecar, which is then not read.
        """
        path = Path(file)
        whose = f"teacher {spec!r}"
        require_model(spec, path, f"a {TFLITE} model")
        self.spec = spec
        self.path = path
        self._open()
        said = stated(path, Sidecar(), required=(*REQUIRED, "output")) if said is None else said
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1:
            described = ", ".join(f"{item['name']}: {_shape(item)}" for item in inputs)
            raise TeacherError(f"{whose} takes ({described}); it must take one input, waveforms (clips, samples)")
        names = [str(item["name"]) for item in outputs]
        at = chosen_output(names, output if output is not None else said.output_name, whose)
        self._at = at
        for item in (inputs[0], outputs[at]):
            _check_kind(item, whose)
        shape = _shape(outputs[at])
        classes = classes_of(path, said, shape[-1] if shape and shape[-1] > 0 else None, whose)
        check_outputs(shape, len(classes), said.pooling, whose, names)
        samples = self._lay_out(_shape(inputs[0]))
        self.contract = contract_of(
            self._name(),
            said,
            classes,
            self._digest(said, classes),
            window_of(said, samples, whose),
            pooling=said.pooling if has_frames(shape, _shape(inputs[0])) else None,
            arguments={"output_name": names[at]} if at else {},
        )
        if self.batch in (None, 1) and not self.alone:
            self.batch = None if self._takes_batches(samples) else 1
        warn_of_licence(self)

    def _name(self) -> str:
        return "tflite"

    def _digest(self, said: Sidecar, classes: tuple[str, ...]) -> str:
        """Of the file, and of what its sidecar and its labels say that decides an answer."""
        words = {key: value for key, value in vars(said).items() if key not in ("licence", "origin", "clip_seconds")}
        words["classes"] = classes
        return hasher(f"{file_digest(self.path)} {json.dumps(words, sort_keys=True)}".encode()).hexdigest()

    def _run(self, clips: F32, masks: F32 | None) -> F32:
        try:
            return self._invoke(clips)
        except FAILURES as error:
            self._open()  # one that failed to take a shape takes none
            raise ModelOutputError(
                f"teacher {self.spec!r} failed on a batch: {' '.join(str(error).split())[:300]}"
            ) from error

    def _invoke(self, clips: F32) -> F32:
        given = self._interpreter.get_input_details()[0]
        if tuple(given["shape"]) != clips.shape:
            self._interpreter.resize_tensor_input(given["index"], clips.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(given["index"], _quantised(clips, given))
        self._interpreter.invoke()
        found = self._interpreter.get_output_details()[self._at]
        return _floats(self._interpreter.get_tensor(found["index"]), found)

    def _takes_batches(self, samples: int | None) -> bool:
        """Whether two clips at once are answered as each alone."""
        window = self.contract.window
        length = samples or (window.samples if window is not None else self.sample_rate)
        noise = np.random.default_rng(0).normal(0, 0.1, (2, *self._laid_out(length))).astype(np.float32)
        alone = [self._run(noise[at : at + 1], None) for at in (0, 1)]
        try:
            both = self._invoke(noise)
        except FAILURES:
            both = np.zeros(0, dtype=np.float32)
        apart = np.concatenate(alone) if alone[0].ndim > 1 and len(alone[0]) == 1 else np.zeros((0, 1))
        if both.shape != apart.shape or np.abs(both - apart).max() > _SAME * max(1.0, np.abs(apart).max()):
            self._open()
            return False
        return True

    def _open(self) -> None:
        self._interpreter = _opened(self.spec, self.path)


def load(spec: str, rest: str) -> TfliteTeacher:
    """The teacher of ``tflite:FILE`` or ``tflite:FILE?output=NAME``.

    :raises TeacherError: no such file, nothing that says its classes, not a model, or one of other inputs.
    :raises MissingExtraError: ai-edge-litert is not installed.
    """
    name, options = split_options(spec, rest, ("output",))
    return TfliteTeacher(spec, name, output=options.get("output"))


def describe(spec: str, path: Path) -> Described:
    """What a file tells of itself.

    :raises TeacherError: it is no model. :raises MissingExtraError: the extra is not installed.
    """
    interpreter = _opened(spec, path, delegates=False)
    inputs, outputs = (
        tuple((str(item["name"]), np.dtype(item["dtype"]).name, tuple(_shape(item))) for item in items)
        for items in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    ops: list[Any] = getattr(interpreter, "_get_ops_details", list)()  # for want of a public way
    makers = {int(tensor): (str(op["op_name"]), [int(each) for each in op["inputs"]]) for op in ops
              for tensor in op["outputs"]}  # fmt: skip
    kinds = tuple(last_op(makers, int(item["index"])) for item in interpreter.get_output_details())
    return Described(inputs, outputs, kinds)


def _opened(spec: str, path: Path, delegates: bool = True) -> Any:
    """An interpreter; without ``delegates``, one that shows every op as it stands in the file."""
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "tflite", f"teacher {spec!r}") from error
    ops = interpreter.OpResolverType
    resolver = ops.AUTO if delegates else ops.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        opened = interpreter.Interpreter(
            str(path), num_threads=torch.get_num_threads(), experimental_op_resolver_type=resolver
        )
        opened.allocate_tensors()
    except FAILURES as error:
        raise TeacherError(
            f"teacher {spec!r} is not a {TFLITE} model that ai-edge-litert can run; {str(path)!r} looks "
            f"like {looks_like(path, TFLITE)}: {' '.join(str(error).split())[:300]}"
        ) from error
    return opened


def _shape(detail: dict[str, Any]) -> list[int]:
    """The shape of an input or output, -1 for a size that is not fixed."""
    signature = [int(size) for size in detail["shape_signature"]]
    return signature or [int(size) for size in detail["shape"]]


def _check_kind(detail: dict[str, Any], whose: str) -> None:
    kind, (scale, _) = detail["dtype"], detail["quantization"]
    if kind is not np.float32 and not (kind in _INTEGERS and scale > 0):
        raise TeacherError(
            f"{whose}: its tensor {detail['name']!r} holds {np.dtype(kind).name}"
            f"{' without a scale' if kind in _INTEGERS else ''}; allowed are float32, and int8, uint8 and int16 with a "
            "scale and a zero point"
        )


def _quantised(values: F32, detail: dict[str, Any]) -> Any:
    kind, (scale, zero) = detail["dtype"], detail["quantization"]
    if kind is np.float32:
        return values
    limits = np.iinfo(kind)
    return np.clip(np.rint(values / np.float32(scale)) + zero, limits.min, limits.max).astype(kind)


def _floats(values: Any, detail: dict[str, Any]) -> F32:
    kind, (scale, zero) = detail["dtype"], detail["quantization"]
    floats = np.asarray(values, dtype=np.float32)
    return floats if kind is np.float32 else (floats - np.float32(zero)) * np.float32(scale)
