"""Rules of operators that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.registry import EACH, vjp
from onnx_gradcam.autodiff.rules.axes import (
    END,
    Dim,
    contract,
    crop,
    dims,
    interleave,
    length,
    one_hot,
    pad,
    pad_at_run_time,
    positions,
    reshape,
    reshape_like,
    vector,
    zeros_like,
)
from onnx_gradcam.autodiff.rules.scatter import put_back
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank


@vjp("Reshape", wrt=0)
def reshape_data(op: Builder, g: Value, y: Value, data: Value, shape: Value, *, allowzero: int = 0) -> Value:
    """y = x in another shape:  x̄ = g in the shape of x."""
    return reshape_like(op, g, data)


@vjp("Flatten", wrt=0)
def flatten(op: Builder, g: Value, y: Value, input: Value, *, axis: int = 1) -> Value:
    """y = x in another shape:  x̄ = g in the shape of x."""
    return reshape_like(op, g, input)


@vjp("Squeeze", wrt=0)
@vjp("Unsqueeze", wrt=0)
def squeeze(op: Builder, g: Value, y: Value, data: Value, axes: Value | None = None) -> Value:
    """y = x in another shape:  x̄ = g in the shape of x."""
    return reshape_like(op, g, data)


@vjp("Transpose", wrt=0)
def transpose(op: Builder, g: Value, y: Value, data: Value, *, perm: Sequence[int] | None = None) -> Value:
    """Axis k of y is axis perm[k] of x:  x̄ is g under the inverse permutation."""
    perm = perm or range(rank(data))[::-1]
    return op.Transpose(g, perm=[int(k) for k in np.argsort(perm)])


@vjp("Concat", wrt=EACH)
def concat(op: Builder, g: Value, y: Value, *inputs: Value, axis: int, i: int) -> Value:
    """y = [x₀, x₁, …]:  x̄ᵢ is the part of g that xᵢ filled."""
    axis %= rank(y)
    if len(inputs) == 1:
        return g
    before = [length(x, axis) for x in inputs[:i]]
    if None not in before:
        return crop(op, g, inputs[i], {axis: sum(n for n in before if n is not None)})
    start = op.ints(0)
    for x in inputs[:i]:
        start = op.Add(start, vector(op, [dims(x)[axis]]))
    end = op.Add(start, vector(op, [dims(inputs[i])[axis]]))
    return op.Slice(g, start, end, op.ints(axis))


@vjp("Split", wrt=0, multi=True)
def split(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    input: Value,
    split: Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> Value:
    """[y₀, y₁, …] = x:  x̄ = [g₀, g₁, …], zeros where an output is not on the path."""
    parts = [zeros_like(op, y) if g is None else g for g, y in zip(gs, ys, strict=True)]
    return op.Concat(*parts, axis=axis) if len(parts) > 1 else parts[0]


@vjp("Expand", wrt=0, broadcasts=True)
def expand(op: Builder, g: Value, y: Value, input: Value, shape: Value) -> Value:
    """y = x broadcast to ``shape``:  x̄ = g summed over the axes that were broadcast."""
    return sum_to(op, g, like=input, full=y)


@vjp("Tile", wrt=0)
def tile(op: Builder, g: Value, y: Value, input: Value, repeats: Value) -> Value:
    """y = x, repeats[k] times in a row along each axis k:  x̄ = the sum over the copies."""
    times = ints_of(repeats)
    if times is None:
        pairs = op.Concat(op.Unsqueeze(repeats, op.ints(1)), op.Unsqueeze(op.shape_of(input), op.ints(1)), axis=1)
        copied = op.Reshape(g, op.Reshape(pairs, op.ints(-1)))
        return op.ReduceSum(copied, op.ints(*range(0, 2 * rank(input), 2)), keepdims=0)
    shape: list[Dim] = []
    copies = []
    for n, size in zip(times, dims(input), strict=True):
        if n != 1:
            copies.append(len(shape))
            shape.append(n)
        shape.append(size)
    return op.ReduceSum(reshape(op, g, shape), op.ints(*copies), keepdims=0) if copies else g


@vjp("DepthToSpace", wrt=0)
def depth_to_space(op: Builder, g: Value, y: Value, input: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Blocks of b² channels become blocks of b × b elements; x̄ takes them apart again.

    As axes, y is (n, c, h, b₁, w, b₂), x is (n, b₁, b₂, c, h, w) for DCR and (n, c, b₁, b₂, h, w) for CRD.
    """
    batch, channels, height, width = dims(y)[0], dims(y)[1], *dims(input)[2:]
    blocks = reshape(op, g, [batch, channels, height, blocksize, width, blocksize])
    order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    return reshape_like(op, op.Transpose(blocks, perm=order), input)


