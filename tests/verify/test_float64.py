"""The nodes in float64, against naive versions of the same operators and against the reference evaluator."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import one_node
from reference import evaluator

from onnx_gradcam.verify.float64 import NoReference, in_float64

RNG = np.random.default_rng(0)
OPSET = 21


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def evaluate(model: onnx.ModelProto, inputs: list[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
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
    model = one_node(op_type, inputs, attributes, opset=OPSET)
    assert expected == evaluate(model, inputs, np.shape(expected)).tolist()


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), WINDOWS)
def test_windows(op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> None:
    model = one_node(op_type, inputs, attributes, opset=OPSET)
    fed = {f"x{i}": x for i, x in enumerate(inputs)}
    expected = evaluator(model).run(None, fed)[0]
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
    model = one_node("LRN", [x], {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, opset=OPSET)
    np.testing.assert_allclose(evaluate(model, [x], x.shape), expected, rtol=1e-6)  # the attributes are float32


@pytest.mark.parametrize(("opset", "scales"), [(18, 2), (21, 6)])
def test_group_normalization(opset: int, scales: int) -> None:
    x, scale, bias = normal(2, 6, 4), normal(scales), normal(scales)
    expected = np.empty_like(x)
    for n, c in itertools.product(range(2), range(6)):
        group = x[n, c // 3 * 3 : c // 3 * 3 + 3]
        k = c * scales // 6
        expected[n, c] = (x[n, c] - group.mean()) / math.sqrt(group.var() + 1e-5) * scale[k] + bias[k]
    model = one_node("GroupNormalization", [x, scale, bias], {"num_groups": 2}, opset=opset)
    np.testing.assert_allclose(evaluate(model, [x, scale, bias], x.shape), expected, rtol=1e-9)


def test_erf_and_gelu_keep_float64() -> None:
    x = np.array([-1.5, 0.0, 1e-9, 0.25, 3.0])
    erf = [math.erf(v) for v in x]
    np.testing.assert_array_equal(evaluate(one_node("Erf", [x], {}, opset=OPSET), [x], x.shape), erf)
    gelu = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(evaluate(one_node("Gelu", [x], {}, opset=OPSET), [x], x.shape), gelu, rtol=1e-14)
    tanh = [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x]
    model = one_node("Gelu", [x], {"approximate": "tanh"}, opset=OPSET)
    np.testing.assert_allclose(evaluate(model, [x], x.shape), tanh, rtol=1e-14)


def test_a_cast_to_float32_does_not_round() -> None:
    x = np.array([1 / 3])
    model = one_node("Cast", [x], {"to": onnx.TensorProto.FLOAT}, opset=OPSET)
    np.testing.assert_array_equal(evaluate(model, [x], (1,)), x)


def test_left_out_inputs_and_several_outputs() -> None:
    x = normal(4, 3)
    clip = one_node("Clip", [x, None, np.array(0.5)], opset=OPSET)
    np.testing.assert_array_equal(evaluate(clip, [x, None, np.array(0.5)], x.shape), np.minimum(x, 0.5))
    split = ir.from_proto(one_node("Split", [x], {"num_outputs": 2}, outputs=2, opset=OPSET)).graph[0]
    np.testing.assert_array_equal(np.concatenate(in_float64(split, (2, 3))([x])), x)


def test_what_the_reference_cannot_run_is_said() -> None:
    x = normal(2, 3)
    with pytest.raises(NoReference, match="reference evaluator"):
        evaluate(one_node("MatMul", [x, x], {}, opset=OPSET), [x, x], (2, 2))
