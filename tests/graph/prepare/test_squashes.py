from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.score import find_heads
from onnx_gradcam.graph.prepare.prepare import prepare

CLASSES = 5
Write = Callable[[Net, str, int], str]


def half(net: Net) -> str:
    return net.array(np.float32(0.5))


def one(net: Net) -> str:
    return net.array(np.float32(1))


def softmax(net: Net, y: str, axis: int) -> str:
    power = net.op("Exp", y)
    return net.op("Div", power, net.op("ReduceSum", power, net.ints(axis)))


def stable_softmax(net: Net, y: str, axis: int) -> str:
    return softmax(net, net.op("Sub", y, net.op("ReduceMax", y, net.ints(axis))), axis)


def softmax_by_reciprocal(net: Net, y: str, axis: int) -> str:
    power = net.op("Exp", y)
    return net.op("Mul", net.op("Reciprocal", net.op("ReduceSum", power, net.ints(axis))), power)


def expanded_softmax(net: Net, y: str, axis: int) -> str:
    """As jax2tf and tf2onnx write it: each reduction drops its axis, which is put back and expanded."""
    shape = net.op("Shape", y)

    def fitting(reduced: str) -> str:
        return net.op("Expand", net.op("Unsqueeze", reduced, net.ints(axis)), shape)

    shifted = net.op("Sub", y, fitting(net.op("ReduceMax", y, net.ints(axis), keepdims=0)))
    power = net.op("Exp", shifted)
    return net.op("Div", power, fitting(net.op("ReduceSum", power, net.ints(axis), keepdims=0)))


def log_softmax(net: Net, y: str, axis: int) -> str:
    return net.op("Sub", y, net.op("ReduceLogSumExp", y, net.ints(axis)))


def stable_log_softmax(net: Net, y: str, axis: int) -> str:
    shifted = net.op("Sub", y, net.op("ReduceMax", y, net.ints(axis)))
    total = net.op("ReduceSum", net.op("Exp", shifted), net.ints(axis))
    return net.op("Sub", shifted, net.op("Log", total))


def sigmoid_by_reciprocal(net: Net, y: str, axis: int) -> str:
    return net.op("Reciprocal", net.op("Add", net.op("Exp", net.op("Neg", y)), one(net)))


def sigmoid_by_division(net: Net, y: str, axis: int) -> str:
    negative = net.op("Mul", y, net.array(np.float32(-1)))
    return net.op("Div", one(net), net.op("Add", one(net), net.op("Exp", negative)))


def sigmoid_of_powers(net: Net, y: str, axis: int) -> str:
    power = net.op("Exp", y)
    return net.op("Div", power, net.op("Add", one(net), power))


def sigmoid_by_tanh(net: Net, y: str, axis: int) -> str:
    return net.op("Add", net.op("Mul", net.op("Tanh", net.op("Mul", y, half(net))), half(net)), half(net))


WRITTEN: dict[str, list[Write]] = {
    "Softmax": [softmax, stable_softmax, softmax_by_reciprocal, expanded_softmax],
    "LogSoftmax": [log_softmax, stable_log_softmax],
    "Sigmoid": [sigmoid_by_reciprocal, sigmoid_by_division, sigmoid_of_powers, sigmoid_by_tanh],
}
CASES = [pytest.param(op_type, write, id=write.__name__) for op_type, forms in WRITTEN.items() for write in forms]


