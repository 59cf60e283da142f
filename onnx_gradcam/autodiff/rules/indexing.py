"""Rules of operators that take elements at places given by an index or a condition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.axes import (
    contract,
    dims,
    length,
    one_hot,
    pad,
    place,
    positions,
    reshape,
    reshape_like,
    vector,
    zeros_like,
)
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.scatter import TensorPlaces, put_back, put_elements
from onnx_gradcam.graph.builder import Builder, Value, rank, static_dims
from onnx_gradcam.graph.constants import constant

ONE_HOT = 2**15  # elements; a product with a matrix of ones and zeros up to this size is as fast as a scatter
UNKNOWN_LENGTH = 2**10  # stands for a length that is known at run time only


@vjp("Gather", wrt=0)
def gather(op: Builder, g: Value, y: Value, data: Value, indices: Value, *, axis: int = 0) -> Value:
    """y = x[index, …]:  x̄ = the sum of g over all places that took the element; for one index g, and zeros around."""
    axis, size, index = axis % rank(data), length(data, axis), constant(indices)
    taken = rank(indices)
    if index is not None and index.size == 1 and size is not None:
        start = int(index.ravel()[0]) % size
        g = reshape(op, g, [*dims(y)[:axis], 1, *dims(y)[axis + taken :]])
        return pad(op, g, {axis: (start, size - start - 1)})
    rows = g if taken == 1 else op.Reshape(g, vector(op, [*dims(y)[:axis], -1, *dims(y)[axis + taken :]]))
    if index is not None and size is not None:
        placed = place(op, rows, index.ravel() % size, size, axis)
        if placed is not None:
            return placed
    counts = [d if isinstance(d, int) else UNKNOWN_LENGTH for d in [*dims(indices), dims(data)[axis]]]
    if math.prod(counts) > ONE_HOT:
        return put_back(op, zeros_like(op, data), g, lambda x: op.Gather(x, indices, axis=axis), "add")
    flat = op.Reshape(indices, op.ints(-1)) if taken != 1 else indices
    return contract(op, rows, one_hot(op, flat, dims(data)[axis], like=g), axis)


@vjp("GatherElements", wrt=0)
def gather_elements(op: Builder, g: Value, y: Value, data: Value, indices: Value, *, axis: int = 0) -> Value:
    """y[…, t, …] = x[…, index[…, t, …], …]:  x̄ = the sum of g over all places that took the element."""
    shape, index = static_dims(data), constant(indices)
    if shape is not None and index is not None:
        places: list[np.ndarray] = [*np.indices(index.shape)]
        places[axis : axis + 1 or None] = [index]
        placed = place(op, op.Reshape(g, op.ints(-1)), _row_major(places, shape), math.prod(shape), 0)
        if placed is not None:
            return op.Reshape(placed, op.ints(*shape))
    return put_elements(op, zeros_like(op, data), indices, g, axis, "add")


def _row_major(places: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Return the row-major numbers of places.

    Args:
        places: an array of positions for each axis; they may count from the end.
        shape: the lengths of these axes.
    """
    from_start = tuple(place % size for place, size in zip(places, shape, strict=True))
    return np.ravel(np.ravel_multi_index(from_start, shape))


