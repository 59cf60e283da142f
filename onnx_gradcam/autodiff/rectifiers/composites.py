"""Activations that are written as several nodes: SiLU as Mul(x, Sigmoid(x)), the Erf form of GELU …

They are recognised by what they compute, not by how it is written: wherever several nodes compute one value from
another element by element, that function is evaluated at a few points. So the order in which an exporter wrote the
nodes, the constants that it merged and the casts in between do not matter. The graph stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.rectifiers.curves import ELEMENTWISE, GRID, Array, Curve, describe
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import AxisEffect, operators
from onnx_gradcam.graph.quantization import quantization, real_range

FAR = 24  # elementwise nodes in a row; the longest activation known (GELU by Tanh with casts around its Pow) has 11
LARGEST_CONSTANT = 1 << 16  # elements; longer constants are no factors of channels
# Operators on quantized numbers → the positions of these numbers; each stands before its scale and its zero point.
QUANTIZED = {"QLinearMul": (0, 3), "QLinearAdd": (0, 3), "QLinearSigmoid": (0,), "QLinearLeakyRelu": (0,)}
REQUANTIZED = operators(AxisEffect.REQUANTIZED)
OF_FIRST = ("CastLike", *REQUANTIZED)  # operators of their first input; the other inputs only steer them


@dataclass(frozen=True)
class Composite:
    """One activation that is written as several nodes.

    Attributes:
        curve: what is known of the function; reports call the activation by its name.
        x: the input.
        y: the output of the last node.
        nodes: the nodes in order.
    """

    curve: Curve
    x: Value
    y: Value
    nodes: tuple[ir.Node, ...]

    @property
    def inner(self) -> set[Value]:
        """Return the values between ``x`` and ``y``."""
        return {v for node in self.nodes for v in node.outputs} - {self.y}


def composites(nodes: Iterable[ir.Node]) -> dict[ir.Node, Composite]:
    """Return the rectifiers that are written as several nodes, by their last node.

    Two paths from one value must meet again, as those of x and σ(x). A single Relu or Clip is left to ``operators``. A
    gate is no rectifier: it is multiplied with another value than the one that it was computed from, or not element by
    element. A factor after a rectifier belongs to it where it brings the slope to 1, as the ½ of GELU.

    Args:
        nodes: the nodes of a graph, in topological order.
    """
    chains: dict[
        Value, list[Value]
    ] = {}  # value → the values that it is computed from element by element, nearest first
    by_last_node: dict[ir.Node, Composite] = {}
    for node in nodes:
        operands = _operands(node)
        if not operands:
            continue
        origins = [chains.get(v, [v]) for v in operands]
        shared = [v for v in origins[0] if all(v in chain for chain in origins[1:])]
        if not shared:
            continue
        x, y = shared[0], node.outputs[0]
        chains[y] = [y, *chains.get(x, [x])][:FAR]
        producer = x.producer()
        before = None if producer is None else by_last_node.get(producer)
        if len(operands) > 1 and (composite := _composite(x, y)) is not None:
            by_last_node[node] = composite
        elif before is not None and (longer := _with_factor(before, y)) is not None:
            del by_last_node[before.nodes[-1]]
            by_last_node[node] = longer
    return by_last_node


def _with_factor(composite: Composite, y: Value) -> Composite | None:
    """Return ``composite`` together with the factor that makes ``y`` of its output, or None.

    Nothing else may read that output, and the slope must become 1.
    """
    if np.isclose(composite.curve.slope, 1) or len(composite.y.uses()) > 1:
        return None
    longer = _composite(composite.x, y)
    return longer if longer is not None and np.isclose(longer.curve.slope, 1, rtol=1e-3) else None


def _operands(node: ir.Node) -> list[Value]:
    """Return what an elementwise ``node`` computes with, except constants; nothing for any other node."""
    y = node.outputs[0]
    is_real = y.dtype is None or y.dtype.is_floating_point() or y.dtype == ir.DataType.BOOL
    is_known = node.op_type in ELEMENTWISE and node.domain in ("", "ai.onnx", "com.microsoft")
    if not is_known or not (is_real or quantization(y) is not None):
        return []
    values = [v for k in _positions(node) if (v := node.inputs[k]) is not None]
    arrays = [constant(v) for v in values]
    if any(a is not None and a.size > LARGEST_CONSTANT for a in arrays):
        return []
    return list(dict.fromkeys(v for v, array in zip(values, arrays, strict=True) if array is None))


def _positions(node: ir.Node) -> Sequence[int]:
    """Return the positions of the inputs that an elementwise ``node`` computes with."""
    return (0,) if node.op_type in OF_FIRST else QUANTIZED.get(node.op_type, range(len(node.inputs)))


def _composite(x: Value, y: Value) -> Composite | None:
    """Return the rectifier that makes ``y`` of ``x``, or None where the function is none."""
    nodes = _between(x, y)
    constants = [a for n in nodes for v in n.inputs if v is not None and (a := constant(v)) is not None]
    if not all(_keeps_shape(x, array) for array in constants) or _broadcast_size(constants) > LARGEST_CONSTANT:
        return None
    depth = max((a.ndim for a in constants), default=0)
    with np.errstate(all="ignore"):
        values = _evaluate(nodes, x, y, GRID.reshape(-1, *[1] * depth))
    curve = describe(values.reshape(len(GRID), -1))
    if curve is None:
        return None
    name = curve.name or " + ".join(n.op_type for n in nodes)
    return Composite(curve._replace(name=name), x, y, nodes)


def _between(x: Value, y: Value) -> tuple[ir.Node, ...]:
    """Return the nodes that make ``y`` of ``x``, in order."""
    order: dict[ir.Node, None] = {}

    def visit(value: Value) -> None:
        node = value.producer()
        if value is not x and node is not None and node not in order:
            for operand in _operands(node):
                visit(operand)
            order[node] = None

    visit(y)
    return tuple(order)


def _keeps_shape(x: Value, array: Array) -> bool:
    """Tell whether an operation on ``x`` and ``array`` keeps the shape of ``x``."""
    if x.shape is None:
        return array.size == 1
    dims = list(x.shape)[max(0, len(x.shape) - array.ndim) :]
    return array.ndim <= len(x.shape) and all(d == 1 or x_d != 1 for d, x_d in zip(array.shape, dims, strict=True))


def _broadcast_size(constants: Sequence[Array]) -> int:
    """Return the number of elements that the constants have when they are broadcast."""
    return math.prod(np.broadcast_shapes(*(array.shape for array in constants)))


def _evaluate(nodes: Sequence[ir.Node], x: Value, y: Value, points: Array) -> Array:
    """Return what ``nodes`` make of ``points`` in place of ``x``, in real numbers, quantized or not."""
    known: dict[Value, Array] = {x: points}
    for node in nodes:
        attributes = {a.name: a.value for a in node.attributes.values()}
        arguments = [_array(node, k, known) for k in _positions(node)]
        if node.op_type in REQUANTIZED:
            arguments += np.array(real_range(node.outputs[0]) or (-np.inf, np.inf)).tolist()
        known[node.outputs[0]] = ELEMENTWISE[node.op_type](*arguments, **attributes)
    return np.asarray(known[y])


def _array(node: ir.Node, position: int, known: Mapping[Value, Array]) -> Array | None:
    """Return the array that an input of ``node`` holds: a known value, or a constant."""
    value = node.inputs[position]
    if value is None or value in known:
        return None if value is None else known[value]
    array = constant(value)
    if array is None or node.op_type not in QUANTIZED:
        return array
    scale, zero_point = (constant(node.inputs[position + k]) for k in (1, 2))
    return (array.astype(np.float64) - (0 if zero_point is None else zero_point)) * (1 if scale is None else scale)
