"""Reductions. A cotangent stays compact (size 1 along the reduced axes) where the derivative is constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.elementwise import indicator, nonzero, sign
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank

Formula = Callable[[Builder, Value, Value, Value, Sequence[int]], Value]

# y = x without axes; where f(x) is summed, runtimes differ on whether f is applied
UNREDUCED = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp"})


def reduction(op_type: str) -> Callable[[Formula], Formula]:
    """Make ``formula(op, g, y, x, axes)``, with g and y of x's rank and the axes from 0 up, the rule."""

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
            reduced = _reduced_axes(data, axes, noop_with_empty_axes)
            if not reduced:
                if op_type in UNREDUCED:
                    return g
                raise Unwritten("noop_with_empty_axes without axes")
            if not keepdims:
                g, y = (op.Unsqueeze(v, op.ints(*reduced)) for v in (g, y))
            return formula(op, g, y, data, reduced)

        rule.__doc__ = formula.__doc__
        vjp(op_type, wrt=0, broadcasts=True)(rule)
        return formula

    return register


def _reduced_axes(data: Value, axes: Value | None, noop_with_empty_axes: int) -> list[int]:
    given = [] if axes is None else ints_of(axes)
    if given is None:
        raise Unwritten("axes that are not constant")
    if not given and not noop_with_empty_axes:
        return list(range(rank(data)))
    return sorted(a % rank(data) for a in given)


def element_count(op: Builder, x: Value, axes: Sequence[int]) -> Value:
    """The number of elements of x along ``axes``, in the dtype of x: a constant where these are static."""
    assert x.shape is not None
    dims = [x.shape[a] for a in axes]
    count = op.const(math.prod(d for d in dims if isinstance(d, int)), like=x)
    for axis in (a for a, d in zip(axes, dims, strict=True) if not isinstance(d, int)):
        count = op.Mul(count, op.Cast(op.Gather(op.shape_of(x), op.ints(axis)), to=x.dtype))
    return count


@reduction("ReduceSum")
def reduce_sum(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = Σ x:  x̄ = g."""
    return g


@reduction("ReduceMean")
def reduce_mean(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = Σ x / n:  x̄ = g / n."""
    return op.Div(g, element_count(op, x, axes))


@reduction("ReduceMax")
@reduction("ReduceMin")
def reduce_extremum(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = max x or min x:  x̄ = g · [x = y] / Σ [x = y]; elements that tie share evenly."""
    hits = indicator(op, op.Equal(x, y), x)
    return op.Mul(op.Div(g, op.ReduceSum(hits, op.ints(*axes), keepdims=1)), hits)


@reduction("ReduceL1")
def reduce_l1(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = Σ |x|:  x̄ = g · sign(x)."""
    return op.Mul(g, sign(op, x))


@reduction("ReduceL2")
def reduce_l2(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = √Σ x²:  x̄ = g · x / y, 0 where y is 0."""
    return op.Mul(op.Div(g, nonzero(op, y)), x)


@reduction("ReduceSumSquare")
def reduce_sum_square(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = Σ x²:  x̄ = g · 2x."""
    return op.Mul(op.Mul(g, op.const(2, like=x)), x)


@reduction("ReduceLogSum")
def reduce_log_sum(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = ln Σ x:  x̄ = g · e⁻ʸ."""
    return op.Mul(g, op.Exp(op.Neg(y)))


@reduction("ReduceLogSumExp")
def reduce_log_sum_exp(op: Builder, g: Value, y: Value, x: Value, axes: Sequence[int]) -> Value:
    """y = ln Σ eˣ:  x̄ = g · eˣ⁻ʸ."""
    return op.Mul(g, op.Exp(op.Sub(x, y)))
