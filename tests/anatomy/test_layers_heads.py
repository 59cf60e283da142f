"""Which heads make Grad-CAM a CAM: global average pooling and one linear layer, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import builders
import onnx
import onnx_ir as ir
import pytest
from nets import Net

from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.linear_head import has_linear_head
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def graph_of(proto: onnx.ModelProto) -> ir.Graph:
    return prepare(load(proto).model).graph


def head(write: Callable[[Net, str], str]) -> tuple[bool, str]:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 4)), out="layer")
    graph = graph_of(net.model({write(net, x): None}))
    values = ir.convenience.create_value_mapping(graph)
    return has_linear_head(list(graph), values["layer"], graph.outputs[0]), graph.outputs[0].name or ""


def mean(net: Net, x: str, *axes: int, **more: Any) -> str:
    return net.op("ReduceMean", x, net.ints(*axes), **more)


def flat(net: Net, x: str, features: int = 4) -> str:
    return net.linear(net.op("Flatten", x), features, 5)


LINEAR_HEADS: dict[str, Callable[[Net, str], str]] = {
    "global pool, linear": lambda n, x: n.head(x, 4),
    "mean, linear": lambda n, x: n.linear(mean(n, x, -1, -2, keepdims=0), 4, 5),
    "average pool of the whole, linear": lambda n, x: flat(n, n.op("AveragePool", x, kernel_shape=[8, 8])),
    "matmul and bias": lambda n, x: n.op(
        "Add", n.op("MatMul", mean(n, x, 2, 3, keepdims=0), n.random(4, 5)), n.random(5)
    ),
    "channels last": lambda n, x: n.linear(mean(n, n.op("Transpose", x, perm=[0, 2, 3, 1]), 1, 2, keepdims=0), 4, 5),
    "pointwise convolution, global pool": lambda n, x: n.op(
        "Flatten", n.op("GlobalAveragePool", n.conv(x, (4, 5), kernel=1))
    ),
    "global pool, convolution": lambda n, x: n.op(
        "Squeeze", n.conv(n.op("GlobalAveragePool", x), (4, 5), kernel=1), n.ints(2, 3)
    ),
    "no linear layer": lambda n, x: n.op("Flatten", n.op("GlobalAveragePool", x)),
    "dropout": lambda n, x: n.linear(n.op("Dropout", n.op("Flatten", n.op("GlobalAveragePool", x))), 4, 5),
}
OTHER_HEADS: dict[str, Callable[[Net, str], str]] = {
    "flatten, linear": lambda n, x: flat(n, x, 4 * 64),
    "two linear layers": lambda n, x: n.linear(n.head(x, 4, 6, out="hidden"), 6, 5),
    "an activation": lambda n, x: n.op("Tanh", n.head(x, 4)),
    "maximum": lambda n, x: flat(n, n.op("GlobalMaxPool", x)),
    "average pool of a part": lambda n, x: flat(n, n.op("AveragePool", x, kernel_shape=[7, 7], strides=[7, 7])),
    "average pool into 2 × 2": lambda n, x: flat(n, n.op("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4]), 16),
    "mean over channels": lambda n, x: flat(n, mean(n, x, 1), 64),
    "mean over rows": lambda n, x: flat(n, mean(n, x, 2), 32),
    "mean over everything": lambda n, x: mean(n, x, 1, 2, 3),
    "channels last, mean over the wrong axes": lambda n, x: flat(
        n, mean(n, n.op("Transpose", x, perm=[0, 2, 3, 1]), 2, 3), 8
    ),
    "a convolution with an edge": lambda n, x: n.op("GlobalAveragePool", n.conv(x, (4, 5), kernel=3)),
    "a strided convolution": lambda n, x: n.op("GlobalAveragePool", n.conv(x, (4, 5), kernel=1, stride=2)),
}


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_linear_heads(name: str) -> None:
    assert head(LINEAR_HEADS[name])[0]


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_other_heads(name: str) -> None:
    assert not head(OTHER_HEADS[name])[0]


def test_heads_of_architectures() -> None:
    linear = {}
    for name, build in builders.ARCHITECTURES.items():
        graph = graph_of(build())
        score = find_score(graph)
        linear[name] = has_linear_head(list(graph), choose(graph, score, ["auto"])[0].value, score.value)
    assert [name for name, is_linear in linear.items() if not is_linear] == ["vgg", "convnext", "mobilenet_v3"]
