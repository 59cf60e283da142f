"""What rules do along axes: read lengths, reshape, pad, crop, interleave, contract with a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant

END = 2**63 - 1  # an end that Slice clamps to the length of the axis
MULTIPLICITY = 4  # up to so many elements are added at one place by gathering them

Dim = int | tuple[Value, int]  # a length, or (v, k): the length of axis k of v, known at run time only


def dims(value: Value) -> list[Dim]:
    """Return the lengths of the axes of ``value``."""
    if value.shape is None:
        raise Unwritten(f"{value.name!r}, whose rank is not known,")
    return [d if isinstance(d, int) else (value, k) for k, d in enumerate(value.shape)]


def length(value: Value, axis: int) -> int | None:
    """Return the length of one axis, None where it is known at run time only."""
    dim = dims(value)[axis]
    return dim if isinstance(dim, int) else None


def vector(op: Builder, numbers: Sequence[Dim]) -> Value:
    """Write an int64 vector of lengths: a constant where all of them are known."""
    known = [d for d in numbers if isinstance(d, int)]
    if len(known) == len(numbers):
        return op.ints(*known)
    parts = [op.ints(d) if isinstance(d, int) else op.Gather(op.shape_of(d[0]), op.ints(d[1])) for d in numbers]
    return op.Concat(*parts, axis=0)


def reshape(op: Builder, g: Value, shape: Sequence[Dim]) -> Value:
    """Write ``g`` with another shape.

    A single unknown length is written as −1, so that the shape is a constant.
    """
    unknown = [d for d in shape if not isinstance(d, int)]
    if len(unknown) == 1 and -1 not in shape:
        shape = [d if isinstance(d, int) else -1 for d in shape]
    return op.Reshape(g, vector(op, shape))


def reshape_like(op: Builder, g: Value, x: Value) -> Value:
    """Write ``g`` with the shape of ``x``."""
    unknown = [d for d in dims(x) if not isinstance(d, int)]
    return op.Reshape(g, op.shape_of(x)) if len(unknown) > 1 else reshape(op, g, dims(x))


def zeros_like(op: Builder, x: Value) -> Value:
    """Write zeros in the shape of ``x``."""
    return op.Expand(op.const(0, like=x), op.shape_of(x))


def pad(op: Builder, x: Value, amounts: Mapping[int, tuple[int, int]], fill: float = 0.0) -> Value:
    """Write ``x`` with elements added along some axes.

    That is a Pad, then a Slice: not every runtime takes negative amounts in Pad.

    Args:
        op: writes the nodes.
        x: any tensor.
        amounts: axis → (elements before, elements after); a negative number takes elements away.
        fill: the value of what is added.
    """
    added = [max(amounts.get(k, (0, 0))[side], 0) for side in (0, 1) for k in range(rank(x))]
    if any(added):
        x = op.Pad(x, op.ints(*added), op.const(fill, like=x))
    cut = [k for k, pair in amounts.items() if min(pair) < 0]
    if cut:
        starts = [max(-amounts[k][0], 0) for k in cut]
        ends = [min(amounts[k][1], 0) or END for k in cut]
        x = op.Slice(x, op.ints(*starts), op.ints(*ends), op.ints(*cut))
    return x


def pad_at_run_time(op: Builder, x: Value, axis: int, before: Value, after: Value, fill: float = 0.0) -> Value:
    """Write ``x`` with elements added along one axis, as many as is known at run time only.

    Args:
        op: writes the nodes.
        x: any tensor.
        axis: the axis.
        before: how many come before, an int64 vector of length 1, 0 or more.
        after: how many come after, likewise.
        fill: the value of what is added.
    """
    amounts = op.Concat(before, after, axis=0)
    return op.Pad(x, amounts, op.const(fill, like=x), op.ints(axis))


def positions(op: Builder, size: Dim) -> Value:
    """Write the int64 vector 0, 1, … size − 1."""
    if isinstance(size, int):
        return op.array(np.arange(size))
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    return op.Range(zero, op.Squeeze(vector(op, [size]), op.ints(0)), one)


def one_hot(op: Builder, index: Value, size: Dim, like: Value) -> Value:
    """Write […, j] = 1 where j is the element […] of ``index``, which may count from the end, else 0."""
    known = constant(index)
    if known is not None and isinstance(size, int):
        return op.const(np.eye(size)[known % size], like=like)
    wide = op.Unsqueeze(op.Cast(index, to=ir.DataType.INT64), op.ints(-1))
    hits = op.Equal(op.Mod(wide, vector(op, [size])), positions(op, size))
    return op.Cast(hits, to=like.dtype)


def place(op: Builder, g: Value, index: np.ndarray, size: int, axis: int) -> Value | None:
    """Write zeros along an axis, with the elements of ``g`` added at given places.

    This is a Gather from ``g``, of as many elements for each place as ``index`` has of it.

    Args:
        op: writes the nodes.
        g: any tensor.
        index: the place of each element of ``g`` along the axis, counted from 0.
        size: the length of the axis in the result.
        axis: the axis.

    Returns:
        The result, or None where a place has more than MULTIPLICITY elements.
    """
    counts = np.bincount(index, minlength=size)
    most = int(counts.max(initial=1))
    if most > MULTIPLICITY:
        return None
    order = np.argsort(index, kind="stable")
    turn = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)  # number among those of its place
    sources = np.full((size, most), len(index))
    sources[index[order], turn] = order
    if (counts < most).any():
        g = pad(op, g, {axis: (0, 1)})
    if most == 1:
        return op.Gather(g, op.array(sources[:, 0]), axis=axis)
    return op.ReduceSum(op.Gather(g, op.array(sources), axis=axis), op.ints(axis + 1), keepdims=0)


def crop(op: Builder, g: Value, x: Value, starts: Mapping[int, int]) -> Value:
    """Write the part of ``g`` that begins at ``starts`` (axis → place) and is as long as ``x`` along these axes."""
    if not starts:
        return g
    begin, axes = op.ints(*starts.values()), op.ints(*starts)
    sizes = [length(x, k) for k in starts]
    if None in sizes:
        return op.Slice(g, begin, op.Add(op.Gather(op.shape_of(x), axes), begin), axes)
    ends = [start + n for start, n in zip(starts.values(), sizes, strict=True) if n is not None]
    return op.Slice(g, begin, op.ints(*ends), axes)


def interleave(op: Builder, phases: Sequence[Value], axis: int, after: Sequence[Dim]) -> Value:
    """Write z[…, s·q + i, …] = phases[i][…, q, …] for s phases; ``after`` are the lengths of the later axes."""
    if len(phases) == 1:
        return phases[0]
    stacked = op.Concat(*[op.Unsqueeze(z, op.ints(axis + 1)) for z in phases], axis=axis + 1)
    return reshape(op, stacked, [*[0] * axis, -1, *after])


def repeat(op: Builder, g: Value, times: Sequence[int]) -> Value:
    """Write every element of ``g`` (N, C, *space) ``times`` in a row along each spatial axis."""
    scales = op.array(np.array([1, 1, *times], np.float32))
    attributes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    return op.Resize(g, None, scales, **attributes)


def contract(op: Builder, g: Value, matrix: Value, axis: int) -> Value:
    """Write Σ_i g[…, i, …] · matrix[i, j]: the columns of the matrix take the place of the axis."""
    n = rank(g)
    if axis == n - 1:
        return op.MatMul(g, matrix)
    if axis == n - 2:
        return op.MatMul(op.Transpose(matrix, perm=[1, 0]), g)
    swap = list(range(n))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=swap), matrix), perm=swap)
