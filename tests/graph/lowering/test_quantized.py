"""Operators on quantized tensors: the standard form against ONNX Runtime's kernel, the gradient against differences.

What is differentiated is f(x) = clip(float operator(x)), x and y in real numbers, without any rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from reference.windows import convolution, geometry

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.registry import LOWERINGS
from onnx_gradcam.graph.lowering.table import lower
from onnx_gradcam.graph.prepare.prepare import prepare

Q = tuple[np.ndarray, np.ndarray, np.ndarray]  # integers, scale, zero point
RNG = np.random.default_rng(0)
OUT = (np.float32(0.05), np.uint8(110))


def quantized(*shape: int, scale: float = 0.02, zero: int = 120) -> Q:
    return RNG.integers(0, 256, shape).astype(np.uint8), np.float32(scale), np.uint8(zero)


def weights(*shape: int, columns: int | None = None) -> Q:
    """int8; with a scale and a zero point for each of so many channels or columns."""
    w = RNG.integers(-127, 128, shape).astype(np.int8)
    if columns is None:
        return w, np.float32(0.01), np.int8(0)
    return w, RNG.uniform(0.005, 0.02, columns).astype(np.float32), np.zeros(columns, np.int8)


def number(q: Q, axis: int = 0) -> np.ndarray:
    """What it stands for, in float64."""
    integers, scale, zero = q
    shape = [-1 if k == axis and np.ndim(scale) else 1 for k in range(integers.ndim)]
    return (integers.astype(np.float64) - zero.reshape(shape)) * scale.astype(np.float64).reshape(shape)


@dataclass(frozen=True)
class Row:
    """``inputs`` of the node; its input ``at`` is x; ``function``: float64 x → float64 y."""

    op_type: str
    inputs: Sequence[Any]
    function: Callable[[np.ndarray], np.ndarray]
    attributes: dict[str, Any] = field(default_factory=dict)
    at: int = 0
    domain: str = "com.microsoft"
    out: tuple[np.ndarray, np.ndarray] = OUT
    id: str = ""

    def __str__(self) -> str:
        return f"{self.op_type}-{self.id}" if self.id else self.op_type


def conv(x: np.ndarray, w: np.ndarray, group: int, strides: list[int], pads: list[int]) -> np.ndarray:
    return convolution(x, w, group, geometry(x, w.shape[2:], {"strides": strides, "pads": pads}))


def average(x: np.ndarray) -> np.ndarray:
    """Over windows of 2 × 2, in steps of 2."""
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))


def softmax(x: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


X4, X2, B2 = quantized(2, 4, 6, 6), quantized(3, 8), quantized(3, 8, scale=0.03, zero=90)
W, WC, BIAS = weights(6, 2, 3, 3), weights(6, 2, 3, 3, columns=6), RNG.integers(-3000, 3000, 6).astype(np.int32)
M, MC = weights(8, 5), weights(8, 5, columns=5)
G, GB = weights(5, 8), RNG.integers(-500, 500, 5).astype(np.int32)
UNIT = (np.float32(1 / 256), np.uint8(0))
CONV = {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 0]}


def conv_row(w: Q, id: str) -> Row:
    scale = np.float64(X4[1]) * w[1].astype(np.float64)
    bias = (BIAS * scale).reshape(1, -1, 1, 1)
    return Row(
        "QLinearConv",
        [*X4, *w, *OUT, BIAS],
        lambda x: conv(x, number(w), 2, [2, 1], [1, 1, 1, 0]) + bias,
        CONV,
        domain="",
        id=id,
    )


def channels_last(row: Row) -> Row:
    """The same of com.microsoft, with channels last."""
    x = np.moveaxis(row.inputs[0], 1, 3)
    return replace(
        row,
        inputs=[x, *row.inputs[1:]],
        function=lambda x: np.moveaxis(row.function(np.moveaxis(x, 3, 1)), 1, 3),
        attributes={**row.attributes, "channels_last": 1},
        domain="com.microsoft",
        id="channels last",
    )


ROWS = [
    conv_row(W, "one scale"),
    conv_row(WC, "a scale for each channel"),
    channels_last(conv_row(WC, "")),
    Row("QLinearMatMul", [*X2, *M, *OUT], lambda x: x @ number(M), domain=""),
    Row("QLinearMatMul", [*X2, *MC, *OUT], lambda x: x @ number(MC, 1), domain="", id="a scale for each column"),
    Row("QGemm", [*X2, *MC, None, *OUT], lambda x: x @ number(MC, 1)),
    Row(
        "QGemm",
        [*X2, *G, GB, *OUT],
        lambda x: 0.5 * (x @ number(G).T + GB * np.float64(X2[1]) * np.float64(G[1])),
        {"transB": 1, "alpha": 0.5},
        id="bias",
    ),
    Row("QLinearAdd", [*X2, *B2, *OUT], lambda x: x + number(B2)),
    Row("QLinearAdd", [*B2, *X2, *OUT], lambda x: x + number(B2), at=3, id="second"),
    Row("QLinearMul", [*X2, *B2, *OUT], lambda x: x * number(B2)),
    Row("QLinearConcat", [*OUT, *X2, *B2], lambda x: np.concatenate([x, number(B2)], 1), {"axis": 1}, at=2),
    Row("QLinearSigmoid", [*X2, *UNIT], lambda x: 1 / (1 + np.exp(-x)), out=UNIT),
    Row("QLinearLeakyRelu", [*X2, *OUT], lambda x: np.where(x > 0, x, 0.1 * x), {"alpha": 0.1}),
    Row("QLinearSoftmax", [*X2, *UNIT], lambda x: softmax(x, 1), {"axis": 1, "opset": 13}, out=UNIT),
    Row(
        "QLinearSoftmax",
        [*X4, *UNIT],
        lambda x: softmax(x, (1, 2, 3)),
        {"axis": 1, "opset": 12},
        out=UNIT,
        id="over all axes from one on",
    ),
    Row("QLinearGlobalAveragePool", [*X4, *OUT], lambda x: x.mean((2, 3), keepdims=True)),
    Row(
        "QLinearGlobalAveragePool",
        [*X4, *OUT],
        lambda x: x.mean((1, 2), keepdims=True),
        {"channels_last": 1},
        id="channels last",
    ),
    Row("QLinearAveragePool", [*X4, *OUT], average, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Row(
        "QLinearAveragePool",
        [*quantized(2, 6, 6, 4), *OUT],
        lambda x: np.moveaxis(average(np.moveaxis(x, 3, 1)), 1, 3),
        {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 1},
        id="channels last",
    ),
]


def model_of(row: Row) -> onnx.ModelProto:
    """x → QuantizeLinear → the node → DequantizeLinear → y; everything else is constant."""
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(row.inputs)]
    names[row.at] = "q"
    node = onnx.helper.make_node(row.op_type, names, ["yq"], "the_node", domain=row.domain, **row.attributes)
    constants = {n: a for n, a in zip(names, row.inputs, strict=True) if n and n != "q"}
    constants |= {"y_scale": row.out[0], "y_zero": row.out[1]}
    scale, zero = (f"i{row.at + 1}", f"i{row.at + 2}")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["x", scale, zero], ["q"], "in"),
            node,
            onnx.helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["y"], "out"),
        ],
        "row",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, row.inputs[row.at].shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def run(model: onnx.ModelProto, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(a) for a in session.run(names, feeds)]


def test_every_lowering_of_a_quantized_operator_has_a_row() -> None:
    tested = {(row.domain, row.op_type) for row in ROWS} | ELSEWHERE
    quantized_ones = {key for key, f in LOWERINGS.items() if f.__module__.endswith("lowering.quantized")}
    assert quantized_ones == tested


ELSEWHERE = {  # no kernel to quantize with on the CPU, or tested with the whole pattern that they are part of
    ("", "ConvInteger"),
    ("", "MatMulInteger"),
    ("com.microsoft", "QLinearReduceMean"),
    ("com.microsoft", "QLinearWhere"),
}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_standard_form_computes_what_the_kernel_computes(row: Row) -> None:
    """To one step of the output's scale: the kernels round where the standard form does not."""
    copy = prepare(ir.from_proto(model_of(row)))
    node = next(n for n in copy.graph if n.name == "the_node")
    (found,) = lower(Builder(copy.graph), node) or ()
    copy.graph.outputs[:] = [node.outputs[0], found]
    x = number(row.inputs[row.at : row.at + 3]).astype(np.float32)
    deployed, standard = run(ir.to_proto(copy), [v.name or "" for v in copy.graph.outputs], {"x": x})
    assert np.abs(deployed.astype(int) - standard.astype(int)).max() <= 1
    assert len(np.unique(deployed)) > 5  # it is no constant that they agree on


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_gradient_is_that_of_the_clipped_operator(row: Row) -> None:
    copy = prepare(ir.from_proto(model_of(row)))
    values = ir.convenience.create_value_mapping(copy.graph)
    nodes, op = list(copy.graph), Builder(copy.graph)
    y = values["y"]
    seed = ir.val("g", dtype=ir.DataType.FLOAT, shape=y.shape)
    copy.graph.inputs.append(seed)
    (gradient,) = pull_back(op, nodes, {y: seed}, [values["q"]])
    copy.graph.outputs[:] = [y, gradient]
    x = number(row.inputs[row.at : row.at + 3])
    scale, zero = float(row.out[0]), int(row.out[1])
    low, high = (0 - zero) * scale, (255 - zero) * scale

    def f(x: np.ndarray) -> np.ndarray:
        return np.clip(row.function(x), low, high)

    rng = np.random.default_rng(1)
    exact = row.function(x)
    near = np.minimum(np.abs(exact - low), np.abs(exact - high)) < 2 * scale
    g = np.where(near, 0, rng.standard_normal(exact.shape)).astype(np.float32)
    names = ["y", gradient.name or ""]
    deployed, found = run(ir.to_proto(copy), names, {"x": x.astype(np.float32), "g": g})
    assert np.abs(deployed - f(x)).max() <= 1.01 * scale
    for _ in range(5):
        v = rng.standard_normal(x.shape)
        numeric = np.vdot(g, f(x + 1e-6 * v) - f(x - 1e-6 * v)) / 2e-6
        assert np.vdot(found, v) == pytest.approx(numeric, rel=1e-5, abs=1e-6 * float(np.linalg.norm(found)))
    assert np.abs(found).max() > 0
