"""An exported student with 8-bit weights, by onnxruntime's quantiser; the front end stays as it is.

As onnxruntime advises: where most weights are in convolutions, weights and activations are quantised, with the ranges
of the activations measured on audio (static); where most are in matrix products, as in a transformer, those ranges are
found for each batch as it runs (dynamic), which is closer and needs no audio. The first convolution stays as it is: it
has few weights, and hears decibels, whose range is too wide for 8 bits (measured on a cnn4: probabilities ten times
nearer without it).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.arrays import F32
from logitstore.errors import RunError
from students.export import INPUT, quiet

STATIC, DYNAMIC = "static", "dynamic"
_MATRICES = ("MatMul", "Gemm")


def method_for(content: bytes) -> str:
    """How a file is quantised: by where most of its weights are, "static" or "dynamic"."""
    import onnx

    graph = onnx.load_from_string(content).graph
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    kept = _front_end(graph)

    def weights(kinds: tuple[str, ...]) -> int:
        nodes = [node for node in graph.node if node.op_type in kinds and node.name not in kept]
        return sum(sizes.get(name, 0) for node in nodes for name in node.input)

    return STATIC if weights(("Conv",)) > weights(_MATRICES) else DYNAMIC


def quantised(content: bytes, method: str, heard: list[F32], activation_bits: int = 8) -> bytes:
    """A file with 8-bit weights.

    :param content: a file of :func:`students.export.checked`. :param method: of :func:`method_for`.
    :param heard: waveforms float32 (B, S) to measure ranges on; the static method needs some.
    :param activation_bits: 8, or 16 for activations that are nearer and computed as floats; of the static method.
    :raises RunError: none are given to the static method.
    """
    import onnx
    from onnxruntime import quantization

    if method == STATIC and not heard:
        raise RunError("the ranges of a convolutional student's activations are measured on audio, and there is none")
    graph = onnx.load_from_string(content).graph
    first = [node.name for node in graph.node if node.op_type == "Conv"][:1]
    kept = sorted({*_front_end(graph), *first})

    class Audio(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The batches, one after the other."""

        def __init__(self) -> None:
            self._left: Iterator[F32] = iter(heard)

        def get_next(self) -> dict[str, Any] | None:
            waveforms = next(self._left, None)
            return None if waveforms is None else {INPUT: waveforms}

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
        return target.read_bytes()


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
