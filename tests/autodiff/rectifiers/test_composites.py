"""Activations in pieces, in the forms that exporters and converters write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import pytest
from nets import BATCH, Net
from onnx import TensorProto

from onnx_gradcam.autodiff.rectifiers.composites import Composite, composites
from onnx_gradcam.autodiff.rectifiers.curves import GRID, describe
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

SHAPE = (BATCH, 4, 3, 3)


def found(write: Callable[[Net, str], Any], opset: int = 18) -> list[Composite]:
    """The composites in y = write(x), x the result of a convolution."""
    net = Net(opset)
    x = net.conv(net.input("image", SHAPE), (4, 4), out="x")
    net.op("Identity", write(net, x), out="y")
    graph = prepare(load(net.model({"y": None})).model).graph
    before = [(n.op_type, [v and v.name for v in n.inputs]) for n in graph]
    made = list(composites(list(graph)).values())
    assert [(n.op_type, [v and v.name for v in n.inputs]) for n in graph] == before
    return made


def c(net: Net, number: float, dtype: Any = np.float32) -> str:
    return net.array(np.array(number, dtype))


def silu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x))


def silu_turned(net: Net, x: str) -> str:
    return net.op("Mul", net.op("Sigmoid", x), x)


def silu_by_exp(net: Net, x: str) -> str:
    return net.op("Div", x, net.op("Add", c(net, 1), net.op("Exp", net.op("Neg", x))))


def quick_gelu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", net.op("Mul", x, c(net, 1.702))))


def swish_of_channels(net: Net, x: str) -> str:
    beta = net.array(np.array([0.5, 0.8, 1.2, 2], np.float32).reshape(4, 1, 1))
    return net.op("Mul", x, net.op("Sigmoid", net.op("Mul", x, beta)))


def _normal(net: Net, x: str) -> str:
    return net.op("Add", net.op("Erf", net.op("Div", x, c(net, np.sqrt(2)))), c(net, 1))


def gelu_torchscript(net: Net, x: str) -> str:
    return net.op("Mul", net.op("Mul", x, _normal(net, x)), c(net, 0.5))


def gelu_halved_first(net: Net, x: str) -> str:
    return net.op("Mul", net.op("Mul", x, c(net, 0.5)), _normal(net, x))


def gelu_halved_last(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Mul", c(net, 0.5), _normal(net, x)))


def gelu_tanh(net: Net, x: str) -> str:
    cube = net.op("Mul", net.op("Pow", x, c(net, 3)), c(net, 0.044715))
    inner = net.op("Mul", c(net, np.sqrt(2 / np.pi)), net.op("Add", x, cube))
    return net.op("Mul", net.op("Mul", c(net, 0.5), x), net.op("Add", c(net, 1), net.op("Tanh", inner)))


def gelu_tanh_of_products(net: Net, x: str) -> str:
    """As tf2onnx and JAX's converters write it, without Pow."""
    square = net.op("Mul", x, x)
    inner = net.op("Add", net.op("Mul", square, c(net, 0.044715)), c(net, 1))
    inner = net.op("Mul", net.op("Mul", x, inner), c(net, 0.79788456))
    return net.op("Mul", x, net.op("Mul", net.op("Add", net.op("Tanh", inner), c(net, 1)), c(net, 0.5)))


def _relu6_of_shifted(net: Net, x: str) -> str:
    return net.op("Clip", net.op("Add", x, c(net, 3)), c(net, 0), c(net, 6))


def hard_swish_paddle(net: Net, x: str) -> str:
    return net.op("Div", net.op("Mul", x, _relu6_of_shifted(net, x)), c(net, 6))


