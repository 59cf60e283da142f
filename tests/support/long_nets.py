"""Networks of hundreds of nodes, of the shapes that make an analysis slow: long chains, many ways, many outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from nets import Net

NODES = 500
CHANNELS = 4
CLASSES = 5
LEVELS = 8  # of a detector
Outputs = dict[str, list[int | str] | None]


def _block(net: Net, x: str) -> str:
    return net.op("Relu", net.conv(x, (CHANNELS, CHANNELS)))


def _stem(net: Net) -> str:
    return net.op("Relu", net.conv(net.input("x", ["N", 3, 32, 32]), (3, CHANNELS)))


def _classes(net: Net, x: str) -> Outputs:
    net.head(x, CHANNELS)
    return {"logits": ["N", CLASSES]}


def chain(net: Net, nodes: int) -> Outputs:
    """Nothing but convolutions and ReLUs, one behind the other."""
    x = _stem(net)
    while len(net.nodes) < nodes - 4:
        x = _block(net, x)
    return _classes(net, x)


def residual(net: Net, nodes: int) -> Outputs:
    """Blocks of two convolutions, each with a way around it."""
    x = _stem(net)
    while len(net.nodes) < nodes - 8:
        x = net.op("Relu", net.op("Add", x, net.conv(_block(net, x), (CHANNELS, CHANNELS))))
    return _classes(net, x)


def dense(net: Net, nodes: int) -> Outputs:
    """Every convolution reads all that were before it, up to forty."""
    xs = [_stem(net)]
    while len(net.nodes) < nodes - 6:
        joined = net.op("Concat", *xs, axis=1)
        y = net.op("Relu", net.conv(joined, (CHANNELS * len(xs), CHANNELS), kernel=1))
        xs = [*xs, y] if len(xs) < 40 else [y]
    return _classes(net, xs[-1])


def branches(net: Net, nodes: int) -> Outputs:
    """Ten chains side by side, joined before a linear layer."""
    ends, x = [], net.input("x", ["N", 3, 32, 32])
    for k in range(10):
        y = net.op("Relu", net.conv(x, (3, CHANNELS)))
        while len(net.nodes) < (k + 1) * (nodes - 4) // 10 - 1:
            y = _block(net, y)
        ends.append(net.op("GlobalAveragePool", y))
    y = net.op("Flatten", net.op("Concat", *ends, axis=1))
    net.op("MatMul", y, net.random(len(ends) * CHANNELS, CLASSES), out="logits")
    return {"logits": ["N", CLASSES]}


def outputs(net: Net, nodes: int) -> Outputs:
    """A linear layer with a Softmax behind every other convolution."""
    x, made = _stem(net), Outputs()
    while len(net.nodes) < nodes - 8:
        x = _block(net, _block(net, x))
        y = net.op("Flatten", net.op("GlobalAveragePool", x))
        name = f"p{len(made)}"
        net.op("Softmax", net.op("MatMul", y, net.random(CHANNELS, CLASSES)), axis=1, out=name)
        made[name] = ["N", CLASSES]
    return made


def quantized(net: Net, nodes: int) -> Outputs:
    """QuantizeLinear and DequantizeLinear behind every layer."""
    scale, zero = net.array(np.array(0.05, np.float32)), net.array(np.array(128, np.uint8))

    def stored(x: str) -> str:
        return net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)

    x = stored(_stem(net))
    while len(net.nodes) < nodes - 7:
        x = stored(_block(net, x))
    return _classes(net, x)


def detector(net: Net, nodes: int) -> Outputs:
    """Eight levels: the columns of each are cut into single ones behind one Sigmoid, and four meet arithmetic."""
    x, parts, width, two = _stem(net), [], 5 + CLASSES, net.array(np.array(2, np.float32))
    for level in range(1, LEVELS + 1):
        while len(net.nodes) < level * (nodes - 3) // LEVELS - 20:
            x = _block(net, x)
        y = net.op("Transpose", net.conv(x, (CHANNELS, width), kernel=1), perm=[0, 2, 3, 1])
        p = net.op("Sigmoid", net.op("Reshape", y, net.ints(0, -1, width)))
        columns = [net.op("Slice", p, net.ints(k), net.ints(k + 1), net.ints(2)) for k in range(width)]
        columns[:4] = [net.op("Mul", c, two) for c in columns[:4]]
        parts.append(net.op("Concat", *columns, axis=2))
    net.op("Concat", *parts, axis=1, out="y")
    return {"y": ["N", LEVELS * 32 * 32, width]}


def transformer(net: Net, nodes: int) -> Outputs:
    """Blocks of attention and linear layers over 256 tokens."""
    c = 4 * CHANNELS
    x = net.conv(net.input("x", [1, 3, 32, 32]), (3, c), stride=2)
    t = net.op("Transpose", net.op("Reshape", x, net.ints(1, c, 256)), perm=[0, 2, 1])
    while len(net.nodes) < nodes - 17:
        h = net.op("LayerNormalization", t, net.random(c), net.random(c))
        q, k, v = (net.op("MatMul", h, net.random(c, c)) for _ in range(3))
        shares = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
        t = net.op("Add", t, net.op("MatMul", net.op("MatMul", shares, v), net.random(c, c)))
        h = net.op(
            "Relu", net.op("MatMul", net.op("LayerNormalization", t, net.random(c), net.random(c)), net.random(c, c))
        )
        t = net.op("Add", t, net.op("MatMul", h, net.random(c, c)))
    net.op("MatMul", net.op("ReduceMean", t, net.ints(1), keepdims=0), net.random(c, CLASSES), out="logits")
    return {"logits": [1, CLASSES]}


SHAPES: Mapping[str, Callable[[Net, int], Outputs]] = {
    write.__name__: write for write in (chain, residual, dense, branches, outputs, quantized, detector, transformer)
}


def long_model(shape: str, nodes: int = NODES) -> onnx.ModelProto:
    """Return the network of a shape, with about so many nodes."""
    net = Net()
    return net.model(SHAPES[shape](net, nodes))
