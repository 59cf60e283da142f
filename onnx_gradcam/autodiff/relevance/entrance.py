"""End the walk of relevance at the numbers that the first layer reads."""

from __future__ import annotations

from onnx_gradcam.graph.builder import Value, same_dim
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import MOVES, STORES

SCALING = frozenset(("Add", "BatchNormalization", "Cast", "Div", "Mul", "Sub"))


def standardised(value: Value) -> Value:
    """Return what constants make of an input before anything else reads it: each number scaled and shifted.

    A network that subtracts the mean colour itself is explained as the same network without that step, whose user does
    so: else the mean would be a bias, and keep most of the relevance.
    """
    while True:
        uses = list(value.uses())
        node = uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
        if node is None or node.op_type not in SCALING or node.domain not in ("", "ai.onnx"):
            return value
        others = [v for v in node.inputs if v is not value and v is not None]
        y = node.outputs[0]
        if any(constant(v) is None for v in others) or not _has_shape_of(y, value) or not _is_float(y):
            return value
        value = y


def is_moved_only(x: Value, begin: Value) -> bool:
    """Tell whether ``x`` holds numbers of ``begin``, moved and padded, and not computed with."""
    while x is not begin:
        node = x.producer()
        if node is None or node.op_type not in MOVES | STORES | {"Pad"} or (first := node.inputs[0]) is None:
            return False
        x = first
    return True


def _has_shape_of(y: Value, x: Value) -> bool:
    if y.shape is None or x.shape is None or len(y.shape) != len(x.shape):
        return False
    return all(same_dim(a, b) for a, b in zip(y.shape, x.shape, strict=True))


def _is_float(value: Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