@vjp("GatherND", wrt=0)
def gather_nd(op: Builder, g: Value, y: Value, data: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    """y[t, …] = x[index[t], …], the last axis of the index being a place:  x̄ = the sum of g over those that took it.

    ``batch_dims`` leading axes are shared; they count as places that begin with the position along them.
    """
    index, shape = constant(indices), dims(data)
    if index is not None:
        depth = batch_dims + index.shape[-1]
        known = [d for d in shape[:depth] if isinstance(d, int)]
        if len(known) == depth:
            places = [*np.indices(index.shape[:-1])[:batch_dims], *np.moveaxis(index, -1, 0)]
            rows = reshape(op, g, [math.prod(index.shape[:-1]), *shape[depth:]])
            placed = place(op, rows, _row_major(places, known), math.prod(known), 0)
            if placed is not None:
                return reshape_like(op, placed, data)
    return TensorPlaces.slices(op, _with_batch(op, indices, batch_dims)).put(zeros_like(op, data), g, "add")


def _with_batch(op: Builder, indices: Value, batch_dims: int) -> Value:
    """Write every place of ``indices`` with its own position along the first ``batch_dims`` axes in front."""
    if batch_dims == 0:
        return indices
    lead = dims(indices)[:-1]
    shape = vector(op, [*lead, 1])
    columns = []
    for k in range(batch_dims):
        column = op.Unsqueeze(positions(op, lead[k]), op.ints(*[a for a in range(len(lead) + 1) if a != k]))
        columns.append(op.Expand(column, shape))
    return op.Concat(*columns, op.Cast(indices, to=ir.DataType.INT64), axis=-1)


@vjp("TopK", wrt=0, multi=True)
def top_k(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    X: Value,
    K: Value,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> Value:
    """The K largest or smallest elements along an axis:  x̄ = g at their places, zeros elsewhere."""
    return op.ScatterElements(zeros_like(op, X), ys[1], gs[0], axis=axis)


@vjp("Compress", wrt=0)
def compress(op: Builder, g: Value, y: Value, input: Value, condition: Value, *, axis: int | None = None) -> Value:
    """y = x where the condition holds, along an axis or flattened:  x̄ = g there, zeros elsewhere.

    Element j comes from place 0 of [0, g] where the condition fails, else from the place of its own rank.
    """
    flat = axis is None
    along = 0 if axis is None else axis % rank(input)
    chosen = op.Cast(condition, to=ir.DataType.INT64)
    source = op.Mul(op.CumSum(chosen, op.array(np.array(0))), chosen)
    size = op.Size(input) if flat else op.Gather(op.shape_of(input), op.array(np.array(along)))
    rest = op.Sub(op.Unsqueeze(size, op.ints(0)), op.shape_of(source))
    source = op.Pad(source, op.Concat(op.ints(0), rest, axis=0))
    x = op.Gather(pad(op, g, {along: (1, 0)}), source, axis=along)
    return reshape_like(op, x, input) if flat else x


@vjp("ReverseSequence", wrt=0)
def reverse_sequence(
    op: Builder, g: Value, y: Value, input: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0
) -> Value:
    """y = x with the beginning of each sequence reversed, which is its own inverse:  x̄ = the same of g."""
    return op.ReverseSequence(g, sequence_lens, batch_axis=batch_axis, time_axis=time_axis)


@vjp("Unique", wrt=0, multi=True)
def unique(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    X: Value,
    *,
    axis: int | None = None,
    sorted: int = 1,
) -> Value:
    """y = the different elements (or slices) of x:  x̄ = g of its equal; those that are equal share evenly."""
    assert gs[0] is not None
    x, y, g = (_as_rows(op, v, axis) for v in (X, ys[0], gs[0]))
    different = op.Not(op.Equal(op.Unsqueeze(x, op.ints(1)), op.Unsqueeze(y, op.ints(0))))
    apart = op.ReduceSum(indicator(op, different, X), op.ints(2), keepdims=0)
    same = indicator(op, op.Equal(apart, op.const(0, like=X)), X)
    rows = op.MatMul(op.Div(same, op.ReduceSum(same, op.ints(0), keepdims=1)), g)
    if axis is None:
        return reshape_like(op, rows, X)
    order = _axis_first(X, axis)
    rows = reshape(op, rows, [dims(X)[k] for k in order])
    return op.Transpose(rows, perm=[int(k) for k in np.argsort(order)])


def _as_rows(op: Builder, x: Value, axis: int | None) -> Value:
    """Write one row for each element of x, or for each slice along ``axis``."""
    if axis is None:
        return op.Reshape(x, op.ints(-1, 1))
    return op.Reshape(op.Transpose(x, perm=_axis_first(x, axis)), op.ints(0, -1))


def _axis_first(x: Value, axis: int) -> list[int]:
    """Return the axes of x with ``axis`` as the first."""
    axis %= rank(x)
    return [axis, *(k for k in range(rank(x)) if k != axis)]


@vjp("OneHot", wrt=2)
def one_hot_values(
    op: Builder, g: Value, y: Value, indices: Value, depth: Value, values: Value, *, axis: int = -1
) -> Value:
    """y = v₁ at an index, v₀ elsewhere:  v̄₁ and v̄₀ are the sums of g over these places."""
    hot = op.Mul(g, op.OneHot(indices, depth, op.const([0, 1], like=g), axis=axis))
    on, all_ = (op.Unsqueeze(op.ReduceSum(v, keepdims=0), op.ints(0)) for v in (hot, g))
    return op.Concat(op.Sub(all_, on), on, axis=0)
