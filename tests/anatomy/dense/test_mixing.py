"""How many spatial kernels lie between a value and the cells, and how far the last of them reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dense_kinds
import numpy as np
import pytest
from anchor_kinds import ANCHORED
from dense_kinds import KINDS
from map_kinds import MAPS
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.dense.mixing import mixing_stages
from onnx_gradcam.graph.flow import beginnings, downstream
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

SCALE = np.array([1, 1, 2, 2], np.float32)


def stages(net: Net, y: str) -> dict[str, int]:
    """The number of each value between x and ``y``, by name."""
    graph = prepare(load(net.model({y: None})).model).graph
    nodes = list(graph)
    images = [v for v in graph.inputs if v.name == "x"]
    found = mixing_stages(nodes, list(graph.outputs), downstream(nodes, beginnings(nodes, images)))
    return {v.name or "": count for v, count in found.items()}


def test_kernels_above_1_are_counted_on_the_way_with_most_of_them() -> None:
    net = Net()
    a = net.conv(net.input("x", [1, 3, 16, 16]), (3, 4), out="a")
    b = net.conv(a, (4, 4), kernel=1, out="b")
    c = net.op("Relu", net.conv(b, (4, 4)), out="c")
    d = net.op("Add", c, net.conv(b, (4, 4), kernel=1), out="d")
    e = net.op("MaxPool", d, kernel_shape=[2, 2], strides=[2, 2], out="e")
    up = net.op("ConvTranspose", e, net.random(4, 4, 2, 2), strides=[2, 2], out="up")
    y = net.conv(up, (4, 2), kernel=1, out="y")
    found = stages(net, y)
    assert {name: found[name] for name in ("x", "a", "b", "c", "d", "e", "up", "y")} == {
        "x": 3, "a": 2, "b": 2, "c": 1, "d": 1, "e": 0, "up": 0, "y": 0,
    }  # fmt: skip


def test_what_mixes_all_places_and_what_says_nothing_of_any() -> None:
    net = Net()
    x = net.op("Reshape", net.conv(net.input("x", [1, 3, 4, 4]), (3, 4), out="a"), net.ints(1, 4, 16), out="flat")
    tokens = net.op("Transpose", x, perm=[0, 2, 1], out="tokens")
    mixed = net.op("MatMul", net.op("Softmax", net.op("MatMul", tokens, x), axis=-1), tokens, out="mixed")
    layered = net.op("MatMul", mixed, net.random(4, 4), out="layered")
    texts = net.op("Relu", net.input("text", [1, 4, 3]))
    y = net.op("MatMul", layered, texts, out="y")
    found = stages(net, y)
    assert (found["tokens"] >= 2, found["mixed"], found["layered"]) == (True, 0, 0)
    net = Net()
    a = net.conv(net.input("x", [1, 3, 4, 4]), (3, 4), out="a")
    gate = net.op("Sigmoid", net.op("GlobalAveragePool", a))
    assert stages(net, net.op("Mul", a, gate, out="y"))["a"] == 0


def kernel(net: Net, y: str, layer: str) -> tuple[int, ...]:
    net.op("Sigmoid", y, out="p")
    (found,) = ogc.Network(net.model({"p": None}), layer).last_kernels
    return found


def test_the_reach_of_the_last_kernel() -> None:
    """3 × 3 with dilation 2 reaches over 5; 1 behind it; what is interpolated over one more."""
    net = Net()
    a = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 4)), out="a")
    weight = net.random(4, 4, 3, 3)
    b = net.op("Relu", net.op("Conv", a, weight, dilations=[2, 2], pads=[2] * 4), out="b")
    y = net.conv(b, (4, 2), kernel=1, out="y")
    assert kernel(net, y, "a") == (5, 5)
    net = Net()
    b = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 4)), out="b")
    y = net.conv(b, (4, 2), kernel=1)
    assert kernel(net, y, "b") == (1, 1)
    net = Net()
    b = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 4)), out="b")
    up = net.op("Resize", net.conv(b, (4, 2)), "", net.array(SCALE), mode="linear")
    assert kernel(net, up, "b") == (4, 4)


def test_a_mean_that_is_spread_again_reaches_nowhere() -> None:
    """As the image pooling of DeepLab, beside a kernel of 3 × 3."""
    net = Net()
    b = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 4)), out="b")
    size = net.array(np.array([1, 4, 16, 16], np.int64))
    spread = net.op("Resize", net.op("GlobalAveragePool", b), "", "", size, mode="linear")
    y = net.conv(net.op("Concat", net.conv(b, (4, 4)), spread, axis=1), (8, 2), kernel=1)
    assert kernel(net, y, "b") == (3, 3)


@pytest.mark.parametrize("is_beside", [False, True])
@pytest.mark.parametrize("side", [16, "side"])
def test_the_reach_is_counted_in_cells_of_the_layer(side: int | str, is_beside: bool) -> None:
    """3 × 3 behind an enlargement by 8 reaches over 2 cells at most, as in the decoder of a U-Net.

    Beside a kernel on the image itself, whose size is no value's, it is taken for one on the grid of the layer.
    """
    net = Net()
    x = net.conv(net.input("x", [1, 3, side, side]), (3, 4), stride=2)
    b = net.op("Relu", net.conv(net.op("Relu", net.conv(x, (4, 4), stride=2)), (4, 4), stride=2), out="b")
    up = net.op("Resize", b, "", net.array(np.array([1, 1, 8, 8], np.float32)), mode="nearest")
    y = net.conv(up, (4, 2))
    if is_beside:
        y = net.op("Add", y, net.conv("x", (3, 2)))
    assert kernel(net, y, "b") == ((3, 3) if is_beside else (2, 2))


EVERY = {**{f"{k} (kind)": v.write for k, v in KINDS.items() if k != "mask"}, **{k: v.write for k, v in MAPS.items()}}
EVERY |= {f"{name} (anchors)": anchored.write for name, anchored in ANCHORED.items()}


@pytest.mark.parametrize("name", EVERY)
def test_a_mixing_stage_lies_before_the_cells_of_every_kind(name: str) -> None:
    network = ogc.Network(dense_kinds.model(EVERY[name]))
    assert_stages(network, 1)


@pytest.mark.parametrize("name", ["yolox-nano", "nanodet-m-320", "fastestdet", "ultraface-320", "sinet-softmax"])
def test_more_than_the_last_kernel_lies_before_the_cells_of_real_models(zoo: Path, name: str) -> None:
    assert_stages(ogc.Network(zoo / "models" / f"{name}.onnx"), 2)


def assert_stages(network: Any, least: int) -> None:
    dense, graph = network.score.dense, network.prepared.graph
    nodes = list(graph)
    reached = downstream(nodes, beginnings(nodes, [v for v in graph.inputs if v.name == network.image_input.name]))
    count = mixing_stages(nodes, dense.sources, reached)
    assert all(count[layer.value] >= least for layer in network.layers)
