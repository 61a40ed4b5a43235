"""TensorFlow Lite files for tests, written op by op with the schema that ships with ai-edge-litert."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np


class Sketch:
    """A model of one graph; tensors and ops are added, and :meth:`save` writes the file."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        data: Any = None,
        *,
        kind: str = "FLOAT32",
        scale: tuple[float, int] | None = None,
        batches: bool = False,
    ) -> int:
        """``batches`` says that the first size is not fixed; ``scale`` is a scale and a zero point."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = getattr(self.schema.TensorType, kind)
        if batches:
            tensor.shapeSignature = [-1, *shape[1:]]
        if scale is not None:
            quantization = self.schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = [scale[0]], [scale[1]]
            tensor.quantization = quantization
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), dtype=np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, kind: str, inputs: list[int], output: int, options: str | None = None, **values: Any) -> int:
        """``options`` names the table of the op's own settings, ``values`` are them; the output is given back."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        if options is not None:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in values.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def save(self, file: Path, inputs: list[int], outputs: list[int], labels: dict[str, str] | None = None) -> Path:
        """``labels`` are texts by name, in a ZIP behind the model, as TensorFlow Lite's metadata have them."""
        import flatbuffers

        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        file.write_bytes(bytes(builder.Output()))
        if labels:
            with zipfile.ZipFile(file, "a") as archive:
                for name, text in labels.items():
                    archive.writestr(name, text)
        return file


def linear(
    file: Path,
    weights: Any,
    *,
    given: tuple[int, ...] | None = None,
    last: str | None = "LOGISTIC",
    batches: bool = True,
    frames: int = 1,
    labels: dict[str, str] | None = None,
    scales: tuple[tuple[float, int], tuple[float, int]] | None = None,
    kind: str = "INT8",
) -> Path:
    """The file of one product with weights float32 (frames * classes, samples), and ``last`` behind it.

    :param given: the shape of its input, (1, samples) unless given. :param batches: whether it takes several clips.
    :param scales: of a model whose input and output are integers of ``kind``.
    """
    rows, samples = weights.shape
    classes = rows // frames
    given = (1, samples) if given is None else given
    sketch = Sketch()
    first = at = sketch.tensor(
        "waveforms", given, batches=batches, kind=kind if scales else "FLOAT32", scale=scales and scales[0]
    )
    if scales:
        at = sketch.op("DEQUANTIZE", [at], sketch.tensor("floats", given, batches=batches))
    if given != (1, samples):
        shape = sketch.tensor("flat", (2,), np.array([-1 if batches else 1, samples], dtype=np.int32), kind="INT32")
        at = sketch.op("RESHAPE", [at, shape], sketch.tensor("flattened", (1, samples), batches=batches))
    at = sketch.op(
        "FULLY_CONNECTED",
        [at, sketch.tensor("weights", weights.shape, weights.astype(np.float32)), -1],
        sketch.tensor("product", (1, rows), batches=batches),
        "FullyConnectedOptions",
    )
    size = (1, frames, classes) if frames > 1 else (1, classes)
    if frames > 1 or not batches:  # a batch of two has no place in a shape that is written down
        target = np.array([-1 if batches else 1, *size[1:]], dtype=np.int32)
        shape = sketch.tensor("shape", (len(target),), target, kind="INT32")
        at = sketch.op("RESHAPE", [at, shape], sketch.tensor("by frame", size, batches=batches))
    if last is not None:
        options = {"SOFTMAX": {"options": "SoftmaxOptions", "beta": 1.0}}.get(last, {})
        at = sketch.op(last, [at], sketch.tensor("scores", size, batches=batches), **options)  # type: ignore[arg-type]
    if scales:
        at = sketch.op("QUANTIZE", [at], sketch.tensor("integers", size, batches=batches, kind=kind, scale=scales[1]))
    return sketch.save(file, [first], [at], labels)
