"""Segmenters and detectors made of blocks of tokens: the layer is what the last block reads, and nothing inside one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from nets import Dims, Net, run
from onnx import TensorProto, helper

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_heads
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

WIDTH = 8
CLASSES = 5
QUERIES = 5
X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def normalised(net: Net, x: str) -> str:
    return net.op("LayerNormalization", x, net.random(WIDTH), net.random(WIDTH), axis=-1)


def as_tokens(net: Net, x: str, side: int, width: int = WIDTH) -> str:
    return net.op("Transpose", net.op("Reshape", x, net.ints(1, width, side**2)), perm=[0, 2, 1])


def as_map(net: Net, tokens: str, side: int, width: int = WIDTH) -> str:
    return net.op("Reshape", net.op("Transpose", tokens, perm=[0, 2, 1]), net.ints(1, width, side, side))


def attention(net: Net, x: str, keys_from: str) -> str:
    q, k, v = (net.op("MatMul", y, net.random(WIDTH, WIDTH)) for y in (x, keys_from, keys_from))
    shares = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return net.op("MatMul", net.op("MatMul", shares, v), net.random(WIDTH, WIDTH))


def block(net: Net, x: str, side: int = 0, stride: int = 1, out: str = "") -> str:
    """Attention, whose keys a convolution merges, then a perceptron, in which one mixes neighbours; each is added."""
    y = normalised(net, x)
    keys = y
    if stride > 1:
        merged = net.conv(as_map(net, y, side), (WIDTH, WIDTH), kernel=3, stride=stride)
        keys = as_tokens(net, merged, side // stride)
    x = net.op("Add", x, attention(net, y, keys))
    wide = net.op("MatMul", normalised(net, x), net.random(WIDTH, 2 * WIDTH))
    if side:
        mixed = net.conv(as_map(net, wide, side, 2 * WIDTH), (2 * WIDTH, 2 * WIDTH), group=2 * WIDTH)
        wide = as_tokens(net, mixed, side, 2 * WIDTH)
    return net.op("Add", x, net.op("MatMul", net.op("Relu", wide), net.random(2 * WIDTH, WIDTH)), out=out)


def patches(net: Net) -> str:
    weight = net.random(WIDTH, 3, 4, 4)
    return as_tokens(net, net.op("Conv", net.input("x", [1, 3, 32, 32]), weight, strides=[4, 4]), 8)


def plain(net: Net) -> dict[str, Dims | None]:
    """Blocks of one size, then a head of convolutions."""
    x = block(net, block(net, patches(net)), out="read by the last")
    y = as_map(net, block(net, x), 8)
    logits = net.conv(y, (WIDTH, CLASSES), kernel=1)
    net.op("Resize", logits, "", net.array(np.array([1, 1, 4, 4], np.float32)), mode="linear", out="y")
    return {"y": [1, CLASSES, 32, 32]}


def pyramid(net: Net) -> dict[str, Dims | None]:
    """Two stages, whose tokens are joined in the finer grid: convolutions stand inside every block."""
    fine = block(net, patches(net), 8, stride=2)
    x = as_tokens(net, net.conv(as_map(net, fine, 8), (WIDTH, WIDTH), stride=2), 4)
    x = block(net, x, 4, out="read by the last")
    coarse = as_map(net, block(net, x, 4), 4)
    up = net.op("Resize", coarse, "", net.array(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    both = net.op("Relu", net.conv(net.op("Concat", as_map(net, fine, 8), up, axis=1), (2 * WIDTH, WIDTH), kernel=1))
    net.conv(both, (WIDTH, CLASSES), kernel=1, out="y")
    return {"y": [1, CLASSES, 8, 8]}


def detector(net: Net) -> dict[str, Dims | None]:
    """Tokens of queries among those of the image: from these classes and boxes are read."""
    queries = net.array(np.random.default_rng(1).standard_normal((1, QUERIES, WIDTH)).astype(np.float32))
    x = net.op("Concat", patches(net), queries, axis=1)
    y = block(net, block(net, block(net, x), out="read by the last"))
    last = net.op("Slice", y, net.ints(64), net.ints(64 + QUERIES), net.ints(1))
    net.op("MatMul", last, net.random(WIDTH, CLASSES), out="logits")
    net.op("Sigmoid", net.op("MatMul", last, net.random(WIDTH, 4)), out="boxes")
    return {"logits": [1, QUERIES, CLASSES], "boxes": [1, QUERIES, 4]}


def model(write: Callable[[Net], dict[str, Dims | None]]) -> onnx.ModelProto:
    net = Net()
    return net.model(write(net))


@pytest.mark.parametrize(("write", "side"), [(plain, 8), (pyramid, 4), (detector, 8)])
def test_the_layer_is_what_the_last_block_reads(write: Callable[[Net], dict[str, Dims | None]], side: int) -> None:
    proto = model(write)
    graph = prepare(load(proto).model).graph
    score = find_heads(graph)[0]
    assert [layer.name for layer in choose(graph, score, ["auto"])] == ["read by the last"]
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        explanation = explainer.explain(X)
    proto.graph.output.append(helper.make_tensor_value_info("read by the last", TensorProto.FLOAT, None))
    tokens = run(proto, {"x": X})["read by the last"][0, : side**2]
    np.testing.assert_allclose(explanation.activation[0], tokens.T.reshape(WIDTH, side, side), atol=1e-5)
    assert explanation.gradient.any()
