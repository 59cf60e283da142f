"""What numbers a value can hold, as far as that is known before the run: bounds, and whether all are finite."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.constants import constant

RANGE = "onnx_gradcam.range"  # key in ``meta`` of values whose range was computed
OVERFLOW = 80.0  # float32 and bfloat16 hold eˣ for all x below, and more
OVERFLOW_HALF = 11.0
LARGEST = {
    ir.DataType.FLOAT: float(np.finfo(np.float32).max),
    ir.DataType.BFLOAT16: float(np.finfo(np.float32).max),
    ir.DataType.FLOAT16: float(np.finfo(np.float16).max),
}


class Trust(enum.IntEnum):
    """Whether the elements of a value are finite."""

    FINITE = 0  # all are, unless numbers of an ordinary size overflow
    INPUT = 1  # as the user gives them: masks of minus infinity are usual
    NONE = 2  # some may be infinite, or not a number


@dataclass(frozen=True)
class Range:
    """The bounds of all elements of a value, and whether they are finite."""

    low: float
    high: float
    trust: Trust

    def has(self, number: float) -> bool:
        """Tell whether an element may be ``number``."""
        return self.low <= number <= self.high


ANY = Range(-math.inf, math.inf, Trust.FINITE)
Formula = Callable[[ir.Node, Sequence[Range]], Range]


def range_of(value: ir.Value) -> Range:
    """Return the range of ``value``: what follows from constants and from the operators that make it.

    Args:
        value: a value of any graph. What is found is kept in the ``meta`` of the values.
    """
    stack = [value]
    while stack:
        last = stack[-1]
        if RANGE not in last.meta:
            operands = _operands(last)
            missing = [v for v in operands if RANGE not in v.meta]
            if missing:
                stack.extend(missing)
                continue
            last.meta[RANGE] = _compute(last, [v.meta[RANGE] for v in operands])
        stack.pop()
    found: Range = value.meta[RANGE]
    return found


def _operands(value: ir.Value) -> list[ir.Value]:
    """Return the values whose ranges decide on that of ``value``; large weights of a contraction are not read."""
    node = value.producer()
    if value.const_value is not None or node is None:
        return []
    given = [v for v in node.inputs if v is not None]
    return given if node.op_type in FORMULAS else [v for v in given if v.const_value is None]


def _compute(value: ir.Value, operands: Sequence[Range]) -> Range:
    """Return the range of a value whose operands have the ranges ``operands``."""
    node = value.producer()
    if value.const_value is not None:
        return _of_array(value.const_value.numpy())
    if node is None:
        return Range(-math.inf, math.inf, Trust.INPUT)
    if node.domain in ("", "ai.onnx") and node.op_type in FORMULAS and operands:
        return FORMULAS[node.op_type](node, operands)
    broken = any(r.trust == Trust.NONE for r in operands)
    return Range(-math.inf, math.inf, Trust.NONE) if broken else ANY


def _of_array(array: np.ndarray) -> Range:
    """Return the range of a constant."""
    if array.dtype.kind in "iub" and array.size:
        return Range(float(array.min()), float(array.max()), Trust.FINITE)
    if not array.size or array.dtype.kind in "OUSc":
        return ANY
    wide = array.astype(np.float64)
    is_finite = bool(np.isfinite(wide).all())
    known = wide[~np.isnan(wide)]
    bounds = (float(known.min()), float(known.max())) if known.size else (-math.inf, math.inf)
    return Range(*bounds, Trust.FINITE if is_finite else Trust.NONE)


def _worst(ranges: Sequence[Range]) -> Trust:
    return max(r.trust for r in ranges)


def _between(low: float, high: float, trust: Trust) -> Range:
    """Return the range with these bounds; one that is ∞ − ∞ is no bound."""
    return Range(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high, trust)


def _corners(ranges: Sequence[Range], combine: Callable[[float, float], float], trust: Trust) -> Range:
    """Return the range of a monotone function of two operands: its extremes are at the corners."""
    a, b = ranges[:2]
    ends = [combine(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Range(min(ends), max(ends), trust)


def _first(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """The elements of the first input, moved, chosen or averaged."""
    return ranges[0]


def _all(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """Elements of any input."""
    return Range(min(r.low for r in ranges), max(r.high for r in ranges), _worst(ranges))


def _or_zero(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """The elements of the first input, and zeros."""
    return Range(min(ranges[0].low, 0.0), max(ranges[0].high, 0.0), ranges[0].trust)


def _average_pool(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """Zeros are averaged where padding counts."""
    return (_or_zero if node.attributes.get_int("count_include_pad", 0) else _first)(node, ranges)


def _pad(node: ir.Node, ranges: Sequence[Range]) -> Range:
    fill = ranges[2:3] if len(node.inputs) > 2 and node.inputs[2] is not None else ()
    return _all(node, [ranges[0], *fill]) if fill else _or_zero(node, ranges)


def _where(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """A Where repairs what one of its branches may hold, unless the other one is infinite on purpose."""
    both = _all(node, ranges[1:])
    on_purpose = any(
        v is not None and v.const_value is not None and r.trust == Trust.NONE
        for v, r in zip(node.inputs[1:], ranges[1:], strict=True)
    )
    trust = both.trust if on_purpose or both.trust < Trust.NONE else min(r.trust for r in ranges[1:])
    return Range(both.low, both.high, trust)


def _bounded(low: float, high: float) -> Formula:
    """Return the formula of a function with these bounds."""

    def formula(node: ir.Node, ranges: Sequence[Range]) -> Range:
        return Range(low, high, ranges[0].trust)

    return formula


def _softmax(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """A row of minus infinities becomes one of NaN."""
    return Range(0.0, 1.0, Trust.FINITE if ranges[0].trust == Trust.FINITE else Trust.NONE)


def _log_softmax(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return Range(-math.inf, 0.0, Trust.FINITE if ranges[0].trust == Trust.FINITE else Trust.NONE)


def _add(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """The sum of two masks of the lowest number of a dtype is −∞."""
    low, high = sum(r.low for r in ranges), sum(r.high for r in ranges)
    largest = LARGEST.get(node.outputs[0].dtype or ir.DataType.FLOAT, math.inf)
    overflows = any(math.isfinite(bound) and abs(bound) > largest for bound in (low, high))
    return _between(low, high, Trust.NONE if overflows else _worst(ranges))


def _sub(node: ir.Node, ranges: Sequence[Range]) -> Range:
    a, b = ranges
    x, y = node.inputs[:2]
    largest = None if y is None else y.producer()
    if largest is not None and largest.op_type == "ReduceMax" and largest.inputs[0] is x:
        return _between(a.low - b.high, 0.0, _worst(ranges))
    return _between(a.low - b.high, a.high - b.low, _worst(ranges))


def _times(x: float, y: float) -> float:
    return 0.0 if 0 in (x, y) else x * y  # a bound may be infinite, an element is not


def _mul(node: ir.Node, ranges: Sequence[Range]) -> Range:
    if node.inputs[0] is node.inputs[1]:
        return _square(node, ranges)
    return _corners(ranges, _times, _worst(ranges))


def _square(node: ir.Node, ranges: Sequence[Range]) -> Range:
    ends = _times(ranges[0].low, ranges[0].low), _times(ranges[0].high, ranges[0].high)
    return Range(0.0 if ranges[0].has(0) else min(ends), max(ends), ranges[0].trust)


def _div(node: ir.Node, ranges: Sequence[Range]) -> Range:
    if ranges[1].has(0):
        return Range(-math.inf, math.inf, Trust.NONE)
    return _corners(ranges, lambda x, y: 0.0 if math.isinf(y) else x / y, _worst(ranges))


def _reciprocal(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return _div(node, [Range(1.0, 1.0, Trust.FINITE), ranges[0]])


def _exp(node: ir.Node, ranges: Sequence[Range]) -> Range:
    x = ranges[0]
    overflows = x.high > (OVERFLOW_HALF if node.outputs[0].dtype == ir.DataType.FLOAT16 else OVERFLOW)
    low = math.exp(x.low) if -OVERFLOW < x.low < OVERFLOW else 0.0
    return Range(low, math.inf if overflows else math.exp(x.high), Trust.NONE if overflows else x.trust)


def _log(node: ir.Node, ranges: Sequence[Range]) -> Range:
    x = ranges[0]
    if x.low <= 0:
        return Range(-math.inf, math.inf, Trust.NONE)
    return Range(math.log(x.low), math.inf if math.isinf(x.high) else math.log(x.high), x.trust)


def _log_sum(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return _log(node, [_total(node, ranges)])


def _sqrt(node: ir.Node, ranges: Sequence[Range]) -> Range:
    x = ranges[0]
    if x.low < 0:
        return Range(0.0, math.inf, Trust.NONE)
    return Range(math.sqrt(x.low), math.sqrt(x.high) if math.isfinite(x.high) else math.inf, x.trust)


def _pow(node: ir.Node, ranges: Sequence[Range]) -> Range:
    x, n = ranges
    exponents = constant(node.inputs[1])
    if exponents is not None and np.all(exponents == 2):
        return _square(node, ranges)
    whole = exponents is not None and bool(np.all(exponents == np.round(exponents)))
    if (x.low < 0 and not whole) or (x.has(0) and n.low < 0):
        return Range(-math.inf, math.inf, Trust.NONE)
    even = whole and exponents is not None and bool(np.all(exponents % 2 == 0))
    if x.low > 0 and n.low == n.high and n.low > 0:
        return Range(math.pow(x.low, n.low), math.inf, _worst(ranges))
    return Range(0.0 if even or x.low >= 0 else -math.inf, math.inf, _worst(ranges))


def _abs(node: ir.Node, ranges: Sequence[Range]) -> Range:
    x = ranges[0]
    ends = abs(x.low), abs(x.high)
    return Range(0.0 if x.has(0) else min(ends), max(ends), x.trust)


def _neg(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return Range(-ranges[0].high, -ranges[0].low, ranges[0].trust)


def _relu(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return Range(max(ranges[0].low, 0.0), max(ranges[0].high, 0.0), ranges[0].trust)


def _max(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return Range(max(r.low for r in ranges), max(r.high for r in ranges), _worst(ranges))


def _min(node: ir.Node, ranges: Sequence[Range]) -> Range:
    return Range(min(r.low for r in ranges), min(r.high for r in ranges), _worst(ranges))


def _clip(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """As min(max(x, low), high); bounds that are left out have no range."""
    bounds = iter(ranges[1:])
    low, high = ((next(bounds) if v is not None else ANY) for v in [*node.inputs[1:], None, None][:2])
    return Range(
        min(max(ranges[0].low, low.low), high.high), min(max(ranges[0].high, low.high), high.high), ranges[0].trust
    )


def _total(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """A sum of one or more elements."""
    x = ranges[0]
    return Range(x.low if x.low >= 0 else -math.inf, x.high if x.high <= 0 else math.inf, x.trust)


def _lengths(node: ir.Node, ranges: Sequence[Range]) -> Range:
    """No length is 0: an empty tensor has no elements of which anything could be wrong."""
    return Range(1.0, math.inf, Trust.FINITE)


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys("Identity Cast CastLike Dropout Expand Flatten Gather GatherElements GatherND".split(), _first),
    **dict.fromkeys("Reshape Slice Split Squeeze Tile Transpose Unsqueeze Compress DepthToSpace".split(), _first),
    **dict.fromkeys("SpaceToDepth ReduceMax ReduceMin ReduceMean MaxPool GlobalMaxPool".split(), _first),
    "GlobalAveragePool": _first,
    "AveragePool": _average_pool,
    "Trilu": _or_zero,
    **dict.fromkeys(["Sigmoid", "HardSigmoid"], _bounded(0.0, 1.0)),
    **dict.fromkeys("Tanh Erf Softsign Sin Cos".split(), _bounded(-1.0, 1.0)),
    **dict.fromkeys("Softplus ReduceL1 ReduceL2 ReduceSumSquare".split(), _bounded(0.0, math.inf)),
    "Abs": _abs,
    "Add": _add,
    "Clip": _clip,
    "Concat": _all,
    "Div": _div,
    "Exp": _exp,
    "Log": _log,
    "LogSoftmax": _log_softmax,
    "Max": _max,
    "Min": _min,
    "Mul": _mul,
    "Neg": _neg,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "ReduceLogSum": _log_sum,
    "ReduceSum": _total,
    "Relu": _relu,
    "Shape": _lengths,
    "Size": _lengths,
    "Softmax": _softmax,
    "Sqrt": _sqrt,
    "Sub": _sub,
    "Sum": _add,
    "Where": _where,
}
