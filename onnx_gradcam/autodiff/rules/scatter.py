"""Rules of operators that write updates into a tensor at given places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.axes import dims, one_hot, positions, reshape, reshape_like, zeros_like
from onnx_gradcam.autodiff.rules.elementwise import indicator, nonzero
from onnx_gradcam.graph.builder import HALF_PRECISION, Builder, Value, rank

Move = Callable[[Value], Value]


@dataclass(frozen=True)
class TensorPlaces:
    """Places in a tensor: ``take(x)`` reads there, ``put(base, updates, reduction)`` writes there."""

    take: Move
    put: Callable[[Value, Value, str], Value]

    @classmethod
    def elements(cls, op: Builder, indices: Value, axis: int) -> TensorPlaces:
        """Return the places of GatherElements and ScatterElements."""

        def put(base: Value, updates: Value, reduction: str) -> Value:
            return put_elements(op, base, indices, updates, axis, reduction)

        return cls(lambda x: op.GatherElements(x, indices, axis=axis), put)

    @classmethod
    def slices(cls, op: Builder, indices: Value) -> TensorPlaces:
        """Return the places of GatherND and ScatterND.

        ScatterND does not reduce here: onnxruntime's CPU kernel works in parallel, and loses some of the updates that
        share a place.
        """

        def take(x: Value) -> Value:
            return op.GatherND(x, indices)

        def put(base: Value, updates: Value, reduction: str) -> Value:
            if reduction == "none":
                return op.ScatterND(base, indices, updates)
            return put_back(op, base, updates, take, reduction)

        return cls(take, put)


def put_elements(op: Builder, base: Value, indices: Value, updates: Value, axis: int, reduction: str) -> Value:
    """Write ScatterElements, in float32 for half precision, which onnxruntime's CPU kernel does not reduce."""
    if reduction == "none" or base.dtype not in HALF_PRECISION:
        return op.ScatterElements(base, indices, updates, axis=axis, reduction=reduction)
    wide, added = op.Cast(base, to=ir.DataType.FLOAT), op.Cast(updates, to=ir.DataType.FLOAT)
    return op.Cast(op.ScatterElements(wide, indices, added, axis=axis, reduction=reduction), to=base.dtype)


def put_back(op: Builder, base: Value, updates: Value, move: Move, reduction: str) -> Value:
    """Write updates to where ``move`` takes elements from.

    The places are found by moving the numbers of the elements.

    Args:
        op: writes the nodes.
        base: the tensor to write to.
        updates: what is written, in the shape of ``move(base)``.
        move: writes an operator that only moves elements.
        reduction: as in ScatterElements.
    """
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    numbers = op.Reshape(op.Range(zero, op.Size(base), one), op.shape_of(base))
    places, line = op.Reshape(move(numbers), op.ints(-1)), op.Reshape(base, op.ints(-1))
    written = put_elements(op, line, places, op.Reshape(updates, op.ints(-1)), 0, reduction)
    return reshape_like(op, written, base)


