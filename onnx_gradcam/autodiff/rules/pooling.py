"""Rules of the pools.

The gradient of MaxPool is a mask over taps: no Indices (which make MaxPool 10 to 50 times slower, and which several
providers lack) and no scatter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import (
    END,
    crop,
    dims,
    interleave,
    length,
    pad,
    pad_at_run_time,
    repeat,
    reshape,
    reshape_like,
    vector,
    zeros_like,
)
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.reduction import element_count
from onnx_gradcam.autodiff.rules.windows import Windows, scatter, windows
from onnx_gradcam.graph.builder import Builder, Value, rank


@vjp("MaxPool", wrt=0)
def max_pool(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Value:
    """y(o) = max_t x(s·o + d·t − p):  x̄ gets g where x was the first maximum of its window, row by row.

    Pooling an image is pooling each row, then the columns of the result. The way back takes the same two steps: the
    first row that holds the maximum, then the first place in it. That is k + k taps instead of k · k.
    """
    at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    _check_counts(at, y)
    axes = [j for j in range(len(at.kernel)) if (at.kernel[j], at.strides[j]) != (1, 1)]
    stages = [x]
    for j in reversed(axes[1:]):
        stages.append(_pool_axis(op, stages[-1], at, j))
    stages.append(y)
    for j in axes:
        pooled = stages.pop()
        g = _unpool_axis(op, g, pooled, stages[-1], at, j)
    return g


def _check_counts(at: Windows, y: Value) -> None:
    """With ceil_mode, onnx's shape inference counts a window that would start in the padding; no runtime has it."""
    for j, count in enumerate(at.counts):
        if count is not None and length(y, 2 + j) not in (count, None):
            raise Unwritten("ceil_mode with a last window in the padding, on which shape inference is wrong,")


def _pool_axis(op: Builder, x: Value, at: Windows, j: int) -> Value:
    """MaxPool along spatial axis j alone."""

    def only(values: Sequence[int], other: int) -> list[int]:
        return [v if i == j else other for i, v in enumerate(values)]

    return op.MaxPool(
        x,
        kernel_shape=only(at.kernel, 1),
        strides=only(at.strides, 1),
        dilations=only(at.dilations, 1),
        pads=only(at.before, 0) + only(at.after, 0),
        ceil_mode=int(at.rounds_up),
    )


def _unpool_axis(op: Builder, g: Value, y: Value, x: Value, at: Windows, j: int) -> Value:
    """The rule of MaxPool along spatial axis j alone.

    x is cut into s phases P_i(q) = x(s·q + i), so that what tap t reads for all windows is a piece of one phase:
    x(s·o + d·t − p) = P_i(o + q) with s·q + i = d·t − p. A tap claims g where it equals the maximum and no earlier
    tap did; the last tap gets what is left.
    """
    axis, s, last = 2 + j, at.strides[j], at.kernel[j] - 1
    lowest = -65504.0 if x.dtype == ir.DataType.FLOAT16 else -3e38
    where = [divmod(at.dilations[j] * t - at.before[j], s) for t in range(last + 1)]
    surplus, missing = _phase_length(op, x, y, at, j)
    if isinstance(missing, int):
        whole = pad(op, x, {axis: (0, missing)}, lowest)
    else:
        whole = pad_at_run_time(op, x, axis, op.ints(0), missing, lowest)
    phases = _phases(op, whole, axis, s, {i for _, i in where[:last]})
    shares: list[Value | None] = [None] * s
    rest = g
    for t, (q, i) in enumerate(where):
        claimed = rest
        if t < last:
            tap = pad(op, phases[i], {axis: (-q, q - surplus)}, lowest)
            claimed = op.Mul(indicator(op, op.Equal(tap, y), like=g), rest)
            rest = op.Sub(rest, claimed)
        share, earlier = pad(op, claimed, {axis: (q, surplus - q)}), shares[i]
        shares[i] = share if earlier is None else op.Add(earlier, share)
    some = next(z for z in shares if z is not None)
    filled = [zeros_like(op, some) if z is None else z for z in shares]
    z = interleave(op, filled, axis, dims(x)[axis + 1 :])
    return z if missing == 0 else crop(op, z, x, {axis: 0})


