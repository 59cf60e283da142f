"""A cotangent of exactly 0 stays 0, whatever the local derivative is: infinite, or not a number.

Written only where that can happen. A derivative is infinite at 0 (√x, 1/x, ln x, xⁿ) unless the range of x leaves out
0; a value is not finite where an operator made it so and a Where behind it puts something else in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import carriers
from onnx_gradcam.graph.ranges import RANGE, Trust, range_of

LOWEST_SCORE = -1e30  # below it are masks, such as the lowest number of a dtype
REPLACED = "onnx_gradcam.replaced"  # key in ``meta`` of values that a Where may put something else in the place of

REPAIRED = "onnx_gradcam.repaired"  # key in ``meta`` of repaired values, for the value as it is

# Operators whose derivative is a factor for each element of the output.
ELEMENTWISE = frozenset(
    "Abs Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Div Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Max "
    "Min Mish Mod Mul Pow PRelu Reciprocal Relu Selu Sigmoid Sin Sinh Softplus Softsign Sqrt Tan Tanh "
    "ThresholdedRelu".split()
)
CONTRACTIONS = frozenset("Conv ConvTranspose DeformConv Einsum Gemm MatMul".split())


def mark_replaced(nodes: Sequence[ir.Node], path: Set[Value]) -> None:
    """Mark the values of which a Where or an If behind them may drop elements.

    Args:
        nodes: forward nodes in topological order; what their outputs were marked as before holds, where nothing among
            them reads these.
        path: the values on the way to the score.
    """
    for node in reversed(nodes):
        if _drops(node) or any(REPLACED in y.meta for y in node.outputs):
            for _, value in carriers(node):
                if value in path:
                    value.meta[REPLACED] = True


def _drops(node: ir.Node) -> bool:
    """Tell whether ``node`` may drop what it reads: an If, or a Where that is no mask in front of a softmax."""
    if node.op_type != "Where":
        return node.op_type == "If"
    constants = [range_of(v) for v in node.inputs[1:] if v is not None and v.const_value is not None]
    return not any(r.trust == Trust.NONE or r.low < LOWEST_SCORE for r in constants)


def is_singular(node: ir.Node, i: int) -> bool:
    """Tell whether the derivative by input ``i`` of an elementwise operator may be infinite or not a number."""
    if node.op_type not in ELEMENTWISE:
        return False
    test = SINGULARITIES.get((node.op_type, i))
    return (test is not None and test(node)) or _reads_broken(node)


def _reads_broken(node: ir.Node) -> bool:
    """Tell whether a Where drops elements of what ``node`` makes of values that may not be finite."""
    if REPLACED not in node.outputs[0].meta:
        return False
    return any(range_of(v).trust == Trust.NONE for v in [*node.inputs, *node.outputs] if v is not None)


def mask(op: Builder, g: Value, share: Value) -> Value:
    """Write ``share`` with 0 where ``g`` is 0."""
    zero = op.const(0, like=share)
    return op.Where(op.Equal(g, op.const(0, like=g)), zero, share)


def repair(op: Builder, node: ir.Node, value: Value) -> Value:
    """Write an input or output of ``node``, no elementwise operator, as its rule shall read it.

    Where a Where drops what they spoil, elements that are not a number are read as 0; in contractions infinite ones,
    too. What depends on such an element, and is not dropped, is not a number in the deployed model either.
    """
    if node.op_type in ELEMENTWISE or not any(REPLACED in y.meta for y in node.outputs):
        return value
    return (_finite if node.op_type in CONTRACTIONS else _number)(op, value)


def _number(op: Builder, x: Value) -> Value:
    """Write ``x`` with 0 in the place of NaN; ``x`` itself where it has none."""
    if not _may_break(x):
        return x
    numbers = _as(x, op.Where(op.Equal(x, x), x, op.const(0, like=x)))
    numbers.meta[RANGE] = range_of(x)  # it may be infinite
    return numbers


def _finite(op: Builder, x: Value) -> Value:
    """Write ``x`` with 0 in the place of infinities and NaN; ``x`` itself where it has none."""
    if not _may_break(x):
        return x
    return _as(x, op.Where(op.Less(op.Abs(x), op.const(math.inf, like=x)), x, op.const(0, like=x)))


def _may_break(x: Value) -> bool:
    is_float = x.dtype is not None and x.dtype.is_floating_point()
    return is_float and x.const_value is None and range_of(x).trust == Trust.NONE


def _as(x: Value, y: Value) -> Value:
    y.shape = x.shape
    y.meta[REPAIRED] = x
    return y


def maker(y: Value) -> ir.Node | None:
    """Return the node that made an output as a rule reads it, repaired or not; None for an input of the graph."""
    own: Value = y.meta.get(REPAIRED, y)
    return own.producer()


def _at_zero(position: int) -> Callable[[ir.Node], bool]:
    """Return a test of whether input ``position`` may be 0."""

    def test(node: ir.Node) -> bool:
        x = node.inputs[position]
        return x is not None and range_of(x).has(0)

    return test


def _below_one(node: ir.Node) -> bool:
    """Tell whether xⁿ⁻¹ may be infinite: at 0 for an exponent below 1 that is not 0."""
    x, n = node.inputs[:2]
    exponents = constant(n)
    harmless = exponents is not None and bool(np.all((exponents >= 1) | (exponents == 0)))
    return x is not None and not harmless and range_of(x).has(0)


def _overflows(node: ir.Node) -> bool:
    return range_of(node.outputs[0]).trust == Trust.NONE


def _at_ends(low: float, high: float) -> Callable[[ir.Node], bool]:
    """Return a test of whether the input may lie at or outside of the ends of the domain."""

    def test(node: ir.Node) -> bool:
        x = node.inputs[0]
        return x is not None and (range_of(x).low <= low or range_of(x).high >= high)

    return test


SINGULARITIES: dict[tuple[str, int], Callable[[ir.Node], bool]] = {
    ("Acos", 0): _at_ends(-1, 1),
    ("Acosh", 0): _at_ends(1, math.inf),
    ("Asin", 0): _at_ends(-1, 1),
    ("Atanh", 0): _at_ends(-1, 1),
    ("Cosh", 0): _at_ends(-80, 80),
    ("Div", 0): _at_zero(1),
    ("Div", 1): _at_zero(1),
    ("Exp", 0): _overflows,
    ("Log", 0): _at_zero(0),
    ("Mod", 1): _at_zero(1),
    ("Pow", 0): _below_one,
    ("Pow", 1): _overflows,
    ("Reciprocal", 0): _at_zero(0),
    ("Sinh", 0): _at_ends(-80, 80),
    ("Sqrt", 0): _at_zero(0),
}
