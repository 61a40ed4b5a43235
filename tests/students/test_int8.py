"""8-bit files of graphs made by hand: every kind of layer, any number of classes, and what is said of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from logitstore.jobs.export_student import _warning
from logitstore.models.onnx_session import open_session
from students import int8
from students.export import INPUT, OUTPUT, Agreement

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


def graph(layers: list[tuple[str, list[list[int]], dict[str, Any]]], classes: int) -> bytes:
    """Waveforms (1, 64) through a front end (one product and a logarithm), the layers, a mean and a last layer."""
    rng = np.random.default_rng(0)
    nodes, weights = [], {}

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [f"v{len(nodes)}"], f"n{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def weight(shape: list[int], scale: float = 0.5) -> str:
        name = f"w{len(weights)}"
        weights[name] = (rng.normal(0, scale, shape)).astype(np.float32)
        return name

    def integers(*values: int) -> str:
        name = f"i{len(weights)}"
        weights[name] = np.array(values, dtype=np.int64)
        return name

    weights["mel"] = np.abs(rng.normal(0, 1, (64, 64))).astype(np.float32)
    said = add("Log", [add("Abs", [add("MatMul", [INPUT, "mel"])])])
    for kind, shapes, attributes in layers:
        if kind == "Reshape":
            said = add(kind, [said, integers(*shapes[0])])
        else:
            said = add(kind, [said, *(weight(shape) for shape in shapes)], **attributes)
    flat = add("Reshape", [said, integers(1, -1)])
    size = np.prod(onnx_shape(nodes, weights, flat))
    out = add("Gemm", [flat, weight([classes, int(size)], 0.02), weight([classes])], transB=1)
    nodes.append(onnx.helper.make_node("Sigmoid", [out], [OUTPUT], "last"))
    return made(nodes, weights, [1, classes]).SerializeToString()


def made(nodes: list[Any], weights: dict[str, Any], shape: list[int] | None) -> Any:
    values = [onnx.helper.make_tensor_value_info(INPUT, 1, [1, 64])]
    ends = [onnx.helper.make_tensor_value_info(nodes[-1].output[0], 1, shape)]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", values, ends, tensors), opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    model.ir_version = 9
    return model


def onnx_shape(nodes: list[Any], weights: dict[str, Any], name: str) -> tuple[int, ...]:
    model = made(nodes, weights, None)
    return run(model.SerializeToString(), name).shape


def run(content: bytes, name: str = OUTPUT, seed: int = 0) -> Any:
    return open_session(content).run([name], {INPUT: sound(seed)})[0]


def sound(seed: int) -> Any:
    return np.random.default_rng(seed).normal(0, 1, (1, 64)).astype(np.float32)


LAYERS: dict[str, list[tuple[str, list[list[int]], dict[str, Any]]]] = {
    "convolutions, 2-d": [
        ("Reshape", [[1, 1, 8, 8]], {}), ("Conv", [[4, 1, 3, 3]], {}), ("Relu", [], {}),
        ("Conv", [[8, 4, 3, 3], [8]], {}),
    ],
    "convolutions, depthwise and grouped": [
        ("Reshape", [[1, 1, 8, 8]], {}), ("Conv", [[4, 1, 3, 3]], {}), ("Conv", [[4, 1, 3, 3]], {"group": 4}),
        ("Conv", [[6, 2, 1, 1]], {"group": 2}),
    ],
    "convolutions, 1-d": [
        ("Reshape", [[1, 1, 64]], {}), ("Conv", [[4, 1, 5]], {}), ("Conv", [[8, 4, 5]], {}),
        ("ConvTranspose", [[8, 2, 3]], {}),
    ],
    "matrices": [
        ("MatMul", [[64, 32]], {}), ("Relu", [], {}), ("Gemm", [[32, 16]], {}), ("Gemm", [[8, 16]], {"transB": 1}),
    ],
    "a convolution and matrices": [
        ("Reshape", [[1, 1, 64]], {}), ("Conv", [[2, 1, 5]], {}), ("MatMul", [[60, 32]], {}),
        ("MatMul", [[32, 32]], {}),
    ],
    "a recurrent layer": [("Reshape", [[8, 1, 8]], {}), ("GRU", [[1, 12, 8], [1, 12, 4]], {"hidden_size": 4})],
}  # fmt: skip


@pytest.mark.parametrize("classes", [1, 2, 527])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_8_bit_weights_whatever_the_number_of_classes(name: str, classes: int) -> None:
    content = graph(LAYERS[name], classes)
    method = int8.method_for(content)
    assert method == int8.method_for(graph(LAYERS[name], 3))
    assert method == (int8.STATIC if name.startswith("convolutions") else int8.DYNAMIC)
    small = int8.quantised(content, method, [{INPUT: sound(seed)} for seed in range(4)])
    floats = [
        weight.name
        for weight in onnx.load_from_string(small).graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1
    ]
    assert floats == ["mel"]
    learnt = sum(
        int(np.prod(weight.dims))
        for weight in onnx.load_from_string(content).graph.initializer
        if len(weight.dims) > 1 and weight.name != "mel"
    )
    found = int8.weights_of(small)
    assert found.eight_bits == learnt
    assert found.floating[int8.FRONT_END] == 64 * 64
    for seed in range(3):
        np.testing.assert_allclose(run(small, seed=seed), run(content, seed=seed), rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("largest", "top1", "said"),
    [(0.01, 1.0, None), (0.01, 0.9, "another first class for 10.0% of the clips"), (0.4, 1.0, "up to 0.4 away")],
)
def test_8_bits_that_cost_much_are_warned_of(largest: float, top1: float, said: str | None) -> None:
    found = _warning(Agreement(largest, 0.001, top1, ((4, 100),)))
    assert found is None if said is None else said in str(found)
