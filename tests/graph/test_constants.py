from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import BATCH, Net

from onnx_gradcam.graph.constants import constant, forget


def values(net: Net, *outputs: str) -> dict[str, ir.Value]:
    """The values of the net by name, as exported: without shape inference."""
    model = ir.from_proto(net.model(dict.fromkeys(outputs)))
    return ir.convenience.create_value_mapping(model.graph)


def computed(net: Net, name: str) -> Any:
    return constant(values(net, name)[name])


def test_an_initializer() -> None:
    net = Net()
    net.op("Relu", net.array(np.array([[1.5, -2]], np.float16), "w"), out="y")
    found = values(net, "y")
    np.testing.assert_array_equal(constant(found["w"]), np.array([[1.5, -2]], np.float16))
    assert constant(found["w"]).dtype == np.float16  # type: ignore[union-attr]


def test_what_constant_operators_make_of_it() -> None:
    net = Net()
    quantized = net.array(np.array([130, 128, 126], np.uint8))
    real = net.op("DequantizeLinear", quantized, net.array(np.float32(0.5)), net.array(np.uint8(128)))
    shape = net.op("Shape", net.op("Identity", real))
    filled = net.op("ConstantOfShape", shape)
    net.op("Sub", filled, real, out="y")
    np.testing.assert_array_equal(computed(net, "y"), np.array([-1, 0, 1], np.float32))


def test_an_input_is_not_constant_nor_what_it_touches() -> None:
    net = Net()
    x = net.input("x", [2])
    net.op("Add", x, net.op("Neg", net.array(np.ones(2, np.float32)), out="minus"), out="y")
    found = values(net, "y")
    assert constant(found["x"]) is None
    assert constant(found["y"]) is None
    np.testing.assert_array_equal(constant(found["minus"]), [-1, -1])
    assert constant(None) is None


def test_what_only_lends_its_dtype_need_not_be_constant() -> None:
    """As a function body casts its constants."""
    net = Net()
    net.op("CastLike", net.array(np.float64(1.5)), net.input("x", [2]), out="y")
    found = computed(net, "y")
    assert found is not None
    assert (found.dtype, found.item()) == (np.float32, 1.5)


@pytest.mark.parametrize("op_type", ["RandomUniformLike", "GlobalLpPool"])
def test_random_numbers_and_what_cannot_be_evaluated_are_not_constant(op_type: str) -> None:
    net = Net()
    net.op(op_type, net.array(np.ones((1, 2, 3), np.float32)), out="y")
    assert computed(net, "y") is None


def test_what_the_evaluator_refuses_though_the_runtime_does_not_is_not_constant() -> None:
    """torch writes the axis of CumSum as a vector."""
    net = Net()
    net.op("CumSum", net.array(np.arange(3)), net.array(np.array([0])), out="y")
    assert computed(net, "y") is None


def test_other_domains_are_not_evaluated() -> None:
    net = Net()
    net.domains["com.microsoft"] = 1
    net.op("Gelu", net.array(np.ones(2, np.float32)), out="y", domain="com.microsoft")
    assert computed(net, "y") is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [2, 3, 5]),
        ({"start": 1}, [3, 5]),
        ({"end": -1}, [2, 3]),
        ({"start": -2, "end": 2}, [3]),
    ],
)
def test_the_shape_of_a_static_value(attributes: dict[str, int], expected: list[int]) -> None:
    net = Net()
    net.op("Shape", net.input("x", [2, 3, 5]), out="y", **attributes)
    found = computed(net, "y")
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64


def test_the_size_of_a_static_value() -> None:
    net = Net()
    net.op("Size", net.input("x", [2, 3, 5]), out="y")
    assert computed(net, "y").shape == ()
    assert computed(net, "y") == 30


@pytest.mark.parametrize(("indices", "expected"), [(1, 3), (-1, 5), ([2, 1], [5, 3]), (0, None), ([0, 1], None)])
def test_static_dimensions_of_a_dynamic_shape(indices: object, expected: object) -> None:
    net = Net()
    shape = net.op("Shape", net.input("x", [BATCH, 3, 5]), out="shape")
    net.op("Gather", shape, net.array(np.array(indices, np.int64)), out="y")
    found = computed(net, "y")
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)
        assert found.shape == np.shape(indices)
    assert computed(net, "shape") is None


def test_dimensions_are_counted_from_the_start_of_the_shape_taken() -> None:
    net = Net()
    shape = net.op("Shape", net.input("x", [BATCH, 3, 5]), start=1)
    net.op("Gather", shape, net.array(np.array(0)), out="y")
    assert computed(net, "y") == 3


def test_gather_of_constants() -> None:
    net = Net()
    net.op("Gather", net.array(np.array([7.0, 8.0])), net.array(np.array(1)), out="y")
    assert computed(net, "y") == 8


def test_each_of_several_outputs() -> None:
    net = Net()
    halves = net.ops("Split", net.array(np.arange(5.0)), net.ints(2, 3), out=["a", "b"])
    found = values(net, *halves)
    np.testing.assert_array_equal(constant(found["a"]), [0, 1])
    np.testing.assert_array_equal(constant(found["b"]), [2, 3, 4])


def test_outputs_that_are_left_out() -> None:
    net = Net()
    net.ops("TopK", net.array(np.array([1.0, 3, 2])), net.ints(2), out=["", "places"])
    np.testing.assert_array_equal(computed(net, "places"), [1, 2])


def test_the_graph_stays_as_it_is() -> None:
    net = Net()
    net.op("Neg", net.op("ConstantOfShape", net.ints(2, 2)), out="y")
    model = ir.from_proto(net.model({"y": None}))
    before = ir.to_proto(model).SerializeToString()
    np.testing.assert_array_equal(constant(model.graph.outputs[0]), np.zeros((2, 2)))
    assert ir.to_proto(model).SerializeToString() == before


def test_a_value_may_be_asked_again_when_more_is_known() -> None:
    net = Net()
    shape = net.op("Shape", net.input("x", [BATCH, 3]), out="shape")
    net.op("Neg", shape, out="y")
    found = values(net, "y")
    assert constant(found["y"]) is None
    found["x"].shape = ir.Shape([4, 3])
    for value in found.values():
        forget(value)
    np.testing.assert_array_equal(constant(found["y"]), [-4, -3])


def test_what_a_deep_network_makes_of_its_input_is_not_known() -> None:
    net = Net()
    value = net.input("x", [BATCH, 3])
    for _ in range(1500):  # deeper than Python's stack
        value = net.op("Identity", value)
    net.op("Shape", value, out="y")
    assert computed(net, "y") is None


def test_a_constant_behind_many_operators_is_known() -> None:
    net = Net()
    value = net.array(np.array([2, 5], np.int64))
    for _ in range(1500):
        value = net.op("Identity", value)
    net.op("Neg", value, out="y")
    np.testing.assert_array_equal(computed(net, "y"), [-2, -5])
