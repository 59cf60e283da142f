from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net
from onnx import TensorProto

from onnx_gradcam.errors import MethodError, NoGradientPath
from onnx_gradcam.graph.flow import FirstFloat, first_float
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def found(net: Net, name: str = "x", output: str = "y") -> FirstFloat:
    model: onnx.ModelProto = net.model({output: None})
    graph = prepare(load(model).model).graph
    return first_float(graph, name, ir.convenience.create_value_mapping(graph)[output])


def test_a_float_input_is_its_own() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        net = Net()
        net.op("Relu", net.input("x", [BATCH, 3, 4, 4], dtype), out="y")
        assert found(net) == FirstFloat("x", "")


def test_bytes_are_cast_and_normalised() -> None:
    """The Transpose before the Cast moves bytes; Sub and Div after it compute with floating-point numbers."""
    net = Net()
    x = net.op("Transpose", net.input("x", [BATCH, 4, 4, 3], np.uint8), perm=[0, 3, 1, 2], out="moved")
    x = net.op("Cast", x, to=TensorProto.FLOAT, out="floats")
    x = net.op("Div", net.op("Sub", x, net.array(np.float32(127))), net.array(np.float32(50)))
    net.op("Relu", x, out="y")
    assert found(net) == FirstFloat(
        "floats",
        "the input 'x' is uint8: gradients are with respect to 'floats', the floating-point numbers that Cast "
        "makes of it",
    )


def test_bytes_are_dequantized() -> None:
    net = Net()
    x = net.input("x", [BATCH, 3, 4, 4], np.int8)
    x = net.op("DequantizeLinear", x, net.array(np.float32(0.02)), net.array(np.int8(3)), out="real")
    net.op("Relu", x, out="y")
    name, note = found(net)
    assert (name, "int8" in note, "DequantizeLinear" in note) == ("real", True, True)


def test_floats_beside_the_path_do_not_count() -> None:
    """A second Cast feeds another output only."""
    net = Net()
    x = net.input("x", [BATCH, 3], np.uint8)
    net.op("Cast", x, to=TensorProto.DOUBLE, out="beside")
    net.op("Relu", net.op("Cast", x, to=TensorProto.FLOAT, out="floats"), out="y")
    assert found(net).name == "floats"


def test_integers_that_stay_integers() -> None:
    net = Net()
    x = net.op("Add", net.input("x", [BATCH, 3], np.int32), net.array(np.int32(1)))
    net.op("Add", net.op("Cast", net.op("Shape", x), to=TensorProto.FLOAT), net.input("z", [2]), out="y")
    with pytest.raises(NoGradientPath, match="'x' is int32, and nothing on the way to 'y'") as caught:
        found(net)
    assert (caught.value.outputs, caught.value.value) == (("y",), "x")


def test_several_places_are_named() -> None:
    net = Net()
    x = net.input("x", [BATCH, 3], np.uint8)
    one, two = (net.op("Cast", x, to=TensorProto.FLOAT, out=name) for name in ("one", "two"))
    net.op("Mul", one, two, out="y")
    with pytest.raises(MethodError, match="several places: 'one', 'two'") as caught:
        found(net)
    assert caught.value.values == ("one", "two")
