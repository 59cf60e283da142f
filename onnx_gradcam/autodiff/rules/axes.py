"""What rules do along axes: read lengths, reshape, pad, crop, interleave, contract with a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant

END = 2**63 - 1  # an end that Slice clamps to the length of the axis
MULTIPLICITY = 4  # elements that are added at one place by gathering them

Dim = int | tuple[Value, int]  # a length, or (v, k): the length of axis k of v, known at run time only


def dims(value: Value) -> list[Dim]:
    """The lengths of the axes of ``value``."""
    if value.shape is None:
        raise Unwritten(f"{value.name!r}, whose rank is not known,")
    return [d if isinstance(d, int) else (value, k) for k, d in enumerate(value.shape)]


def length(value: Value, axis: int) -> int | None:
    """The length of one axis where it is static, else None."""
    dim = dims(value)[axis]
    return dim if isinstance(dim, int) else None


def vector(op: Builder, numbers: Sequence[Dim]) -> Value:
    """An int64 vector; a constant where all numbers are known."""
    known = [d for d in numbers if isinstance(d, int)]
    if len(known) == len(numbers):
        return op.ints(*known)
    parts = [op.ints(d) if isinstance(d, int) else op.Gather(op.shape_of(d[0]), op.ints(d[1])) for d in numbers]
    return op.Concat(*parts, axis=0)


def reshape(op: Builder, g: Value, shape: Sequence[Dim]) -> Value:
    """``g`` with another shape; a single unknown length is written as -1, so that the shape is a constant."""
    unknown = [d for d in shape if not isinstance(d, int)]
    if len(unknown) == 1 and -1 not in shape:
        shape = [d if isinstance(d, int) else -1 for d in shape]
    return op.Reshape(g, vector(op, shape))


def reshape_like(op: Builder, g: Value, x: Value) -> Value:
    """``g`` with the shape of ``x``."""
    unknown = [d for d in dims(x) if not isinstance(d, int)]
    return op.Reshape(g, op.shape_of(x)) if len(unknown) > 1 else reshape(op, g, dims(x))


def zeros_like(op: Builder, x: Value) -> Value:
    """Zeros in the shape of ``x``."""
    return op.Expand(op.const(0, like=x), op.shape_of(x))


def pad(op: Builder, x: Value, amounts: Mapping[int, tuple[int, int]], fill: float = 0.0) -> Value:
    """``x`` with (before, after) elements added along each axis of ``amounts``; a negative number takes some away.

    Written as Pad, then Slice: not every runtime takes negative amounts in Pad.
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
    """``x`` with elements added along one axis, whose numbers ≥ 0 are int64 vectors of length 1."""
    amounts = op.Concat(before, after, axis=0)
    return op.Pad(x, amounts, op.const(fill, like=x), op.ints(axis))


def positions(op: Builder, size: Dim) -> Value:
    """The int64 vector 0, 1, … of so many numbers."""
    if isinstance(size, int):
        return op.array(np.arange(size))
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    return op.Range(zero, op.Squeeze(vector(op, [size]), op.ints(0)), one)


def one_hot(op: Builder, index: Value, size: Dim, like: Value) -> Value:
    """[…, j] = 1 where j is the element […] of ``index``, which may count from the end, else 0."""
    known = constant(index)
    if known is not None and isinstance(size, int):
        return op.const(np.eye(size)[known], like=like)
    wide = op.Unsqueeze(op.Cast(index, to=ir.DataType.INT64), op.ints(-1))
    hits = op.Equal(op.Mod(wide, vector(op, [size])), positions(op, size))
    return op.Cast(hits, to=like.dtype)


def place(op: Builder, g: Value, index: np.ndarray, size: int, axis: int) -> Value | None:
    """Zeros along an axis of length ``size``, with the elements of ``g`` added at ``index`` (a vector, from 0 up).

    A Gather from ``g``, of as many elements for each place as the place has in ``index``; None where these are many.
    """
    counts = np.bincount(index, minlength=size)
    most = int(counts.max(initial=1))
    if most > MULTIPLICITY:
        return None
    order = np.argsort(index, kind="stable")
    rank_ = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    sources = np.full((size, most), len(index))
    sources[index[order], rank_] = order
    if (counts < most).any():
        g = pad(op, g, {axis: (0, 1)})
    if most == 1:
        return op.Gather(g, op.array(sources[:, 0]), axis=axis)
    return op.ReduceSum(op.Gather(g, op.array(sources), axis=axis), op.ints(axis + 1), keepdims=0)


def crop(op: Builder, g: Value, x: Value, starts: Mapping[int, int]) -> Value:
    """The part of ``g`` that begins at ``starts`` (by axis) and has the lengths of ``x`` along these axes."""
    if not starts:
        return g
    begin, axes = op.ints(*starts.values()), op.ints(*starts)
    sizes = [length(x, k) for k in starts]
    if None in sizes:
        return op.Slice(g, begin, op.Add(op.Gather(op.shape_of(x), axes), begin), axes)
    ends = [start + n for start, n in zip(starts.values(), sizes, strict=True) if n is not None]
    return op.Slice(g, begin, op.ints(*ends), axes)


def interleave(op: Builder, phases: Sequence[Value], axis: int, after: Sequence[Dim]) -> Value:
    """z[…, s·q + i, …] = phases[i][…, q, …] for s phases; ``after``: the lengths of the later axes."""
    if len(phases) == 1:
        return phases[0]
    stacked = op.Concat(*[op.Unsqueeze(z, op.ints(axis + 1)) for z in phases], axis=axis + 1)
    return reshape(op, stacked, [*[0] * axis, -1, *after])


def repeat(op: Builder, g: Value, times: Sequence[int]) -> Value:
    """Every element of ``g`` (N, C, …) so many times in a row along each spatial axis."""
    scales = op.array(np.array([1, 1, *times], np.float32))
    attributes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    return op.Resize(g, None, scales, **attributes)


def contract(op: Builder, g: Value, matrix: Value, axis: int) -> Value:
    """Σ_i g[…, i, …] · matrix[i, j]: in the place of axis ``axis`` come the columns of the matrix."""
    n = rank(g)
    if axis == n - 1:
        return op.MatMul(g, matrix)
    if axis == n - 2:
        return op.MatMul(op.Transpose(matrix, perm=[1, 0]), g)
    swap = list(range(n))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=swap), matrix), perm=swap)
