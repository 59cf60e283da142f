"""Shapes that a network computes of its own shapes, stage after stage, are found in one walk."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net, run

from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare import inference
from onnx_gradcam.graph.prepare.prepare import prepare


def stages(count: int, declared: list[int | str]) -> onnx.ModelProto:
    """Every stage halves the sides of an image: it computes them by divisions, through Cast and Floor, and reshapes."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", declared), (3, 4)))
    two = net.array(np.array(2, np.float32))
    for _ in range(count):
        dims = net.op("Shape", x)
        n, c, h, w = (net.op("Gather", dims, net.ints(k), axis=0) for k in range(4))
        halves = [
            net.op("Cast", net.op("Floor", net.op("Div", net.op("Cast", d, to=1), two)), to=onnx.TensorProto.INT64)
            for d in (h, w)
        ]
        pair = net.ints(2)
        split = net.op("Reshape", x, net.op("Concat", n, c, halves[0], pair, halves[1], pair, axis=0))
        x = net.op("ReduceMean", split, net.ints(3, 5), keepdims=0)
    net.op("Identity", x, out="y")
    return net.model({"y": None})


def dims_and_inferences(proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> tuple[list[object], int]:
    """Return the dimensions that are found of the output, and how often the whole graph was inferred for them."""
    count = 0
    once = inference._infer_once

    def counted(model: object) -> None:
        nonlocal count
        count += 1
        once(model)

    with monkeypatch.context() as patch:
        patch.setattr(inference, "_infer_once", counted)
        (value,) = prepare(load(proto).model).graph.outputs
    return [d if isinstance(d, int) else d.value for d in value.shape], count


def test_many_stages_take_no_more_inferences_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (dims_and_inferences(stages(k, [1, 3, 64, 32]), monkeypatch) for k in (2, 5))
    assert few[0] == [1, 4, 16, 8]
    assert many[0] == [1, 4, 2, 1]
    assert many[1] <= few[1] <= 5


@pytest.mark.parametrize("sides", [(64, 32), (40, 24)])
def test_what_is_found_is_what_the_runtime_returns(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    proto = stages(3, [1, 3, *sides])
    y = run(proto, {"x": np.zeros((1, 3, *sides), np.float32)})["y"]
    assert dims_and_inferences(proto, monkeypatch)[0] == list(y.shape)


def test_open_sizes_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    dims, _ = dims_and_inferences(stages(2, ["N", 3, "H", 32]), monkeypatch)
    assert not isinstance(dims[2], int)
