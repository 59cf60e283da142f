"""Rules of reductions. A cotangent stays compact (size 1 along the reduced axes) where the derivative is constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_gradcam.autodiff.guard import mask
from onnx_gradcam.autodiff.registry import Refused, vjp
from onnx_gradcam.autodiff.rules.axes import dims, positions
from onnx_gradcam.autodiff.rules.elementwise import indicator, nonzero, sign
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank
from onnx_gradcam.graph.ranges import Trust, range_of

# These return x where there are no axes. Of the others onnxruntime 1.20 returns x, and 1.31, as ONNX says, f(x).
UNREDUCED = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceProd"})


@dataclass(frozen=True)
class Axes:
    """The axes of a reduction.

    Attributes:
        known: the axes, counted from 0, or None where they are known at run time only.
        value: the axes as an input.
        noop: the attribute noop_with_empty_axes.
    """

    known: Sequence[int] | None
    value: Value | None
    noop: int = 0

    def total(self, op: Builder, x: Value) -> Value:
        """Write Σ x, of size 1 along the axes."""
        return op.ReduceSum(x, self.value, keepdims=1, noop_with_empty_axes=self.noop)


Formula = Callable[[Builder, Value, Value, Value, Axes], Value]


def reduction(op_type: str) -> Callable[[Formula], Formula]:
    """Return a decorator that makes a formula the rule of a reduction.

    The formula is called as ``formula(op, g, y, x, axes)``, with g and y of the rank of x.
    """

    def register(formula: Formula) -> Formula:
        def rule(
            op: Builder,
            g: Value,
            y: Value,
            data: Value,
            axes: Value | None = None,
            *,
            keepdims: int = 1,
            noop_with_empty_axes: int = 0,
        ) -> Value:
            constants = [] if axes is None else ints_of(axes)
            if constants is None:
                return _at_run_time(op, formula, g, y, data, Axes(None, axes, noop_with_empty_axes), keepdims)
            known = sorted(a % rank(data) for a in constants)
            if not constants and not noop_with_empty_axes:
                known = list(range(rank(data)))
            if not known:
                if op_type in UNREDUCED:
                    return g
                raise Refused("noop_with_empty_axes without axes, which runtimes compute differently,")
            if not keepdims:
                g, y = (op.Unsqueeze(v, op.ints(*known)) for v in (g, y))
            return formula(op, g, y, data, Axes(known, op.ints(*known)))

        rule.__doc__ = formula.__doc__
        vjp(op_type, wrt=0, broadcasts=True)(rule)
        return formula

    return register


def _at_run_time(op: Builder, formula: Formula, g: Value, y: Value, x: Value, axes: Axes, keepdims: int) -> Value:
    """Write the formula for axes that are known at run time only, and with them the shape of y.

    Another reduction tells the shape that y has with keepdims.
    """
    g = op.fill(g, y)
    if not keepdims:
        kept = op.shape_of(op.ReduceMax(x, axes.value, keepdims=1, noop_with_empty_axes=axes.noop))
        g, y = op.Reshape(g, kept), op.Reshape(y, kept)
    return op.fill(formula(op, g, y, x, axes), x)


def element_count(op: Builder, x: Value, axes: Sequence[int]) -> Value:
    """Write the number of elements of x along ``axes``, in the dtype of x: a constant where these are static."""
    assert x.shape is not None
    dims = [x.shape[a] for a in axes]
    count = op.const(math.prod(d for d in dims if isinstance(d, int)), like=x)
    for axis in (a for a, d in zip(axes, dims, strict=True) if not isinstance(d, int)):
        count = op.Mul(count, op.Cast(op.Gather(op.shape_of(x), op.ints(axis)), to=x.dtype))
    return count


@reduction("ReduceSum")
def reduce_sum(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = Σ x:  x̄ = g."""
    return g


@reduction("ReduceMean")
def reduce_mean(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = Σ x / n:  x̄ = g / n."""
    if axes.known is not None:
        return op.Div(g, element_count(op, x, axes.known))
    elements, means = op.Cast(op.Size(x), to=x.dtype), op.Cast(op.Size(y), to=x.dtype)
    return op.Div(op.Mul(g, means), elements)


@reduction("ReduceMax")
@reduction("ReduceMin")
def reduce_extremum(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = max x or min x:  x̄ = g · [x = y] / Σ [x = y]; elements that tie share evenly."""
    hits = indicator(op, op.Equal(x, y), x)
    return op.Mul(op.Div(g, axes.total(op, hits)), hits)


@reduction("ReduceL1")
def reduce_l1(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = Σ |x|:  x̄ = g · sign(x)."""
    return op.Mul(g, sign(op, x))


@reduction("ReduceL2")
def reduce_l2(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = √Σ x²:  x̄ = g · x / y, 0 where y is 0."""
    return op.Mul(op.Div(g, nonzero(op, y)), x)


@reduction("ReduceSumSquare")
def reduce_sum_square(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = Σ x²:  x̄ = g · 2x."""
    return op.Mul(op.Mul(g, op.const(2, like=x)), x)


@reduction("ReduceLogSum")
def reduce_log_sum(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = ln Σ x:  x̄ = g · e⁻ʸ; 0 where g is 0, at Σ x = 0 too."""
    share = op.Mul(g, op.Exp(op.Neg(y)))
    return mask(op, g, share) if range_of(x).has(0) else share


@reduction("ReduceLogSumExp")
def reduce_log_sum_exp(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = ln Σ eˣ:  x̄ = g · eˣ⁻ʸ; 0 where all x are −∞."""
    if range_of(x).trust != Trust.FINITE:
        y = op.Where(op.Equal(y, op.const(-math.inf, like=y)), op.const(0, like=y), y)
    return op.Mul(g, op.Exp(op.Sub(x, y)))


@reduction("ReduceProd")
def reduce_prod(op: Builder, g: Value, y: Value, x: Value, axes: Axes) -> Value:
    """y = Π x:  x̄ⱼ = g · the product of all others, whether xⱼ is 0 or not."""
    if axes.known is None:
        return _other_factors(op, g, x, axes)
    partial = [x]
    for axis in axes.known[:-1]:
        partial.append(op.ReduceProd(partial[-1], op.ints(axis), keepdims=1))
    for factors, axis in reversed(list(zip(partial, axes.known, strict=False))):
        g = op.Mul(g, op.ReduceProd(replace_by_one(op, factors, axis), op.ints(axis + 1), keepdims=0))
    return g


def replace_by_one(op: Builder, x: Value, axis: int) -> Value:
    """Write z[…, j, k, …] = 1 for j = k, else x[…, k, …], with a new axis before ``axis``."""
    size = dims(x)[axis]
    eye = op.Equal(op.Unsqueeze(positions(op, size), op.ints(1)), positions(op, size))
    after = range(2, rank(x) - axis + 1)
    return op.Where(op.Unsqueeze(eye, op.ints(*after)), op.const(1, like=x), op.Unsqueeze(x, op.ints(axis)))


def _other_factors(op: Builder, g: Value, x: Value, axes: Axes) -> Value:
    """Write g · the product of all other elements.

    That is g · P/xⱼ with P the product of all that are not 0, and P for xⱼ = 0; it is 0 where another element is 0.
    """
    zero = indicator(op, op.Equal(x, op.const(0, like=x)), x)
    factors = nonzero(op, x)
    product = op.ReduceProd(factors, axes.value, keepdims=1, noop_with_empty_axes=axes.noop)
    no_other = indicator(op, op.Equal(axes.total(op, zero), zero), x)
    return op.Mul(op.Div(op.Mul(g, product), factors), no_other)