def _phase_length(op: Builder, x: Value, y: Value, at: Windows, j: int) -> tuple[int, int | Value]:
    """How much longer a phase is than y, and what x lacks to fill all phases (found at run time, if need be)."""
    axis, s, size, count = 2 + j, at.strides[j], at.sizes[j], at.counts[j]
    needed = at.reach[j] - at.before[j] - at.after[j]  # to the last tap of the last window, beyond stride · windows
    if s == 1:
        return needed, 0
    if size is not None and count is not None:
        return -(-size // s) - count, -size % s
    surplus = -(-needed // s)
    windows_, elements = (op.Gather(op.shape_of(v), op.ints(axis)) for v in (y, x))
    return surplus, op.Sub(op.Mul(op.Add(windows_, op.ints(surplus)), op.ints(s)), elements)


def _phases(op: Builder, x: Value, axis: int, s: int, wanted: set[int]) -> dict[int, Value]:
    """P_i(q) = x(s·q + i) along ``axis``. Along the last axis a Slice with steps is slow; Split is not."""
    if s == 1:
        return {0: x}
    if axis < rank(x) - 1:
        steps = (op.ints(END), op.ints(axis), op.ints(s))
        return {i: op.Slice(x, op.ints(i), *steps) for i in sorted(wanted)}
    columns = op.Reshape(x, op.ints(*[0] * axis, -1, s))
    apart = op.node("Split", columns, op.ints(*[1] * s), outputs=s, axis=axis + 1)
    return {i: op.Squeeze(apart[i], op.ints(axis + 1)) for i in sorted(wanted)}


@vjp("GlobalMaxPool", wrt=0)
def global_max_pool(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = max over all positions:  x̄ gets g at the first maximum of each channel.

    The positions are numbered n … 1; the first of those that hold the maximum has the highest number.
    """
    flat = op.Reshape(x, op.ints(0, 0, -1))
    at_peak = op.Cast(op.Equal(flat, op.Reshape(y, op.ints(0, 0, 1))), to=ir.DataType.FLOAT)
    numbered = op.Mul(at_peak, _descending(op, flat))
    first = op.Equal(numbered, op.ReduceMax(numbered, op.ints(2), keepdims=1))
    share = op.Mul(indicator(op, first, like=g), op.Reshape(g, op.ints(0, 0, 1)))
    return reshape_like(op, share, x)


def _descending(op: Builder, flat: Value) -> Value:
    """n, n − 1, … 1 as float32, for the n positions of ``flat`` (N, C, n)."""
    n = length(flat, 2)
    if n is not None:
        return op.array(np.arange(n, 0, -1, dtype=np.float32))
    total = op.Squeeze(op.Gather(op.shape_of(flat), op.ints(2)), op.ints(0))
    zero, step = op.array(np.array(0)), op.array(np.array(-1))
    return op.Cast(op.Range(total, zero, step), to=ir.DataType.FLOAT)


@vjp("GlobalAveragePool", wrt=0)
def global_average_pool(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = mean over all positions:  x̄ = g / their number, left compact (N, C, 1, …)."""
    return op.Div(g, element_count(op, x, range(2, rank(x))))


@vjp("AveragePool", wrt=0)
def average_pool(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y(o) = Σ_t x(s·o + d·t − p) / count(o):  x̄(i) = Σ g(o) / count(o) over the windows o that cover i."""
    at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    _check_counts(at, y)
    if max(at.dilations) == 1 and max(at.strides) == 1:  # the sums are the averages of an AveragePool, times its taps
        taps = math.prod(at.kernel)
        share = _divide_by_count(op, g, y, x, at, count_include_pad, taps)
        pads = [reach - p for p, reach in zip(at.before + at.after, at.reach * 2, strict=True)]
        return op.AveragePool(share, kernel_shape=at.kernel, pads=pads, count_include_pad=1)
    share = _divide_by_count(op, g, y, x, at, count_include_pad, 1)
    if max(at.dilations) == 1 and at.kernel == at.strides:
        return _side_by_side(op, share, x, at)
    ones = op.const(np.ones((1, 1, *at.kernel)), like=x)
    image = reshape(op, share, [-1, 1, *dims(y)[2:]])  # channels as images: one kernel serves all
    return reshape_like(op, scatter(op, image, ones, at, x), x)


def _side_by_side(op: Builder, share: Value, x: Value, at: Windows) -> Value:
    """Windows that lie side by side: every element of x takes the share of its own window."""
    z = repeat(op, share, at.strides)
    for j, (s, size, count) in enumerate(zip(at.strides, at.sizes, at.counts, strict=True)):
        if size is not None and count is not None:
            z = pad(op, z, {2 + j: (-at.before[j], size + at.before[j] - s * count)})
        else:
            z = crop(op, pad(op, z, {2 + j: (0, s - 1)}), x, {2 + j: at.before[j]})
    return z


def _divide_by_count(op: Builder, g: Value, y: Value, x: Value, at: Windows, include_pad: int, factor: int) -> Value:
    """factor · g / count(o): padding counts with ``include_pad``; what lies beyond the padding never does."""
    partial = at.rounds_up or (not include_pad and any(at.before + at.after))
    if not partial:
        ratio = factor / math.prod(at.kernel)
        return g if ratio == 1 else op.Mul(g, op.const(ratio, like=x))
    if None in at.sizes:
        return op.Div(g, op.Mul(_count_at_run_time(op, y, x, at, include_pad), op.const(1 / factor, like=x)))
    counts = functools.reduce(np.multiply.outer, [_counts(at, j, include_pad) for j in range(len(at.kernel))])
    return op.Mul(g, op.const(factor / counts, like=x))


def _counts(at: Windows, j: int, include_pad: int) -> np.ndarray:
    """How many taps of each window count, along axis j."""
    size, count = at.sizes[j], at.counts[j]
    assert size is not None
    assert count is not None
    first = np.arange(count) * at.strides[j] - at.before[j]
    read = first[:, None] + np.arange(at.kernel[j]) * at.dilations[j]
    low, high = (-at.before[j], size + at.after[j]) if include_pad else (0, size)
    counts: np.ndarray = ((read >= low) & (read < high)).sum(axis=1)
    return counts


def _count_at_run_time(op: Builder, y: Value, x: Value, at: Windows, include_pad: int) -> Value:
    """The same for an image of unknown size: a convolution of ones with ones."""
    sizes = vector(op, dims(x)[2:])
    before, after = at.before, at.after
    if include_pad:
        sizes = op.Add(sizes, op.ints(*[b + e for b, e in zip(before, after, strict=True)]))
        before = after = (0,) * len(at.kernel)
    overhang = [e + (s - 1 if at.rounds_up else 0) for e, s in zip(after, at.strides, strict=True)]
    ones = op.Expand(op.const(1, like=x), op.Concat(op.ints(1, 1), sizes, axis=0))
    taps = op.const(np.ones((1, 1, *at.kernel)), like=x)
    counts = op.Conv(ones, taps, strides=at.strides, dilations=at.dilations, pads=[*before, *overhang])
    return crop(op, counts, y, {2 + j: 0 for j in range(len(at.kernel))})
