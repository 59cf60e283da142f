"""Rules of the pools.

The gradient of MaxPool is a mask over taps: no Indices (which make MaxPool 10 to 50 times slower, and which several
providers lack) and no scatter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

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
from onnx_gradcam.autodiff.rules.windows import (
    Windows,
    fit,
    is_padded_at_run_time,
    place_windows,
    pool_windows,
    same_pads_at_run_time,
    scatter,
)
from onnx_gradcam.graph.attributes import Pool
from onnx_gradcam.graph.builder import HALF_PRECISION, LOWEST, Builder, Value, rank


@vjp("MaxPool", wrt=0)
def max_pool(op: Builder, g: Value, y: Value, x: Value, *, at: Pool, storage_order: int = 0) -> Value:
    """y(o) = max_t x(s·o + d·t − p):  x̄ gets g where x was the first maximum of its window, row by row.

    Pooling an image is pooling each row, then the columns of the result. The way back takes the same two steps: the
    first row that holds the maximum, then the first place in it. That is k + k taps instead of k · k.

    In 16 bits all that is compared is made from x by one cast: a runtime that computes in 32 bits may hand x rounded to
    one reader and unrounded to another, and y with it, and then no tap equals the maximum.
    """
    if is_padded_at_run_time(x, at):
        padded, begin, end = pad_as_same(op, x, at, _lowest(x))
        bare = Pool(kernel_shape=at.kernel_shape, strides=at.strides, dilations=at.dilations)
        return op.Slice(max_pool(op, g, y, padded, at=bare), begin, end, op.ints(*range(2, rank(x))))
    windows = pool_windows(x, at)
    _check_counts(windows, y)
    axes = [j for j in range(len(windows.kernel)) if (windows.kernel[j], windows.strides[j]) != (1, 1)]
    is_narrow = x.dtype in HALF_PRECISION
    stages = [op.Cast(x, to=ir.DataType.FLOAT) if is_narrow else x]
    for j in reversed(axes if is_narrow else axes[1:]):
        stages.append(_pool_axis(op, stages[-1], windows, j))
    if not is_narrow:
        stages.append(y)
    for j in axes:
        pooled = stages.pop()
        g = _unpool_axis(op, g, pooled, stages[-1], windows, j)
    return g


def _check_counts(windows: Windows, y: Value) -> None:
    """Raise ``Unwritten`` for windows that ``graph.prepare.pools`` could not put right, on which the runtime fails."""
    for j, count in enumerate(windows.counts):
        if count is not None and length(y, 2 + j) not in (count, None):
            raise Unwritten("ceil_mode with windows both beyond and in the padding, which counts,")


def pad_as_same(op: Builder, x: Value, at: Pool, fill: float) -> tuple[Value, Value, Value]:
    """Write ``x`` with its SAME padding, filled with ``fill``, as a part of it.

    Returns:
        The padded image, and where ``x`` begins and ends in it: int64 vectors over the spatial axes.
    """
    windows = place_windows(x, at.kernel_shape, replace(at, auto_pad="VALID", dilations=None))
    before, after, size = same_pads_at_run_time(op, x, windows, at.auto_pad)
    axes = op.ints(*range(2, rank(x)))
    padded = op.Pad(x, op.Concat(before, after, axis=0), op.const(fill, like=x), axes)
    return padded, before, op.Add(before, size)


def _lowest(x: Value) -> float:
    """Return a number for padding that is never the maximum."""
    return -65504.0 if x.dtype == ir.DataType.FLOAT16 else LOWEST


def _pool_axis(op: Builder, x: Value, windows: Windows, j: int) -> Value:
    """Write MaxPool along spatial axis j alone."""

    def only(values: Sequence[int], other: int) -> list[int]:
        return [v if i == j else other for i, v in enumerate(values)]

    after, rounds_up = fit(windows)
    return op.MaxPool(
        x,
        kernel_shape=only(windows.kernel, 1),
        strides=only(windows.strides, 1),
        dilations=only(windows.dilations, 1),
        pads=only(windows.before, 0) + only(after, 0),
        ceil_mode=int(rounds_up),
    )


def _unpool_axis(op: Builder, g: Value, y: Value, x: Value, windows: Windows, j: int) -> Value:
    """Write the cotangent of x for y = MaxPool of x along spatial axis j alone.

    x is cut into s phases P_i(q) = x(s·q + i), so that what tap t reads for all windows is a piece of one phase:
    x(s·o + d·t − p) = P_i(o + q) with s·q + i = d·t − p. A tap claims g where it equals the maximum and no earlier
    tap did; the last tap gets what is left.
    """
    axis, s, last = 2 + j, windows.strides[j], windows.kernel[j] - 1
    lowest = _lowest(x)
    offsets = [divmod(windows.dilations[j] * t - windows.before[j], s) for t in range(last + 1)]
    surplus, missing = _phase_length(op, x, y, windows, j)
    if isinstance(missing, int):
        whole = pad(op, x, {axis: (0, missing)}, lowest)
    else:
        whole = pad_at_run_time(op, x, axis, op.ints(0), missing, lowest)
    phases = _phases(op, whole, axis, s, {i for _, i in offsets[:last]})
    shares: list[Value | None] = [None] * s
    rest = g
    for t, (q, i) in enumerate(offsets):
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


def _phase_length(op: Builder, x: Value, y: Value, windows: Windows, j: int) -> tuple[int, int | Value]:
    """Return how much longer a phase is than y, and how many elements x lacks to fill all phases.

    The second is an int64 vector of length 1 where it is known at run time only.
    """
    axis, s, size, count = 2 + j, windows.strides[j], windows.sizes[j], windows.counts[j]
    # To the last tap of the last window, beyond stride · windows.
    needed = windows.reach[j] - windows.before[j] - windows.after[j]
    if s == 1:
        return needed, 0
    if size is not None and count is not None:
        return -(-size // s) - count, -size % s
    surplus = -(-needed // s)
    outputs, elements = (op.Gather(op.shape_of(v), op.ints(axis)) for v in (y, x))
    return surplus, op.Sub(op.Mul(op.Add(outputs, op.ints(surplus)), op.ints(s)), elements)


def _phases(op: Builder, x: Value, axis: int, s: int, numbers: set[int]) -> dict[int, Value]:
    """Write P_i(q) = x(s·q + i) along ``axis`` for each i of ``numbers``.

    Along the last axis a Slice with steps is slow; Split is not.
    """
    if s == 1:
        return {0: x}
    if axis < rank(x) - 1:
        steps = (op.ints(END), op.ints(axis), op.ints(s))
        return {i: op.Slice(x, op.ints(i), *steps) for i in sorted(numbers)}
    columns = op.Reshape(x, op.ints(*[0] * axis, -1, s))
    parts = op.node("Split", columns, op.ints(*[1] * s), outputs=s, axis=axis + 1)
    return {i: op.Squeeze(parts[i], op.ints(axis + 1)) for i in sorted(numbers)}


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
    """Write n, n − 1, … 1 as float32, for the n positions of ``flat`` (N, C, n)."""
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
def average_pool(op: Builder, g: Value, y: Value, x: Value, *, at: Pool, count_include_pad: int = 0) -> Value:
    """y(o) = Σ_t x(s·o + d·t − p) / count(o):  x̄(i) = Σ g(o) / count(o) over the windows o that cover i."""
    if is_padded_at_run_time(x, at):
        return _average_pool_same(op, g, y, x, at, count_include_pad)
    windows = pool_windows(x, at)
    _check_counts(windows, y)
    share = _divide_by_count(op, g, y, x, windows, count_include_pad, taps_of_spread(windows))
    return spread(op, share, y, x, windows)


def _average_pool_same(op: Builder, g: Value, y: Value, x: Value, at: Pool, include_pad: int) -> Value:
    """Write the cotangent of x for an AveragePool whose padding is known at run time only."""
    padded, begin, end = pad_as_same(op, x, at, 0.0)
    windows = place_windows(padded, at.kernel_shape, replace(at, auto_pad="VALID"))
    share = op.Mul(g, op.const(1 / math.prod(at.kernel_shape), like=x))
    if not include_pad:
        ones = op.Expand(op.const(1, like=x), op.Concat(op.ints(1, 1), vector(op, dims(x)[2:]), axis=0))
        counted, _, _ = pad_as_same(op, ones, at, 0.0)
        taps = op.const(np.ones((1, 1, *at.kernel_shape)), like=x)
        share = op.Div(g, op.Conv(counted, taps, strides=windows.strides, dilations=windows.dilations))
    return op.Slice(spread(op, share, y, padded, windows), begin, end, op.ints(*range(2, rank(x))))


def taps_of_spread(windows: Windows) -> int:
    """Return the number by which shares are multiplied for ``spread``: where it averages, the taps of a window."""
    return math.prod(windows.kernel) if _spreads_by_averaging(windows) else 1


def _spreads_by_averaging(windows: Windows) -> bool:
    """Tell whether ``spread`` writes an AveragePool."""
    return max(windows.dilations) == 1 and max(windows.strides) == 1


def spread(op: Builder, share: Value, y: Value, x: Value, windows: Windows) -> Value:
    """x̄(i) = Σ share(o) over the windows o that cover i: the transpose of a pool of sums.

    Args:
        op: writes the nodes.
        share: what each window hands to its elements (N, C, *counts), times ``taps_of_spread(windows)``.
        y: the output of the pool (N, C, *counts).
        x: its image (N, C, *sizes).
        windows: where the windows lie.

    Returns:
        The cotangent of ``x``.
    """
    if _spreads_by_averaging(windows):
        pads = [reach - p for p, reach in zip(windows.before + windows.after, windows.reach * 2, strict=True)]
        return op.AveragePool(share, kernel_shape=windows.kernel, pads=pads, count_include_pad=1)
    if max(windows.dilations) == 1 and windows.kernel == windows.strides:
        return _spread_side_by_side(op, share, x, windows)
    ones = op.const(np.ones((1, 1, *windows.kernel)), like=x)
    image = reshape(op, share, [-1, 1, *dims(y)[2:]])  # channels as images: one kernel serves all
    return reshape_like(op, scatter(op, image, ones, windows, x), x)


def _spread_side_by_side(op: Builder, share: Value, x: Value, windows: Windows) -> Value:
    """Write ``spread`` for windows that lie side by side: every element of x takes the share of its own window."""
    z = repeat(op, share, windows.strides)
    for j, (s, size, count) in enumerate(zip(windows.strides, windows.sizes, windows.counts, strict=True)):
        before = windows.before[j]
        if size is not None and count is not None:
            z = pad(op, z, {2 + j: (-before, size + before - s * count)})
        else:
            z = crop(op, pad(op, z, {2 + j: (0, s - 1)}), x, {2 + j: before})
    return z


def _divide_by_count(
    op: Builder, g: Value, y: Value, x: Value, windows: Windows, include_pad: int, factor: int
) -> Value:
    """Write factor · g / count(o): padding counts with ``include_pad``; what lies beyond the padding never does."""
    is_partial = windows.rounds_up or (not include_pad and any(windows.before + windows.after))
    if not is_partial:
        ratio = factor / math.prod(windows.kernel)
        return g if ratio == 1 else op.Mul(g, op.const(ratio, like=x))
    if None in windows.sizes:
        return op.Div(g, op.Mul(_count_at_run_time(op, y, x, windows, include_pad), op.const(1 / factor, like=x)))
    along = [_counts(windows, j, include_pad) for j in range(len(windows.kernel))]
    return op.Mul(g, op.const(factor / functools.reduce(np.multiply.outer, along), like=x))


def _counts(windows: Windows, j: int, include_pad: int) -> np.ndarray:
    """Return how many taps of each window count, along spatial axis j."""
    size, count = windows.sizes[j], windows.counts[j]
    assert size is not None
    assert count is not None
    first = np.arange(count) * windows.strides[j] - windows.before[j]
    read = first[:, None] + np.arange(windows.kernel[j]) * windows.dilations[j]
    low, high = (-windows.before[j], size + windows.after[j]) if include_pad else (0, size)
    counts: np.ndarray = ((read >= low) & (read < high)).sum(axis=1)
    return counts


def _count_at_run_time(op: Builder, y: Value, x: Value, windows: Windows, include_pad: int) -> Value:
    """Write how many taps of each window count, for an image of unknown size: a convolution of ones with ones."""
    sizes = vector(op, dims(x)[2:])
    before, after = windows.before, windows.after
    if include_pad:
        sizes = op.Add(sizes, op.ints(*[b + e for b, e in zip(before, after, strict=True)]))
        before = after = (0,) * len(windows.kernel)
    overhang = [e + (s - 1 if windows.rounds_up else 0) for e, s in zip(after, windows.strides, strict=True)]
    ones = op.Expand(op.const(1, like=x), op.Concat(op.ints(1, 1), sizes, axis=0))
    taps = op.const(np.ones((1, 1, *windows.kernel)), like=x)
    pads = [*before, *overhang]
    counts = op.Conv(ones, taps, strides=windows.strides, dilations=windows.dilations, pads=pads)
    return crop(op, counts, y, {2 + j: 0 for j in range(len(windows.kernel))})
