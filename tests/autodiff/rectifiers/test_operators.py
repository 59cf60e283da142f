"""Which nodes are rectifiers, and which only look like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import BATCH, Net

from onnx_gradcam.autodiff.rectifiers.operators import Activation, activation
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

RELU = Activation("piecewise", "Relu")
FOLDED = Activation("piecewise", "QuantizeLinear")
CLIP, NO_CLIP = Activation("piecewise", "Clip"), Activation("other", "Clip")


def net() -> tuple[Net, str]:
    """A network that has begun with a convolution of its image."""
    made = Net()
    return made, made.conv(made.input("image", [BATCH, 3, 4, 4]), (3, 4), out="x")


def of(made: Net, name: str = "y") -> Activation | None:
    """The node that makes the value ``name``."""
    made.op("Identity", name, out="end")
    graph = prepare(load(made.model({"end": None})).model).graph
    node = ir.convenience.create_value_mapping(graph)[name].producer()
    assert node is not None
    return activation(node)


def c(made: Net, number: float) -> str:
    return made.array(np.float32(number))


def quantized(made: Net, x: str, zero: Any, scale: float = 0.02, out: str = "") -> str:
    return made.op("QuantizeLinear", x, c(made, scale), made.array(zero), out=out)


def through(made: Net, x: str, zero: Any, scale: float = 0.02) -> str:
    """Quantized and dequantized."""
    return made.op("DequantizeLinear", quantized(made, x, zero, scale), c(made, scale), made.array(zero))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 6, CLIP), (0, None, CLIP), (-1, 1, NO_CLIP), (1e-12, None, NO_CLIP), (None, 6, NO_CLIP), (0, 0, NO_CLIP)],
)
def test_clip(low: float | None, high: float | None, expected: Activation) -> None:
    made, x = net()
    made.op("Clip", x, *("" if bound is None else c(made, bound) for bound in (low, high)), out="y")
    assert of(made) == expected


def test_a_bound_that_is_known_in_the_run_only() -> None:
    made, x = net()
    made.op("Clip", x, made.op("ReduceMin", x, keepdims=0), out="y")
    assert of(made) == NO_CLIP


def test_max_and_min() -> None:
    for operator, bound, expected in [("Max", 0, "piecewise"), ("Max", 0.1, None), ("Min", 0, None)]:
        for order in (1, -1):
            made, x = net()
            made.op(operator, *[x, c(made, bound)][::order], out="y")
            found = of(made)
            assert (found and found.kind) == expected


# Where zero is the least number of the format, and where it is not.
ZEROS = [
    (np.uint8(0), FOLDED),
    (np.int8(-128), FOLDED),
    (np.uint16(0), FOLDED),
    (np.int16(-32768), FOLDED),
    (np.uint8(128), None),
    (np.uint8(1), None),
    (np.int8(0), None),
]


@pytest.mark.parametrize(("zero", "expected"), ZEROS, ids=[f"{z.dtype} {z}" for z, _ in ZEROS])
def test_a_relu_that_was_folded_into_the_format(zero: Any, expected: Activation | None) -> None:
    made, x = net()
    made.opset = 21
    quantized(made, x, zero, out="y")
    assert of(made) == expected


def test_a_format_of_channels_is_none() -> None:
    made, x = net()
    scale, zero = made.array(np.full(4, 0.02, np.float32)), made.array(np.zeros(4, np.uint8))
    made.op("QuantizeLinear", x, scale, zero, axis=1, out="y")
    assert of(made) is None


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Softplus", "Abs"])
def test_what_is_never_negative_is_not_rectified_by_its_format(operator: str) -> None:
    made, x = net()
    quantized(made, made.op(operator, x), np.uint8(0), out="y")
    assert of(made) is None


def test_the_format_of_the_image_is_no_rectifier() -> None:
    made = Net()
    moved = made.op("Transpose", made.input("image", [BATCH, 4, 4, 3]), perm=[0, 3, 1, 2])
    quantized(made, moved, np.uint8(0), out="y")
    assert of(made) is None


def test_the_range_of_the_image_is_no_rectifier() -> None:
    made = Net()
    made.op("Clip", made.input("image", [BATCH, 3, 4, 4]), c(made, 0), c(made, 255), out="y")
    assert of(made) == NO_CLIP


def test_what_pools_and_sums_of_positive_numbers_are_stored_in() -> None:
    """A rectified value pooled, added to another and averaged stays what it is; a convolution of it does not."""
    made, x = net()
    first = through(made, x, np.uint8(0))
    pooled = made.op("MaxPool", first, kernel_shape=[2, 2])
    total = made.op("Add", through(made, pooled, np.uint8(0)), made.op("Relu", pooled))
    joined = made.op("Concat", total, pooled, axis=1)
    quantized(made, made.op("GlobalAveragePool", joined), np.uint8(0), out="y")
    quantized(made, made.conv(total, (4, 4)), np.uint8(0), out="z")
    quantized(made, made.op("Add", total, made.op("Neg", pooled)), np.uint8(0), out="w")
    made.op("Concat", *(made.op("Flatten", made.op("Cast", v, to=1)) for v in ("y", "z", "w")), axis=1, out="all")
    graph = prepare(load(made.model({"all": None})).model).graph
    nodes = {name: v.producer() for name, v in ir.convenience.create_value_mapping(graph).items()}
    found = {name: activation(node) for name in ("y", "z", "w") if (node := nodes[name]) is not None}
    assert found == {"y": None, "z": FOLDED, "w": FOLDED}


@pytest.mark.parametrize("operator", ["Sigmoid", "Tanh", "HardSwish", "Relu"])
def test_what_another_activation_reads_is_a_format(operator: str) -> None:
    """Before a Sigmoid there is no Relu, though all that calibration saw was positive."""
    made, x = net()
    stored = quantized(made, x, np.uint8(0), out="q")
    made.op(operator, made.op("DequantizeLinear", stored, c(made, 0.02), made.array(np.uint8(0))), out="read")
    made.op("Add", made.op("Cast", stored, to=1), "read", out="y")
    graph = prepare(load(made.model({"y": None})).model).graph
    node = ir.convenience.create_value_mapping(graph)["q"].producer()
    assert node is not None
    assert activation(node) == (FOLDED if operator == "Relu" else None)


def test_a_mean_is_not_rectified_by_its_format() -> None:
    made, x = net()
    quantized(made, made.op("ReduceMean", x, made.ints(2, 3)), np.uint8(0), out="y")
    assert of(made) is None


@pytest.mark.parametrize(("shift", "high", "expected"), [(3, 6, "other"), (0.5, 1, "other"), (3, 5, "piecewise")])
def test_a_part_of_a_hard_sigmoid(shift: float, high: float, expected: str) -> None:
    made, x = net()
    made.op("Clip", made.op("Add", c(made, shift), x), c(made, 0), c(made, high), out="y")
    found = of(made)
    assert found is not None
    assert found.kind == expected


def test_a_hard_sigmoid_whose_clip_was_folded_into_the_format() -> None:
    """Relu6(x + 3), stored in bytes from 0 to 6."""
    made, x = net()
    quantized(made, made.op("Add", through(made, x, np.int8(0)), c(made, 3)), np.uint8(0), scale=6 / 255, out="y")
    assert of(made) == Activation("other", "QuantizeLinear")


def test_the_same_name_in_another_domain() -> None:
    node = ir.node("Relu", [ir.val("x", dtype=ir.DataType.FLOAT)], domain="mine")
    assert activation(node) is None
