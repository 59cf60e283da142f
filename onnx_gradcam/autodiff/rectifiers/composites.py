"""Activations that are written as several nodes: SiLU as Mul(x, Sigmoid(x)), the Erf form of GELU …

They are recognised by what they compute, not by how it is written: wherever several nodes make one value of another
element by element, that function is evaluated at a few points. So the order in which an exporter wrote the nodes, the
constants that it merged and the casts in between do not matter. The graph stays as it is.
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
from onnx_gradcam.graph.quantization import quantization, real_range

FAR = 24  # elementwise nodes in a row; the longest activation known, GELU by Tanh with casts around its Pow, has 11
LARGEST_CONSTANT = 1 << 16  # elements of a constant; longer ones are no factors of channels
# Operators on quantized numbers → the positions of these, each before its scale and its zero point.
QUANTIZED = {"QLinearMul": (0, 3), "QLinearAdd": (0, 3), "QLinearSigmoid": (0,), "QLinearLeakyRelu": (0,)}
REQUANTIZED = ("QuantizeLinear", "DequantizeLinear")
OF_FIRST = ("CastLike", *REQUANTIZED)  # the others only say how


@dataclass(frozen=True)
class Composite:
    """One activation, written as ``nodes`` (in order): the last makes ``y`` of ``x``.

    ``curve``: what is known of the function; its name is that by which reports call it.
    """

    curve: Curve
    x: Value
    y: Value
    nodes: tuple[ir.Node, ...]

    @property
    def inner(self) -> set[Value]:
        """The values between ``x`` and ``y``."""
        return {v for node in self.nodes for v in node.outputs} - {self.y}


def composites(nodes: Iterable[ir.Node]) -> dict[ir.Node, Composite]:
    """The rectifiers among ``nodes`` (in topological order) that are written as several, by their last node.

    Only where two paths from one value meet again, as those of x and σ(x); what Relu, Clip and their like compute alone
    is for ``rectifiers`` to tell. A gate is none: what it is multiplied onto is not the value that it was made of, or
    not element by element. A factor after that belongs to it where it brings the slope to 1, as the ½ of GELU.
    """
    chains: dict[Value, list[Value]] = {}  # of each value those that it is made of element by element, nearest first
    found: dict[ir.Node, Composite] = {}
    for node in nodes:
        operands = _operands(node)
        if not operands:
            continue
        lines = [chains.get(v, [v]) for v in operands]
        shared = [v for v in lines[0] if all(v in line for line in lines[1:])]
        if not shared:
            continue
        x, y = shared[0], node.outputs[0]
        chains[y] = [y, *chains.get(x, [x])][:FAR]
        maker = x.producer()
        before = None if maker is None else found.get(maker)
        if len(operands) > 1 and (composite := _composite(x, y)) is not None:
            found[node] = composite
        elif before is not None and (scaled := _scaled(before, y)) is not None:
            del found[before.nodes[-1]]
            found[node] = scaled
    return found


def _scaled(composite: Composite, y: Value) -> Composite | None:
    """``composite`` and the factor that makes ``y`` of its result, where nothing else reads that and the slope is 1."""
    if np.isclose(composite.curve.slope, 1) or len(composite.y.uses()) > 1:
        return None
    found = _composite(composite.x, y)
    return found if found is not None and np.isclose(found.curve.slope, 1, rtol=1e-3) else None


def _operands(node: ir.Node) -> list[Value]:
    """What an elementwise ``node`` computes with beside constants; empty for any other node."""
    y = node.outputs[0]
    real = y.dtype is None or y.dtype.is_floating_point() or y.dtype == ir.DataType.BOOL or quantization(y) is not None
    if node.op_type not in ELEMENTWISE or node.domain not in ("", "ai.onnx", "com.microsoft") or not real:
        return []
    given = [v for k in _positions(node) if (v := node.inputs[k]) is not None]
    arrays = [constant(v) for v in given]
    if any(a is not None and a.size > LARGEST_CONSTANT for a in arrays):
        return []
    return list(dict.fromkeys(v for v, array in zip(given, arrays, strict=True) if array is None))


def _positions(node: ir.Node) -> Sequence[int]:
    """Those of the numbers that an elementwise ``node`` computes with, among its inputs."""
    return (0,) if node.op_type in OF_FIRST else QUANTIZED.get(node.op_type, range(len(node.inputs)))


def _composite(x: Value, y: Value) -> Composite | None:
    """The rectifier by which ``y`` is made of ``x``, or None where the function is none."""
    nodes = _between(x, y)
    constants = [a for n in nodes for v in n.inputs if v is not None and (a := constant(v)) is not None]
    if not all(_keeps_shape(x, array) for array in constants) or _together(constants) > LARGEST_CONSTANT:
        return None
    depth = max((a.ndim for a in constants), default=0)
    with np.errstate(all="ignore"):
        curve = _evaluate(nodes, x, y, GRID.reshape(-1, *[1] * depth))
    found = describe(curve.reshape(len(GRID), -1))
    if found is None:
        return None
    name = found.name or " + ".join(n.op_type for n in nodes)
    return Composite(found._replace(name=name), x, y, nodes)


def _between(x: Value, y: Value) -> tuple[ir.Node, ...]:
    """The nodes that make ``y`` of ``x``, in order."""
    order: dict[ir.Node, None] = {}

    def visit(value: Value) -> None:
        node = value.producer()
        if value is not x and node is not None and node not in order:
            for given in _operands(node):
                visit(given)
            order[node] = None

    visit(y)
    return tuple(order)


def _keeps_shape(x: Value, array: Array) -> bool:
    """Whether what is computed of ``x`` and ``array`` has the shape of ``x``: the constant does not spread it."""
    if x.shape is None:
        return array.size == 1
    dims = list(x.shape)[max(0, len(x.shape) - array.ndim) :]
    return array.ndim <= len(x.shape) and all(d == 1 or x_d != 1 for d, x_d in zip(array.shape, dims, strict=True))


def _together(constants: Sequence[Array]) -> int:
    """How many elements they have when they are broadcast."""
    return math.prod(np.broadcast_shapes(*(array.shape for array in constants)))


def _evaluate(nodes: Sequence[ir.Node], x: Value, y: Value, points: Array) -> Array:
    """What ``nodes`` make of ``points`` in place of ``x``, in real numbers, quantized or not."""
    known: dict[Value, Array] = {x: points}
    for node in nodes:
        attributes = {a.name: a.value for a in node.attributes.values()}
        given = [_array(node, k, known) for k in _positions(node)]
        if node.op_type in REQUANTIZED:
            given += np.array(real_range(node.outputs[0]) or (-np.inf, np.inf)).tolist()
        known[node.outputs[0]] = ELEMENTWISE[node.op_type](*given, **attributes)
    return np.asarray(known[y])


def _array(node: ir.Node, position: int, known: Mapping[Value, Array]) -> Array | None:
    value = node.inputs[position]
    if value is None or value in known:
        return None if value is None else known[value]
    array = constant(value)
    if array is None or node.op_type not in QUANTIZED:
        return array
    scale, zero_point = (constant(node.inputs[position + k]) for k in (1, 2))
    return (array.astype(np.float64) - (0 if zero_point is None else zero_point)) * (1 if scale is None else scale)
