"""Softmax, LogSoftmax and Sigmoid that are written as several operators, as converters of JAX, TFLite and Caffe do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.constants import constant

ALIGNING = frozenset("Expand Identity Reshape Squeeze Unsqueeze".split())  # what a sum goes through until it fits again
FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Div": np.divide,
    "Exp": np.exp,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Sub": np.subtract,
    "Tanh": np.tanh,
}
GRID = np.linspace(-8, 8, 33)
SIGMOID = 1 / (1 + np.exp(-GRID))
NEAR = 1e-6  # the largest difference at these points
BEFORE, BEHIND = 2, 8  # operators before an Exp or Tanh, and values behind, that may belong to a Sigmoid


class Squash(NamedTuple):
    """The one operator that several compute together.

    Attributes:
        op_type: "Softmax", "LogSoftmax" or "Sigmoid".
        x: what it squashes.
        last: the last of the operators.
        axis: the axis of a Softmax.
    """

    op_type: str
    x: ir.Value
    last: ir.Node
    axis: int | None = None


def join_squashes(graph: ir.Graph) -> None:
    """Put one operator in the place of each Softmax, LogSoftmax and Sigmoid that several operators compute.

    The value that they made keeps its name. What else reads a value between them still does.
    """
    for node in list(graph):
        if node.graph is not None and (squash := _ends_in(node) or _sigmoid_through(node)) is not None:
            _replace(squash)


def _replace(squash: Squash) -> None:
    old = squash.last.outputs[0]
    attributes = {} if squash.axis is None else {"axis": squash.axis}
    node = ir.node(squash.op_type, [squash.x], attributes, name=squash.last.name)
    squash.last.prepend(node)
    new = node.outputs[0]
    new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name, old.name = old.name, None
    assert squash.last.graph is not None
    squash.last.graph.remove(squash.last, safe=True)


def _ends_in(node: ir.Node) -> Squash | None:
    """Return the Softmax or LogSoftmax whose last operator is ``node``."""
    if node.op_type == "Div":
        return _softmax(node, node.inputs[0], node.inputs[1])
    if node.op_type == "Mul":
        for k in (0, 1):
            inverse = _maker(node.inputs[k], "Reciprocal")
            if inverse is not None and (squash := _softmax(node, node.inputs[1 - k], inverse.inputs[0])) is not None:
                return squash
    return _log_softmax(node) if node.op_type == "Sub" else None


def _softmax(node: ir.Node, power: ir.Value | None, total: ir.Value | None) -> Squash | None:
    """Return the Softmax that divides ``power``, an Exp, by its sum ``total``."""
    exp, summed = _maker(power, "Exp"), _reduced(total, "ReduceSum")
    if exp is None or power is None or total is None or exp.inputs[0] is None:
        return None
    if summed is None or summed.value is not power or not _is_one_along(total, power, summed.axis):
        return None
    return Squash("Softmax", _unshifted(exp.inputs[0], summed.axis), node, summed.axis)


def _log_softmax(node: ir.Node) -> Squash | None:
    """Return the LogSoftmax that subtracts the logarithm of the sum of exponentials."""
    x, total = node.inputs
    summed = _reduced(total, "ReduceLogSumExp") or _reduced_powers(total)
    if x is None or total is None or summed is None:
        return None
    if summed.value is not x or not _is_one_along(total, x, summed.axis):
        return None
    return Squash("LogSoftmax", _unshifted(x, summed.axis), node, summed.axis)


class Reduced(NamedTuple):
    """A value, and the one axis along which it was reduced."""

    value: ir.Value
    axis: int


def _reduced(total: ir.Value | None, op_type: str) -> Reduced | None:
    """Return what a reduction made ``total`` of, which may have been reshaped and expanded since."""
    node = None if total is None else _maker(_aligned_from(total), op_type)
    value = None if node is None else node.inputs[0]
    if node is None or value is None or value.shape is None or len(node.inputs) < 2:
        return None
    axes = constant(node.inputs[1])
    return Reduced(value, int(axes.item()) % len(value.shape)) if axes is not None and axes.size == 1 else None


def _reduced_powers(total: ir.Value | None) -> Reduced | None:
    """Return what ``total`` is the logarithm of the sum of exponentials of."""
    log = None if total is None else _maker(_aligned_from(total), "Log")
    summed = None if log is None else _reduced(log.inputs[0], "ReduceSum")
    exp = None if summed is None else _maker(summed.value, "Exp")
    if summed is None or exp is None or exp.inputs[0] is None:
        return None
    return Reduced(exp.inputs[0], summed.axis)


def _aligned_from(value: ir.Value) -> ir.Value:
    """Return what ``value`` was before it was reshaped and expanded."""
    while (node := value.producer()) is not None and node.op_type in ALIGNING and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _is_one_along(value: ir.Value, like: ir.Value, axis: int) -> bool:
    """Tell whether ``value`` holds one number for all of an axis of ``like``, before it is expanded to that shape."""
    while (node := _maker(value, "Expand")) is not None and node.inputs[0] is not None:
        value = node.inputs[0]
    if value.shape is None or like.shape is None:
        return False
    return len(value.shape) == len(like.shape) and value.shape[axis] == 1


def _unshifted(value: ir.Value, axis: int) -> ir.Value:
    """Return what ``value`` was before the same number, as a maximum, was subtracted along the whole axis."""
    node = _maker(value, "Sub")
    x, shift = (None, None) if node is None else node.inputs
    if x is None or shift is None or x.shape is None or value.shape is None:
        return value
    is_whole = len(x.shape) == len(value.shape) and x.shape[axis] == value.shape[axis]
    return x if is_whole and _is_one_along(shift, value, axis) else value


def _sigmoid_through(node: ir.Node) -> Squash | None:
    """Return the Sigmoid that ``node``, an Exp or Tanh, is a part of: it is known by what it computes."""
    if node.op_type in ("Exp", "Tanh"):
        for x in _inputs_before(node):
            if (last := _last_of_sigmoid(x)) is not None:
                return Squash("Sigmoid", x, last)
    return None


def _inputs_before(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a function reads, and what that was before its sign or its scale was changed."""
    for _ in range(1 + BEFORE):
        value = node.inputs[0] if node.inputs else None
        producer = value.producer() if value is not None else None
        if value is None or constant(value) is not None:
            return
        yield value
        if producer is None or producer.op_type not in FUNCTIONS:
            return
        node = producer