def network(write: Write | str, grid: bool = False) -> onnx.ModelProto:
    """A classifier, or a map of classes for each cell, behind a squashing that is written out or is one operator."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="layer")
    x = net.conv(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), (6, 6), out="deep")
    x = net.op("Relu", x, out="deep_relu")
    y = net.conv(x, (6, CLASSES), kernel=1, out="logits") if grid else net.head(x, 6, CLASSES)
    if isinstance(write, str):
        attributes = {} if write == "Sigmoid" else {"axis": 1}
        made = net.op(write, y, **attributes)
    else:
        made = write(net, y, 1)
    net.op("Identity", made, out="p")
    return net.model({"p": [BATCH, CLASSES, 4, 4] if grid else [BATCH, CLASSES]})


@pytest.mark.parametrize(("op_type", "write"), CASES)
@pytest.mark.parametrize("grid", [False, True])
def test_the_score_is_the_logit_before_it(op_type: str, write: Write, grid: bool) -> None:
    (head,), (single,) = (find_heads(prepare(ir.from_proto(network(w, grid))).graph) for w in (write, op_type))
    assert (head.name, head.kind, head.count) == ("logits", "dense" if grid else "classes", CLASSES)
    assert (head.activation, head.reason) == (single.activation, single.reason)


@pytest.mark.parametrize(("op_type", "write"), CASES)
@pytest.mark.parametrize("grid", [False, True])
def test_the_map_is_that_of_the_one_operator(op_type: str, write: Write, grid: bool) -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    with ogc.Explainer(network(write, grid)) as several, ogc.Explainer(network(op_type, grid)) as single:
        ours, theirs = several.explain(x, method="gradcam"), single.explain(x, method="gradcam")
    np.testing.assert_array_equal(ours.class_index, theirs.class_index)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-5)
    np.testing.assert_allclose(ours.cam, theirs.cam, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours.outputs["p"], theirs.outputs["p"], rtol=1e-5)


def operators(net: Net, output: str) -> list[str]:
    return [node.op_type for node in prepare(ir.from_proto(net.model({output: None}))).graph]


def test_a_value_between_that_is_an_output_stays() -> None:
    net = Net()
    power = net.op("Exp", net.input("x", [BATCH, 4]), out="power")
    net.op("Div", power, net.op("ReduceSum", power, net.ints(1)), out="p")
    made = prepare(ir.from_proto(net.model({"p": [BATCH, 4], "power": [BATCH, 4]}))).graph
    assert {v.name: v.producer().op_type for v in made.outputs} == {"p": "Softmax", "power": "Exp"}  # type: ignore[union-attr]


def test_a_sum_of_something_else_is_no_softmax() -> None:
    net = Net()
    x = net.input("x", [BATCH, 4])
    net.op("Div", net.op("Exp", x), net.op("ReduceSum", net.op("Abs", x), net.ints(1)), out="p")
    assert operators(net, "p") == ["Exp", "Abs", "ReduceSum", "Div"]


def test_a_sum_along_another_axis_than_it_is_divided_along_is_no_softmax() -> None:
    net = Net()
    power = net.op("Exp", net.input("x", [4, 4]))
    total = net.op("ReduceSum", power, net.ints(0), keepdims=0)
    net.op("Div", power, net.op("Unsqueeze", total, net.ints(1)), out="p")
    assert "Softmax" not in operators(net, "p")


def test_what_is_subtracted_from_each_entry_stays_below_the_softmax() -> None:
    net = Net()
    shifted = net.op("Sub", net.input("x", [BATCH, 4]), net.input("bias", [BATCH, 4]))
    power = net.op("Exp", shifted)
    net.op("Div", power, net.op("ReduceSum", power, net.ints(1)), out="p")
    assert operators(net, "p") == ["Sub", "Softmax"]


def test_a_steeper_sigmoid_squashes_the_scaled_value() -> None:
    net = Net()
    scaled = net.op("Mul", net.input("x", [BATCH, 4]), net.array(np.float32(1.702)))
    net.op("Reciprocal", net.op("Add", net.op("Exp", net.op("Neg", scaled)), one(net)), out="p")
    assert operators(net, "p") == ["Mul", "Sigmoid"]


def test_the_probability_of_the_opposite_is_no_sigmoid() -> None:
    net = Net()
    net.op("Reciprocal", net.op("Add", net.op("Exp", net.input("x", [BATCH, 4])), one(net)), out="p")
    assert "Sigmoid" not in operators(net, "p")