@vjp("ScatterElements", wrt=0)
def scatter_elements_data(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    indices: Value,
    updates: Value,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Value:
    """y = x with u put, added, multiplied … in at places:  x̄ = g, 0 where replaced, · Π u, or its share of a tie."""
    return _data(op, g, y, data, updates, TensorPlaces.elements(op, indices, axis), reduction)


@vjp("ScatterElements", wrt=2)
def scatter_elements_updates(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    indices: Value,
    updates: Value,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Value:
    """ū = g at its place, for mul times all other factors there, for max and min times its share."""
    return _updates(op, g, y, data, updates, TensorPlaces.elements(op, indices, axis), reduction)


@vjp("ScatterND", wrt=0)
def scatter_nd_data(
    op: Builder, g: Value, y: Value, data: Value, indices: Value, updates: Value, *, reduction: str = "none"
) -> Value:
    """As ScatterElements, the last axis of the index being a place."""
    return _data(op, g, y, data, updates, TensorPlaces.slices(op, indices), reduction)


@vjp("ScatterND", wrt=2)
def scatter_nd_updates(
    op: Builder, g: Value, y: Value, data: Value, indices: Value, updates: Value, *, reduction: str = "none"
) -> Value:
    """As ScatterElements, the last axis of the index being a place."""
    return _updates(op, g, y, data, updates, TensorPlaces.slices(op, indices), reduction)


def _data(op: Builder, g: Value, y: Value, x: Value, u: Value, at: TensorPlaces, reduction: str) -> Value:
    """Write the cotangent of the tensor that is written to."""
    match reduction:
        case "none":
            return at.put(g, zeros_like(op, u), "none")
        case "add":
            return g
        case "mul":
            ones = op.Expand(op.const(1, like=x), op.shape_of(x))
            return op.Mul(g, at.put(ones, u, "mul"))
        case _:
            hits, _, count = _ties(op, y, x, u, at)
            return op.Mul(op.Div(g, count), hits)


def _updates(op: Builder, g: Value, y: Value, x: Value, u: Value, at: TensorPlaces, reduction: str) -> Value:
    """Write the cotangent of the updates."""
    match reduction:
        case "none" | "add":
            return at.take(g)
        case "mul":
            return _other_factors(op, g, x, u, at)
        case _:
            _, hits, count = _ties(op, y, x, u, at)
            return op.Mul(at.take(op.Div(g, count)), hits)


def _ties(op: Builder, y: Value, x: Value, u: Value, at: TensorPlaces) -> tuple[Value, Value, Value]:
    """Write 1 where x, and where u, is the extremum y, and how many of them share each place."""
    hits_x, hits_u = indicator(op, op.Equal(x, y), x), indicator(op, op.Equal(u, at.take(y)), u)
    return hits_x, hits_u, at.put(hits_x, hits_u, "add")


def _other_factors(op: Builder, g: Value, x: Value, u: Value, at: TensorPlaces) -> Value:
    """Write g · x · Π of the other updates at the same place.

    That is P/u with P the product of those that are not 0; it is 0 where another update is 0.
    """
    zero = indicator(op, op.Equal(u, op.const(0, like=u)), u)
    divisor = nonzero(op, u)
    product = op.Mul(g, at.put(x, divisor, "mul"))
    zeros = at.put(zeros_like(op, x), zero, "add")
    no_other = indicator(op, op.Equal(at.take(zeros), zero), u)
    return op.Mul(op.Div(at.take(product), divisor), no_other)


@vjp("TensorScatter", wrt=0)
def tensor_scatter_past(
    op: Builder,
    g: Value,
    y: Value,
    past_cache: Value,
    update: Value,
    write_indices: Value | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Value:
    """y = the cache with the update in it, from a place of each row on:  x̄ = g, 0 where replaced."""
    axis %= rank(past_cache)
    replaced = op.ReduceSum(_placement(op, g, update, write_indices, axis), op.ints(1), keepdims=0)
    others = op.ints(*(k for k in range(1, rank(past_cache)) if k != axis))
    return op.Mul(g, op.Unsqueeze(op.Sub(op.const(1, like=g), replaced), others))


@vjp("TensorScatter", wrt=1)
def tensor_scatter_update(
    op: Builder,
    g: Value,
    y: Value,
    past_cache: Value,
    update: Value,
    write_indices: Value | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Value:
    """ū = g at its place."""
    axis %= rank(past_cache)
    order = [0, axis, *(k for k in range(1, rank(g)) if k != axis)]
    rows = op.Transpose(g, perm=order)
    taken = op.MatMul(_placement(op, g, update, write_indices, axis), op.Reshape(rows, op.ints(0, 0, -1)))
    lengths = dims(update)
    taken = reshape(op, taken, [lengths[k] for k in order])
    return op.Transpose(taken, perm=[int(k) for k in np.argsort(order)])


def _placement(op: Builder, g: Value, update: Value, start: Value | None, axis: int) -> Value:
    """Write [row, element of the update, element of the cache] = 1 where the one goes to the other.

    The update may run over the end of the cache, and goes on at its start.
    """
    places = op.Unsqueeze(positions(op, dims(update)[axis]), op.ints(0))
    if start is not None:
        places = op.Add(places, op.Unsqueeze(start, op.ints(1)))
    return one_hot(op, places, dims(g)[axis], like=g)