def _last_of_sigmoid(x: ir.Value) -> ir.Node | None:
    """Return the node behind ``x`` that makes a Sigmoid of it, or None."""
    known, pending = {x: GRID}, [x]
    while pending and len(known) <= BEHIND:
        for node in pending.pop(0).consumers():
            array = _computed(node, known)
            if array is None:
                continue
            if np.allclose(array, SIGMOID, rtol=0, atol=NEAR):
                return node
            known[node.outputs[0]] = array
            pending.append(node.outputs[0])
    return None


def _computed(node: ir.Node, known: Mapping[ir.Value, np.ndarray]) -> np.ndarray | None:
    """Return what an elementwise ``node`` makes of what is known and of single numbers; None for any other node."""
    if node.op_type not in FUNCTIONS or node.domain or node.outputs[0] in known:
        return None
    operands = [known[v] if v is not None and v in known else _number(v) for v in node.inputs]
    if any(a is None for a in operands):
        return None
    with np.errstate(all="ignore"):  # the numbers are ours, and no rounding of the network's
        return FUNCTIONS[node.op_type](*operands)


def _number(value: ir.Value | None) -> np.ndarray | None:
    """Return a constant that is a single number."""
    array = constant(value)
    return array.astype(np.float64).reshape(()) if array is not None and array.size == 1 else None


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that made ``value``, if it is a standard operator of this type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None
