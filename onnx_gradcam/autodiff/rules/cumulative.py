"""Rules of running sums and products, of numbers in equal steps, and of what a triangle leaves."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import dims, positions, reshape_like
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.reduction import replace_by_one
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank


@vjp("CumSum", wrt=0)
def cum_sum(op: Builder, g: Value, y: Value, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """y = the sum of x up to each place:  x̄ = the sum of g from each place on."""
    return op.CumSum(g, axis, exclusive=exclusive, reverse=1 - reverse)


@vjp("CumProd", wrt=0)
def cum_prod(op: Builder, g: Value, y: Value, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """yᵢ = Π xₖ up to i:  x̄ⱼ = Σ gᵢ · yᵢ with 1 in the place of xⱼ, over the i whose product has xⱼ."""
    along = ints_of(axis)
    if along is None:
        raise Unwritten("an axis that is not constant")
    k = along[0] % rank(x)
    products = op.CumProd(replace_by_one(op, x, k), op.array(np.array(k + 1)), exclusive=exclusive, reverse=reverse)
    result = positions(op, dims(x)[k])
    factor = op.Unsqueeze(result, op.ints(1))
    earlier, later = (result, factor) if reverse else (factor, result)
    held = op.Less(earlier, later) if exclusive else op.Not(op.Less(later, earlier))
    held = op.Unsqueeze(indicator(op, held, x), op.ints(*range(2, rank(x) - k + 1)))
    return op.ReduceSum(op.Mul(op.Mul(products, held), op.Unsqueeze(g, op.ints(k))), op.ints(k + 1), keepdims=0)


@vjp("Range", wrt=0)
def range_start(
    op: Builder, g: Value, y: Value, start: Value, limit: Value, delta: Value, *, stash_type: int = 1
) -> Value:
    """yᵢ = start + i · delta:  the cotangent of start is Σ gᵢ."""
    return reshape_like(op, op.ReduceSum(g, keepdims=0), start)


@vjp("Range", wrt=2)
def range_delta(
    op: Builder, g: Value, y: Value, start: Value, limit: Value, delta: Value, *, stash_type: int = 1
) -> Value:
    """The cotangent of delta is Σ i · gᵢ."""
    places = op.Cast(positions(op, dims(y)[0]), to=g.dtype)
    return reshape_like(op, op.ReduceSum(op.Mul(g, places), keepdims=0), delta)


@vjp("Trilu", wrt=0)
def trilu(op: Builder, g: Value, y: Value, input: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    """y = the triangle of x on one side of a diagonal:  x̄ = the same triangle of g."""
    return op.Trilu(g, k, upper=upper)
