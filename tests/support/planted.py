"""A small network, and errors that are planted in the rules that differentiate it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import onnx
from nets import Net

from onnx_gradcam.autodiff.registry import RULES, Key, Rule
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.verify import Report

Wrong = Callable[..., Value]


def small(batch: int | str = "N", side: int | str = 16) -> onnx.ModelProto:
    """Return a network of two stages; the second has a skip around a square pointwise convolution."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [batch, 3, side, side]), (3, 6), out="stem"), out="relu1")
    x = net.op("MaxPool", x, out="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Relu", net.conv(x, (6, 8), out="wide"), out="relu2")
    x = net.op("Add", net.conv(x, (8, 8), kernel=1, out="pointwise"), x, out="sum")
    net.op("Softmax", net.head(net.op("Relu", x, out="relu3"), 8), out="probabilities", axis=1)
    return net.model({"probabilities": [batch, 5]})


SMALL = small()


def status(report: Report) -> dict[str, str]:
    """Return the status of every check by its name."""
    return {c.name: c.status for c in report.checks}


def failing(report: Report) -> set[tuple[str, int]]:
    """Return (node, input) of every rule that was found to be wrong."""
    return {(n.node, n.input) for n in report.nodes if n.status == "fail"}


def planted(op_type: str, wrt: int, wrong: Wrong) -> Mapping[Key, Rule]:
    """Return the rules, with one that ``wrong(op, result, rule arguments, attributes)`` spoils."""
    rule = RULES[op_type, wrt]

    def spoiled(op: Builder, *args: Value, **attributes: Any) -> Value:
        return wrong(op, rule.function(op, *args, **attributes), *args, **attributes)

    return {**RULES, (op_type, wrt): replace(rule, function=spoiled)}


def scaled(factor: float) -> Wrong:
    return lambda op, x_bar, *_, **__: op.Mul(x_bar, op.const(factor, like=x_bar))


def rolled(op: Builder, x_bar: Value, *_: Value, **__: Any) -> Value:
    """Shift the gradient by one pixel."""
    rest = op.Slice(x_bar, op.ints(1), op.ints(2**31), op.ints(3))
    return op.Concat(rest, op.Slice(x_bar, op.ints(0), op.ints(1), op.ints(3)), axis=3)


def transposed(op: Builder, x_bar: Value, g: Value, y: Value, x: Value, w: Value, *_: Value, **__: Any) -> Value:
    """Put W where Wᵀ should be, which nobody notices in the shapes of a square 1×1 convolution."""
    return op.Conv(g, w) if tuple(w.shape or ()) == (8, 8, 1, 1) else x_bar


def unmasked(op: Builder, x_bar: Value, g: Value, *_: Value, **__: Any) -> Value:
    return g


def last_column_dropped(op: Builder, x_bar: Value, *_: Value, **__: Any) -> Value:
    kept = op.Slice(x_bar, op.ints(0), op.ints(-1), op.ints(3))
    return op.Pad(kept, op.ints(0, 1), None, op.ints(3))


CONVS = {("node_stem", 0), ("node_wide", 0), ("node_pointwise", 0)}
RELUS = {("node_relu1", 0), ("node_relu2", 0), ("node_relu3", 0)}
# what: the rule, its error, the nodes that must be named and how wrong they are, whether it shows at the target layer
PLANTED: dict[str, tuple[Key, Wrong, set[tuple[str, int]], tuple[float, float], bool]] = {
    "sign of Conv": (("Conv", 0), scaled(-1), CONVS, (1.999, 2.001), False),
    "sign of Gemm": (("Gemm", 0), scaled(-1), {("node_logits", 0)}, (1.999, 2.001), True),
    "GlobalAveragePool times 1.1": (
        ("GlobalAveragePool", 0), scaled(1.1), {("node_pooled", 0)}, (0.0908, 0.091), True,
    ),
    "MaxPool times 1.01": (("MaxPool", 0), scaled(1.01), {("node_pool", 0)}, (0.0098, 0.01), False),
    "a branch of Add dropped": (("Add", 1), scaled(0), {("node_sum", 1)}, (0.999, 1.001), False),
    "Conv shifted by a pixel": (("Conv", 0), rolled, CONVS, (0.5, 3), False),
    "MaxPool shifted by a pixel": (("MaxPool", 0), rolled, {("node_pool", 0)}, (0.5, 3), False),
    "weights not transposed": (("Conv", 0), transposed, {("node_pointwise", 0)}, (0.5, 3), False),
    "Relu without its mask": (("Relu", 0), unmasked, RELUS, (0.3, 1), False),
    "Conv without the last column": (("Conv", 0), last_column_dropped, CONVS, (0.1, 1), False),
}  # fmt: skip