def hard_swish_torch(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Div", _relu6_of_shifted(net, x), c(net, 6)))


def hard_swish_tf(net: Net, x: str) -> str:
    return net.op("Mul", net.op("Mul", _relu6_of_shifted(net, x), c(net, 0.16666667)), x)


def hard_swish_of_relu_and_min(net: Net, x: str) -> str:
    shifted = net.op("Min", net.op("Relu", net.op("Add", x, c(net, 3))), c(net, 6))
    return net.op("Mul", net.op("Mul", x, shifted), c(net, 1 / 6))


def hard_swish_of_hard_sigmoid(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def mish(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Tanh", net.op("Softplus", x)))


def mish_without_softplus(net: Net, x: str) -> str:
    """As YOLOv4 converters write it."""
    return net.op("Mul", x, net.op("Tanh", net.op("Log", net.op("Add", net.op("Exp", x), c(net, 1)))))


def leaky_relu_by_max(net: Net, x: str) -> str:
    return net.op("Max", x, net.op("Mul", x, c(net, 0.1)))


def relu_by_where(net: Net, x: str) -> str:
    return net.op("Where", net.op("Greater", x, c(net, 0)), x, c(net, 0))


def elu_by_where(net: Net, x: str) -> str:
    below = net.op("Mul", net.op("Sub", net.op("Exp", x), c(net, 1)), c(net, 0.7))
    return net.op("Where", net.op("Greater", x, c(net, 0)), x, below)


def prelu_keras(net: Net, x: str) -> str:
    """pos = relu(x), neg = −α · relu(−x)."""
    alpha = net.array(np.array([-0.1, -0.25, -0.4, -0.7], np.float32).reshape(4, 1, 1))
    return net.op("Add", net.op("Relu", x), net.op("Mul", alpha, net.op("Relu", net.op("Neg", x))))


def in_float32_between_casts(net: Net, x: str) -> str:
    """As a float16 converter leaves an operator that it does not trust."""
    half = net.op("Cast", x, to=TensorProto.FLOAT16)
    gate = net.op("Cast", net.op("Sigmoid", net.op("Cast", half, to=TensorProto.FLOAT)), to=TensorProto.FLOAT16)
    return net.op("Cast", net.op("Mul", half, gate), to=TensorProto.FLOAT)


def quantized(net: Net, x: str, scale: float, zero: int) -> str:
    """As a quantizer writes it, with a DequantizeLinear for each reader."""
    step, start = c(net, scale), net.array(np.uint8(zero))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, step, start), step, start)


def silu_quantized(net: Net, x: str) -> str:
    """The gate's range ends at 0.9, which calibration saw."""
    step, start = c(net, 0.05), net.array(np.uint8(128))
    stored = net.op("QuantizeLinear", x, step, start)
    one, two = (net.op("DequantizeLinear", stored, step, start) for _ in range(2))
    return quantized(net, net.op("Mul", one, quantized(net, net.op("Sigmoid", two), 0.9 / 255, 0)), 0.05, 6)


def hard_swish_with_a_folded_clip(net: Net, x: str) -> str:
    """Relu6(x + 3) is what bytes from 0 to 6 hold of x + 3."""
    shifted = quantized(net, net.op("Add", x, c(net, 3)), 6 / 255, 0)
    return net.op("Mul", x, net.op("Mul", shifted, c(net, 1 / 6)))


FORMS = [
    (silu, "SiLU", 2),
    (silu_turned, "SiLU", 2),
    (silu_by_exp, "SiLU", 4),
    (in_float32_between_casts, "SiLU", 4),
    (quick_gelu, "QuickGelu", 3),
    (swish_of_channels, "Swish", 3),
    (gelu_torchscript, "Gelu", 5),
    (gelu_halved_first, "Gelu", 5),
    (gelu_halved_last, "Gelu", 5),
    (gelu_tanh, "Gelu", 8),
    (gelu_tanh_of_products, "Gelu", 9),
    (hard_swish_paddle, "HardSwish", 4),
    (hard_swish_torch, "HardSwish", 4),
    (hard_swish_tf, "HardSwish", 4),
    (hard_swish_of_relu_and_min, "HardSwish", 5),
    (hard_swish_of_hard_sigmoid, "HardSwish", 2),
    (silu_quantized, "SiLU", 6),
    (hard_swish_with_a_folded_clip, "HardSwish", 5),
    (mish, "Mish", 3),
    (mish_without_softplus, "Mish", 5),
    (elu_by_where, "Elu", 5),
    (leaky_relu_by_max, "LeakyRelu", 2),
    (relu_by_where, "Relu", 2),
    (prelu_keras, "PRelu", 5),
]
PIECEWISE = ("Relu", "LeakyRelu", "PRelu")


@pytest.mark.parametrize(("write", "name", "count"), FORMS, ids=[form[0].__name__ for form in FORMS])
def test_every_form(write: Callable[[Net, str], str], name: str, count: int) -> None:
    (composite,) = found(write)
    assert (composite.curve.name, len(composite.nodes)) == (name, count)
    assert composite.curve.piecewise == (name in PIECEWISE)
    assert composite.curve.slope == pytest.approx(1, rel=1e-4)
    assert composite.y is composite.nodes[-1].outputs[0]
    given = {v for n in composite.nodes for v in n.inputs if v is not None and v.producer() not in composite.nodes}
    assert {v for v in given if v.const_value is None} == {composite.x}


# The standard's own definitions of these operators, by simpler ones → their numbers, and how each is called.
BODIES: dict[str, tuple[dict[str, float], str]] = {
    "Elu": ({"alpha": 0.7}, "Elu"),
    "Gelu": ({}, "Gelu"),
    "HardSwish": ({}, "HardSwish"),
    "LeakyRelu": ({"alpha": 0.01}, "LeakyRelu"),
    "Mish": ({}, "Mish"),
    "Selu": ({"alpha": 1.67, "gamma": 1.05}, "Elu"),  # times a factor
    "Swish": ({"alpha": 1.0}, "SiLU"),
    "ThresholdedRelu": ({"alpha": 1.0}, "Less + Where"),
}


@pytest.mark.parametrize("operator", BODIES)
def test_function_bodies_of_the_standard(operator: str) -> None:
    numbers, name = BODIES[operator]
    net = Net(24, ir_version=11)
    net.op(operator, net.op("Neg", net.input("image", [2, 3]), out="x"), out="y", **numbers)
    model = onnx.inliner.inline_selected_functions(
        net.model({"y": [2, 3]}), [("", operator)], exclude=False, inline_schema_functions=True
    )
    graph = prepare(load(model).model).graph
    assert operator not in {node.op_type for node in graph}
    (composite,) = composites(list(graph)).values()
    assert (composite.curve.name, composite.x.name) == (name, "x")


def test_two_in_a_row_are_two() -> None:
    one, two = found(lambda net, x: silu(net, silu(net, x)))
    assert (one.curve.name, two.curve.name, one.y) == ("SiLU", "SiLU", two.x)


def test_a_factor_that_brings_the_slope_to_one_belongs_to_it() -> None:
    (with_half,) = found(gelu_torchscript)
    (without,) = found(lambda net, x: net.op("Mul", net.op("Mul", x, _normal(net, x)), c(net, 0.3)))
    (read_by_others,) = found(
        lambda net, x: net.op("Mul", net.op("Mul", net.op("Mul", x, _normal(net, x), out="m"), c(net, 0.5)), "m")
    )
    assert [len(found.nodes) for found in (with_half, without, read_by_others)] == [5, 4, 4]
    assert without.curve.slope == pytest.approx(2)


def test_the_input_of_each_is_the_nearest_value() -> None:
    """What is scaled before is not a part of it, nor is what comes after."""
    (composite,) = found(lambda net, x: net.op("Neg", silu(net, net.op("Add", x, c(net, 3), out="shifted"))))
    assert (composite.x.name, composite.nodes[-1].op_type) == ("shifted", "Mul")


def test_a_function_without_a_name_is_called_by_its_operators() -> None:
    (composite,) = found(lambda net, x: net.op("Mul", net.op("Add", x, c(net, 5)), net.op("Sigmoid", x)))
    assert composite.curve.name == "Add + Sigmoid + Mul"


def squeeze_excite(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", x), (4, 4), kernel=1)))


def hard_squeeze_excite(net: Net, x: str) -> str:
    pooled = net.conv(net.op("ReduceMean", x, net.ints(2, 3)), (4, 4), kernel=1)
    return net.op("Mul", x, net.op("Div", _relu6_of_shifted(net, pooled), c(net, 6)))


def gate_of_the_pooled(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", net.op("GlobalAveragePool", x)))


def gated_linear_unit(net: Net, x: str) -> str:
    left, right = net.ops("Split", x, out=["left", "right"], axis=1, num_outputs=2)
    return net.op("Mul", left, net.op("Sigmoid", right))


def gated_by_another(net: Net, x: str) -> str:
    return net.op("Mul", net.conv(x, (4, 4)), net.op("Sigmoid", x))


def square(net: Net, x: str) -> str:
    return net.op("Mul", x, x)


def cube(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Mul", x, x))


def residual_around_relu(net: Net, x: str) -> str:
    return net.op("Add", x, net.op("Relu", x))


def residual_around_silu_of_half(net: Net, x: str) -> str:
    """Only the SiLU inside: the sum passes negative numbers on."""
    return net.op("Add", x, net.op("Relu", net.op("Mul", x, c(net, 0.5))))


def soft_sign(net: Net, x: str) -> str:
    return net.op("Div", x, net.op("Add", net.op("Abs", x), c(net, 1)))


def normalised(net: Net, x: str) -> str:
    return net.op("Div", x, net.op("ReduceL2", x, net.ints(1)))


def odd(net: Net, x: str) -> str:
    """x·tanh²(x) is steep on both sides."""
    return net.op("Mul", x, square(net, net.op("Tanh", x)))


def a_grid_spread_over_it(net: Net, x: str) -> str:
    """A constant that makes the result larger than x."""
    pooled = net.op("GlobalAveragePool", x)
    grid = net.array(np.ones((1, 1, 5, 5), np.float32))
    return net.op("Mul", pooled, net.op("Sigmoid", net.op("Mul", pooled, grid)))


def of_channels_and_places(net: Net, x: str) -> str:
    """Two constants that are small alone, and a function for each of 10⁶ elements together."""
    channels, places = (net.array(np.ones(s, np.float32)) for s in [(1024, 1, 1), (1, 32, 32)])
    wide = net.op("Expand", x, net.ints(1, 1024, 32, 32))
    scaled = net.op("Mul", net.op("Mul", wide, channels), places)
    return net.op("Mul", wide, net.op("Sigmoid", scaled))


def compared(net: Net, x: str) -> str:
    mask = net.op("Greater", x, net.op("Mul", x, c(net, 0.5)))
    return net.op("Cast", mask, to=TensorProto.FLOAT)


GATES = [
    of_channels_and_places,
    compared,
    squeeze_excite,
    hard_squeeze_excite,
    gate_of_the_pooled,
    gated_linear_unit,
    gated_by_another,
    square,
    cube,
    residual_around_relu,
    residual_around_silu_of_half,
    soft_sign,
    normalised,
    odd,
    a_grid_spread_over_it,
]


@pytest.mark.parametrize("write", GATES, ids=[write.__name__ for write in GATES])
def test_what_is_none(write: Callable[[Net, str], str]) -> None:
    assert found(write) == []


def test_dead_ends_do_not_matter() -> None:
    """A value between that is read elsewhere, too, does not hide the composite."""

    def write(net: Net, x: str) -> str:
        gate = net.op("Sigmoid", x)
        return net.op("Concat", net.op("Mul", x, gate), gate, axis=1)

    (composite,) = found(write)
    assert composite.curve.name == "SiLU"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: 7 * np.maximum(x, 0), ("Relu", True)),
        (lambda x: np.where(x > 0, x, 0.3 * x), ("LeakyRelu", True)),
        (lambda x: np.logaddexp(0, x), ("Softplus", False)),
        (lambda x: np.sqrt(x * x + 4) + x, ("", False)),
        (lambda x: np.where(x > 0, x, 0.6 * x), None),
        (lambda x: -np.maximum(x, 0), None),
        (lambda x: np.maximum(-x, 0), None),
        (np.abs, None),
        (np.tanh, None),
        (np.exp, None),
        (lambda x: x, None),
        (lambda x: 0 * x, None),
        (lambda x: np.log(x), None),
        (lambda x: np.maximum(x, 0) ** 2, None),
    ],
)
def test_curves(function: Callable[[np.ndarray], np.ndarray], expected: tuple[str, bool] | None) -> None:
    with np.errstate(all="ignore"):
        found = describe(function(GRID)[:, None])
    assert (None if found is None else (found.name, found.piecewise)) == expected


def test_inner_values() -> None:
    (composite,) = found(hard_swish_tf)
    assert isinstance(composite.x, ir.Value)
    assert composite.inner == {v for n in composite.nodes[:-1] for v in n.outputs}
