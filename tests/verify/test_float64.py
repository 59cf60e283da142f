"""The nodes in float64, against naive versions of the same operators and against the reference evaluator."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from reference_ops import REFERENCE_OPS

from onnx_gradcam.verify.float64 import NoReference, in_float64

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def node_of(op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any], opset: int = 21) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(inputs))]
    node = onnx.helper.make_node(op_type, names, ["y"], **attributes)
    infos = [onnx.ValueInfoProto(name=name) for name in names]
    graph = onnx.helper.make_graph([node], "node", infos, [onnx.ValueInfoProto(name="y")])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def evaluate(model: onnx.ModelProto, inputs: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return in_float64(ir.from_proto(model).graph[0], shape)(inputs)[0]


B = normal(6)
WINDOWS: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("Conv", [normal(2, 3, 7, 6), normal(4, 3, 3, 2)], {}),
    ("Conv", [normal(1, 4, 9, 8), normal(6, 2, 3, 3), B], {"group": 2, "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ("Conv", [normal(1, 4, 9), normal(4, 1, 3)], {"group": 4, "dilations": [2], "auto_pad": "VALID"}),
    ("Conv", [normal(1, 2, 8, 7), normal(3, 2, 3, 4)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [normal(1, 2, 8, 7), normal(3, 2, 3, 4)], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    ("Conv", [normal(1, 2, 4, 5, 3), normal(3, 2, 2, 3, 2)], {"pads": [1, 1, 0, 0, 1, 1]}),
    ("ConvTranspose", [normal(2, 4, 5, 4), normal(4, 3, 3, 2)], {"group": 2, "strides": [2, 3]}),
    ("ConvTranspose", [normal(1, 2, 5), normal(2, 3, 3), B[:3]], {"strides": [2], "pads": [1, 0], "dilations": [2]}),
    ("ConvTranspose", [normal(1, 2, 4, 4), normal(2, 3, 2, 2)], {"strides": [3, 3], "output_padding": [2, 1]}),
    ("ConvTranspose", [normal(1, 2, 4, 4), normal(2, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [normal(1, 2, 4, 4), normal(2, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("ConvTranspose", [normal(1, 2, 4, 4), normal(2, 3, 3, 3)], {"strides": [2, 2], "output_shape": [10, 8]}),
    ("ConvTranspose", [normal(1, 2, 4, 4), normal(2, 3, 3, 3)], {"strides": [2, 2], "output_shape": [10, 9]}),
    ("MaxPool", [normal(2, 3, 7, 8) - 5], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]}),
    ("MaxPool", [normal(1, 2, 9) - 5], {"kernel_shape": [3], "strides": [2], "dilations": [2], "ceil_mode": 1}),
    ("MaxPool", [normal(1, 2, 8, 8) - 5], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    *[
        ("AveragePool", [normal(1, 2, 7, 8) + 5], {"kernel_shape": [3, 3], "strides": [2, 2], **pads, **more})
        for pads in ({"pads": [1, 0, 1, 2]}, {"pads": [0, 1, 0, 0]}, {"auto_pad": "VALID"}, {})
        for more in ({}, {"ceil_mode": 1}, {"count_include_pad": 1}, {"ceil_mode": 1, "count_include_pad": 1})
    ],
    ("AveragePool", [normal(1, 2, 8, 8) + 5], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
]  # fmt: skip


LINE, ROWS = np.arange(1.0, 6), np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "expected"),
    [
        ("Pad", [LINE, np.array([-1, 2])], {}, [2, 3, 4, 5, 0, 0]),
        ("Pad", [LINE, np.array([1, -3]), np.array(7.0)], {}, [7, 1, 2]),
        ("Pad", [LINE, np.array([3, -2])], {"mode": "wrap"}, [1, 2, 3, 1, 2, 3]),
        ("Pad", [LINE, np.array([-1, 2])], {"mode": "reflect"}, [2, 3, 4, 5, 4, 3]),
        ("Pad", [ROWS, np.array([1, -2]), np.array(9.0), np.array([-1])], {}, [[9, 0], [9, 3]]),
        ("GatherElements", [ROWS, np.array([[2, -3, 0]])], {"axis": 1}, [[2, 0, 0]]),
        ("GatherElements", [ROWS, np.array([[1], [-2]])], {}, [[3], [0]]),
    ],
)
def test_places(op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any], expected: list[Any]) -> None:
    model = node_of(op_type, inputs, attributes)
    assert expected == evaluate(model, inputs, np.shape(expected)).tolist()


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), WINDOWS)
def test_windows(op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> None:
    model = node_of(op_type, inputs, attributes)
    fed = {f"x{i}": x for i, x in enumerate(inputs)}
    expected = ReferenceEvaluator(model, new_ops=list(REFERENCE_OPS)).run(None, fed)[0]
    found = evaluate(model, inputs, expected.shape)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_lrn(size: int) -> None:
    """Over the channels c − ⌊(size − 1)/2⌋ … c + ⌈(size − 1)/2⌉."""
    x = normal(2, 6, 2, 3)
    expected = np.empty_like(x)
    for n, c, i, j in itertools.product(*map(range, x.shape)):
        near = range(c - math.floor((size - 1) / 2), c + math.ceil((size - 1) / 2) + 1)
        energy = sum(float(x[n, k, i, j]) ** 2 for k in near if 0 <= k < 6)
        expected[n, c, i, j] = x[n, c, i, j] / (2 + 0.5 / size * energy) ** 0.6
    model = node_of("LRN", [x], {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0})
    np.testing.assert_allclose(evaluate(model, [x], x.shape), expected, rtol=1e-6)  # the attributes are float32


@pytest.mark.parametrize(("opset", "scales"), [(18, 2), (21, 6)])
def test_group_normalization(opset: int, scales: int) -> None:
    x, scale, bias = normal(2, 6, 4), normal(scales), normal(scales)
    expected = np.empty_like(x)
    for n, c in itertools.product(range(2), range(6)):
        group = x[n, c // 3 * 3 : c // 3 * 3 + 3]
        k = c * scales // 6
        expected[n, c] = (x[n, c] - group.mean()) / math.sqrt(group.var() + 1e-5) * scale[k] + bias[k]
    model = node_of("GroupNormalization", [x, scale, bias], {"num_groups": 2}, opset)
    np.testing.assert_allclose(evaluate(model, [x, scale, bias], x.shape), expected, rtol=1e-9)


def test_erf_and_gelu_keep_float64() -> None:
    x = np.array([-1.5, 0.0, 1e-9, 0.25, 3.0])
    erf = [math.erf(v) for v in x]
    np.testing.assert_array_equal(evaluate(node_of("Erf", [x], {}), [x], x.shape), erf)
    gelu = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(evaluate(node_of("Gelu", [x], {}), [x], x.shape), gelu, rtol=1e-14)
    tanh = [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x]
    model = node_of("Gelu", [x], {"approximate": "tanh"})
    np.testing.assert_allclose(evaluate(model, [x], x.shape), tanh, rtol=1e-14)


def test_a_cast_to_float32_does_not_round() -> None:
    x = np.array([1 / 3])
    model = node_of("Cast", [x], {"to": onnx.TensorProto.FLOAT})
    np.testing.assert_array_equal(evaluate(model, [x], (1,)), x)


def test_left_out_inputs_and_several_outputs() -> None:
    x = normal(4, 3)
    node = onnx.helper.make_node("Clip", ["x", "", "high"], ["y"])
    clip = in_float64(_in_graph(node), (4, 3))
    np.testing.assert_array_equal(clip([x, None, np.float64(0.5)])[0], np.minimum(x, 0.5))
    node = onnx.helper.make_node("Split", ["x"], ["a", "b"], num_outputs=2)
    found = in_float64(_in_graph(node), (2, 3))([x])
    np.testing.assert_array_equal(np.concatenate(found), x)


def test_what_the_reference_cannot_run_is_said() -> None:
    x = normal(2, 3)
    with pytest.raises(NoReference, match="reference evaluator"):
        evaluate(node_of("MatMul", [x, x], {}), [x, x], (2, 2))


def _in_graph(node: onnx.NodeProto) -> ir.Node:
    infos = [onnx.ValueInfoProto(name=name) for name in node.input if name]
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=name) for name in node.output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return ir.from_proto(model).graph[0]