@vjp("SpaceToDepth", wrt=0)
def space_to_depth(op: Builder, g: Value, y: Value, input: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Blocks of b × b elements become blocks of b² channels; x̄ puts them back.

    As axes, x is (n, c, h, b₁, w, b₂), y is (n, b₁, b₂, c, h, w) for DCR and (n, c, b₁, b₂, h, w) for CRD.
    """
    batch, channels, height, width = *dims(input)[:2], *dims(y)[2:]
    order = [0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3]
    depth = [blocksize, blocksize, channels] if mode == "DCR" else [channels, blocksize, blocksize]
    blocks = reshape(op, g, [batch, *depth, height, width])
    return reshape_like(op, op.Transpose(blocks, perm=order), input)


@vjp("Slice", wrt=0)
def slice_data(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    starts: Value,
    ends: Value,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    """y = x[start : end : step, …]:  x̄ has g at these places and zeros elsewhere."""
    count = length(starts, 0)
    along = ints_of(axes) if axes is not None else None if count is None else range(count)
    by = [1] * rank(data) if steps is None else ints_of(steps)
    first, last = ints_of(starts), ints_of(ends)
    if along is None or by is None:
        return put_back(op, zeros_like(op, data), g, lambda x: op.Slice(x, starts, ends, axes, steps), "none")
    for k in sorted(range(len(along)), key=lambda k: along[k] % rank(data)):
        axis, size = along[k] % rank(data), length(data, along[k])
        if size is not None and first is not None and last is not None:
            g = _place(op, g, y, axis, size, range(size)[first[k] : last[k] : by[k]])
        else:
            start = op.Cast(op.Gather(starts, op.ints(k)), to=ir.DataType.INT64)
            g = _place_at_run_time(op, g, y, data, axis, start, by[k])
    return g


def _place(op: Builder, g: Value, y: Value, axis: int, size: int, places: range) -> Value:
    """Write zeros along an axis of length ``size``, with the elements of ``g`` at ``places``."""
    if places.step < 0:
        g, places = _reverse(op, g, axis), places[::-1]
    first = places[0] if places else 0
    g = _space(op, g, y, axis, places.step)
    return pad(op, g, {axis: (first, size - first - len(places) * places.step)})


def _place_at_run_time(op: Builder, g: Value, y: Value, x: Value, axis: int, start: Value, step: int) -> Value:
    """Write ``_place`` where the start or the length of x is known at run time only.

    Args:
        op: writes the nodes.
        g: the cotangent of ``y``.
        y: the output of the Slice.
        x: its data.
        axis: the axis.
        start: int64, one element; a negative one counts from the end.
        step: from one place to the next.
    """
    size, count = vector(op, [dims(x)[axis]]), vector(op, [dims(y)[axis]])
    zero, one = op.ints(0), op.ints(1)
    from_end = op.Cast(op.Less(start, zero), to=ir.DataType.INT64)
    first = op.Max(op.Add(start, op.Mul(size, from_end)), zero)
    if step < 0:
        last, steps = op.Sub(size, one), op.Mul(op.Sub(count, one), op.ints(step))
        g, step, first = _reverse(op, g, axis), -step, op.Add(op.Min(first, last), steps)
    first = op.Min(first, size)
    covered = op.Max(op.Add(op.Mul(op.Sub(count, one), op.ints(step)), one), zero)
    g = pad(op, _space(op, g, y, axis, step), {axis: (0, 1 - step)})
    return pad_at_run_time(op, g, axis, first, op.Sub(op.Sub(size, first), covered))


def _reverse(op: Builder, g: Value, axis: int) -> Value:
    """Write ``g`` in reverse order along ``axis``."""
    return op.Slice(g, op.ints(-1), op.ints(-END), op.ints(axis), op.ints(-1))


def _space(op: Builder, g: Value, y: Value, axis: int, step: int) -> Value:
    """Write step − 1 zeros behind every element of ``g`` along ``axis``."""
    return g if step == 1 else interleave(op, [g, *[zeros_like(op, g)] * (step - 1)], axis, dims(y)[axis + 1 :])


@vjp("Pad", wrt=0)
def pad_data(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    pads: Value,
    constant_value: Value | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Value:
    """y = x with a border:  x̄ = g without it; what a reflected or repeated border copied is added to its source."""
    along = range(rank(data)) if axes is None else ints_of(axes)
    amounts = ints_of(pads)
    if along is None and mode == "constant":
        return op.Pad(g, op.Neg(pads), op.const(0, like=g), axes)
    if along is None:
        return put_back(op, zeros_like(op, data), g, lambda x: op.Pad(x, pads, None, axes, mode=mode), "add")
    along = [k % rank(data) for k in along]
    if mode != "constant":
        return _add_borders(op, g, data, along, pads, mode)
    if amounts is None:
        return _unpad_at_run_time(op, g, pads, along)
    before, after = amounts[: len(along)], amounts[len(along) :]
    return pad(op, g, {k: (-b, -e) for k, b, e in zip(along, before, after, strict=True)})


@vjp("Pad", wrt=2)
def pad_value(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    pads: Value,
    constant_value: Value,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Value:
    """The value of a constant border:  its cotangent is the sum of g over the border."""
    if mode != "constant":
        return zeros_like(op, constant_value)
    ones = op.Expand(op.const(1, like=data), op.shape_of(data))
    inside = op.Pad(ones, pads, op.const(0, like=data), axes)
    total = op.ReduceSum(op.Mul(g, op.Sub(op.const(1, like=data), inside)), keepdims=0)
    return reshape_like(op, total, constant_value)


def _unpad_at_run_time(op: Builder, g: Value, pads: Value, along: Sequence[int]) -> Value:
    """Write ``g`` without borders of run-time widths; where a negative width cut x, zeros fill the gap."""
    axes, zero, half = op.ints(*along), op.ints(0), op.ints(len(along))
    widths = op.Max(pads, zero)
    ends = op.Sub(op.Gather(op.shape_of(g), axes), op.Slice(widths, half, op.ints(END)))
    g = op.Slice(g, op.Slice(widths, zero, half), ends, axes)
    return op.Pad(g, op.Max(op.Neg(pads), zero), op.const(0, like=g), axes)


def _add_borders(op: Builder, g: Value, x: Value, along: Sequence[int], pads: Value, mode: str) -> Value:
    """Write ``g`` without its borders, which are added to the elements that they copied, axis by axis.

    Where a length or a width is known at run time only, this is a product with the matrix [element of y, element of x],
    which is 1 where one is a copy of the other. For a large image this product costs more than its convolutions.
    """
    amounts = ints_of(pads)
    for k, axis in enumerate(along):
        size = length(x, axis)
        border = None if amounts is None else (amounts[k], amounts[k + len(along)])
        if size is not None and border is not None:
            g = _fold(op, g, axis, size, border, mode)
        elif border != (0, 0):
            widths = op.Gather(pads, op.ints(k, k + len(along)))
            copied = op.Pad(positions(op, dims(x)[axis]), widths, None, mode=mode)
            g = contract(op, g, one_hot(op, copied, dims(x)[axis], like=g), axis)
    return g


def _fold(op: Builder, g: Value, axis: int, size: int, border: tuple[int, int], mode: str) -> Value:
    """Write the middle of ``g`` plus its two borders, each brought to the elements that it repeats."""
    sources = _sources(size, border, mode)
    inner, outer = max(border[0], 0), len(sources) - max(border[1], 0)
    total = pad(op, g, {axis: (-border[0], -border[1])})
    for first, last in ((0, inner), (outer, len(sources))):
        if first < last:
            copied = sources[first:last]
            low, high = int(copied.min()), int(copied.max()) + 1
            part = op.Slice(g, op.ints(first), op.ints(last), op.ints(axis))
            part = contract(op, part, op.const(np.eye(high - low)[copied - low], like=g), axis)
            total = op.Add(total, pad(op, part, {axis: (low, size - high)}))
    return total


def _sources(size: int, border: tuple[int, int], mode: str) -> np.ndarray:
    """Return for each element of y the number of the element that it copies.

    Negative widths take elements away first, as in onnxruntime.
    """
    before, after = border
    kept = np.arange(size)[max(-before, 0) : size + min(after, 0)]
    widths = max(before, 0), max(after, 0)
    return np.pad(kept, widths, mode=mode)  # type: ignore[call-overload,no-any-return]  # NumPy's stubs want literal modes
