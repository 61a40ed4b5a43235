"""An exported student with 8-bit weights, mostly by onnxruntime's quantiser; the front end stays as it is.

As onnxruntime advises: where most weights are in convolutions, weights and activations are quantised, with the ranges
of the activations measured on audio (static); where most are in matrix products, as in a transformer, those ranges are
found for each batch as it runs (dynamic), which is closer and needs no audio. The last layer does not count for that:
its size is the number of classes. Whatever either leaves, such as the convolution of a transformer, gets 8-bit weights
and keeps its activations. So does the first convolution: it hears decibels, whose range is too wide for 8 bits
(measured on a cnn4: probabilities ten times nearer).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.arrays import F32
from logitstore.errors import RunError
from students.export import quiet

STATIC, DYNAMIC = "static", "dynamic"
_MATRICES = ("MatMul", "Gemm")
#: Inputs that are weights, by the kind of a node, and the axis of its outputs; of Gemm that of ``transB = 0``.
_WEIGHTS = {
    "Conv": {1: 0}, "ConvTranspose": {1: 1}, "MatMul": {0: -2, 1: -1}, "Gemm": {0: 0, 1: 1},
    "GRU": {1: 1, 2: 1}, "LSTM": {1: 1, 2: 1}, "RNN": {1: 1, 2: 1},
}  # fmt: skip
FRONT_END, SMALL, OTHER = "of the front end, not learnt", "biases and normalisation", "added or looked up"


@dataclass(frozen=True)
class Weights:
    """How many numbers of a file have 8 bits, and how many are floats, by the reason."""

    eight_bits: int
    floating: dict[str, int]


def method_for(content: bytes) -> str:
    """How a file is quantised: by where most of its weights are but those of its last layer, "static" or "dynamic"."""
    import onnx

    graph = onnx.load_from_string(content).graph
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    kept = _front_end(graph)
    nodes = [
        (node.op_type, sum(sizes[name] for name in node.input if name in sizes))
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose", *_MATRICES) and node.name not in kept
    ]
    weighty = [(kind, size) for kind, size in nodes if size][:-1]
    matrices = sum(size for kind, size in weighty if kind in _MATRICES)
    return STATIC if sum(size for _, size in weighty) > 2 * matrices else DYNAMIC


def quantised(content: bytes, method: str, heard: list[dict[str, F32]], activation_bits: int = 8) -> bytes:
    """A file with 8-bit weights.

    :param content: a file of :func:`students.export.checked`. :param method: of :func:`method_for`.
    :param heard: what to measure ranges on, of :func:`students.export.feeds`; the static method needs some.
    :param activation_bits: 8, or 16 for activations that are nearer and computed as floats; of the static method.
    :raises RunError: none are given to the static method.
    """
    import onnx
    from onnxruntime import quantization

    if method == STATIC and not heard:
        raise RunError("the ranges of a convolutional student's activations are measured on audio, and there is none")
    model = onnx.load_from_string(content)
    graph = model.graph
    first = [node.name for node in graph.node if node.op_type == "Conv"][:1]
    kept = sorted({*_front_end(graph), *first})

    class Audio(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The batches, one after the other."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, F32]] = iter(heard)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        if method == STATIC:
            quantization.quantize_static(
                str(source), str(target), Audio(), quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", *_MATRICES], per_channel=True, nodes_to_exclude=kept,
                activation_type=quantization.QuantType[f"QUInt{activation_bits}"],
                weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
        else:
            quantization.quantize_dynamic(
                str(source), str(target), op_types_to_quantize=list(_MATRICES), per_channel=True,
                nodes_to_exclude=kept, weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
        return _weights_alone(target.read_bytes(), model.metadata_props)


def weights_of(content: bytes) -> Weights:
    """What a quantised file holds as 8 bits, and what as floats and why; scales and zero points do not count."""
    import onnx

    graph = onnx.load_from_string(content).graph
    kept, uses = _front_end(graph), _uses(graph)
    eight, floating = 0, dict.fromkeys((FRONT_END, SMALL, OTHER), 0)
    for weight in graph.initializer:
        used, size = uses.get(weight.name, []), int(np.prod(weight.dims))
        if all(at and "Linear" in node.op_type for node, at in used) or weight.name.endswith(("_scale", "_zero_point")):
            continue
        if weight.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
            eight += size
        elif weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32):
            front = any(node.name in kept for node, _ in used)
            floating[FRONT_END if front else SMALL if len(weight.dims) < 2 else OTHER] += size
    return Weights(eight, {why: count for why, count in floating.items() if count})


def _uses(graph: Any) -> dict[str, list[tuple[Any, int]]]:
    """The nodes that take each value, and as which of their inputs."""
    uses: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, at))
    return uses


def _weights_alone(content: bytes, metadata: Any) -> bytes:
    """A file in which every weight that a layer multiplies has 8 bits, one scale an output, and becomes a float again
    before it is used; ``metadata`` are what it says of itself."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    kept, uses = _front_end(graph), _uses(graph)
    for weight in list(graph.initializer):
        used = uses.get(weight.name, [])
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) < 2 or not used:
            continue
        if any(node.name in kept or at not in _WEIGHTS.get(node.op_type, {}) for node, at in used):
            continue
        values = numpy_helper.to_array(weight)
        node, at = used[0]
        axis = _WEIGHTS[node.op_type][at] % values.ndim
        if node.op_type == "Gemm" and any(each.name == ("transA", "transB")[at] and each.i for each in node.attribute):
            axis = 1 - axis
        others = tuple(each for each in range(values.ndim) if each != axis)
        scale = np.abs(values).max(axis=others).astype(np.float32) / np.float32(127)
        scale[scale == 0] = 1
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        codes = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
        names = [f"{weight.name}_{what}" for what in ("int8", "int8_scale", "from_int8")]
        graph.initializer.remove(weight)
        graph.initializer.extend([numpy_helper.from_array(codes, names[0]), numpy_helper.from_array(scale, names[1])])
        graph.node.insert(0, helper.make_node("DequantizeLinear", names[:2], names[2:], f"{weight.name}_8", axis=axis))
        for node, at in used:
            node.input[at] = names[2]
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _front_end(graph: Any) -> set[str]:
    """The names of the nodes up to the decibels: the first logarithm and everything before it."""
    maker = {output: node for node in graph.node for output in node.output}
    left = [node for node in graph.node if node.op_type == "Log"][:1]
    names: set[str] = set()
    while left:
        node = left.pop()
        if node.name not in names:
            names.add(node.name)
            left += [maker[name] for name in node.input if name in maker]
    return names
