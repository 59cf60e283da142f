"""The layer of a segmenter is its bottleneck, and never the logits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net

from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def trunk(net: Net) -> str:
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 6), stride=2), out="stage1")
    return net.op("Relu", net.conv(x, (6, 6), stride=2), out="stage2")


def layer_names(model: onnx.ModelProto) -> list[str]:
    graph = prepare(load(model).model).graph
    score = find_score(graph)
    assert score.dense is not None
    return [layer.name for layer in choose(graph, score, ["auto"])]


@pytest.mark.parametrize("side", [16, "side"])
def test_the_bottleneck_of_a_u_net(side: int | str) -> None:
    """Of sizes that are not known before the run, too."""
    net = Net()
    one = net.op("Relu", net.conv(net.input("x", [1, 3, side, side]), (3, 4)), out="down1")
    two = net.op("Relu", net.conv(net.op("MaxPool", one, kernel_shape=[2, 2], strides=[2, 2]), (4, 6)), out="down2")
    deep = net.op("Relu", net.conv(net.op("MaxPool", two, kernel_shape=[2, 2], strides=[2, 2]), (6, 8)), out="deep")
    scale = net.array(np.array([1, 1, 2, 2], np.float32))
    x = net.op("Concat", net.op("Resize", deep, "", scale, mode="nearest"), two, axis=1)
    x = net.op("Relu", net.conv(net.op("Relu", net.conv(x, (14, 6))), (6, 6)), out="up2")
    x = net.op("Concat", net.op("Resize", x, "", scale, mode="nearest"), one, axis=1)
    net.op("Sigmoid", net.conv(x, (10, 2), kernel=1), out="p")
    assert layer_names(net.model({"p": [1, 2, side, side]})) == ["deep"]


def test_a_global_pool_before_the_last_convolutions() -> None:
    """As in ASPP: what reads the pool is taken, not the convolutions beside and behind it."""
    net = Net()
    x = trunk(net)
    side = net.op("Relu", net.conv(x, (6, 4), kernel=1), out="side")
    pooled = net.op("Relu", net.conv(net.op("GlobalAveragePool", x), (6, 4), kernel=1))
    wide = net.op("Resize", pooled, "", net.array(np.array([1, 1, 4, 4], np.float32)), mode="nearest")
    behind = net.op("Relu", net.conv(net.op("Concat", side, wide, axis=1), (8, 4)), out="behind")
    behind = net.op("Relu", net.conv(behind, (4, 4)))
    net.op("Softmax", net.conv(behind, (4, 3), kernel=1), axis=1, out="p")
    assert layer_names(net.model({"p": [1, 3, 4, 4]})) == ["stage2"]


def test_the_logits_themselves_are_no_layer() -> None:
    """As in an FCN: logits of lowest resolution by a pointwise convolution, enlarged. One kernel lies before a cell."""
    net = Net()
    logits = net.conv(trunk(net), (6, 4), kernel=1, out="coarse_logits")
    up = net.op("Resize", logits, "", net.array(np.array([1, 1, 4, 4], np.float32)), mode="linear")
    net.op("Softmax", up, axis=1, out="p")
    assert layer_names(net.model({"p": [1, 4, 16, 16]})) == ["stage1"]
