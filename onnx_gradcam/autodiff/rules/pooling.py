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
from onnx_gradcam.autodiff.rules.windows import SAME, Windows, fit, same_pads_at_run_time, scatter, windows
from onnx_gradcam.graph.builder import Builder, Value, rank

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


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

    In 16 bits all that is compared is made from x by one cast: a runtime that computes in 32 bits may hand x rounded to
    one reader and unrounded to another, and y with it, and then no tap equals the maximum.
    """
    if same_at_run_time(x, auto_pad, strides):
        whole, begin, end = padded_as_same(op, x, kernel_shape, strides, auto_pad, _lowest(x))
        g = max_pool(op, g, y, whole, kernel_shape=kernel_shape, strides=strides, dilations=dilations)
        return op.Slice(g, begin, end, op.ints(*range(2, rank(x))))
    at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    _check_counts(at, y)
    axes = [j for j in range(len(at.kernel)) if (at.kernel[j], at.strides[j]) != (1, 1)]
    is_narrow = x.dtype in NARROW
    stages = [op.Cast(x, to=ir.DataType.FLOAT) if is_narrow else x]
    for j in reversed(axes if is_narrow else axes[1:]):
        stages.append(_pool_axis(op, stages[-1], at, j))
    if not is_narrow:
        stages.append(y)
    for j in axes:
        pooled = stages.pop()
        g = _unpool_axis(op, g, pooled, stages[-1], at, j)
    return g


def _check_counts(at: Windows, y: Value) -> None:
    """What could not be corrected where shapes were inferred (graph.pools) would fail in the runtime."""
    for j, count in enumerate(at.counts):
        if count is not None and length(y, 2 + j) not in (count, None):
            raise Unwritten("ceil_mode with windows both beyond and in the padding, which counts,")


def same_at_run_time(x: Value, auto_pad: str, strides: Sequence[int] | None) -> bool:
    """Whether the padding is known at run time only."""
    strided = any(s > 1 for s in strides or ())
    return auto_pad in SAME and strided and None in [length(x, k) for k in range(2, rank(x))]


def padded_as_same(
    op: Builder,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    auto_pad: str,
    fill: float,
) -> tuple[Value, Value, Value]:
    """``x`` with its SAME padding as part of it; where ``x`` begins and ends in it."""
    at = windows(x, kernel, strides, None, None, "VALID")
    before, after, size = same_pads_at_run_time(op, x, at, auto_pad)
    axes = op.ints(*range(2, rank(x)))
    whole = op.Pad(x, op.Concat(before, after, axis=0), op.const(fill, like=x), axes)
    return whole, before, op.Add(before, size)


def _lowest(x: Value) -> float:
    """Padding that is never the maximum."""
    return -65504.0 if x.dtype == ir.DataType.FLOAT16 else -3e38


def _pool_axis(op: Builder, x: Value, at: Windows, j: int) -> Value:
    """MaxPool along spatial axis j alone."""

    def only(values: Sequence[int], other: int) -> list[int]:
        return [v if i == j else other for i, v in enumerate(values)]

    after, rounds_up = fit(at)
    return op.MaxPool(
        x,
        kernel_shape=only(at.kernel, 1),
        strides=only(at.strides, 1),
        dilations=only(at.dilations, 1),
        pads=only(at.before, 0) + only(after, 0),
        ceil_mode=int(rounds_up),
    )


def _unpool_axis(op: Builder, g: Value, y: Value, x: Value, at: Windows, j: int) -> Value:
    """The rule of MaxPool along spatial axis j alone.

    x is cut into s phases P_i(q) = x(s·q + i), so that what tap t reads for all windows is a piece of one phase:
    x(s·o + d·t − p) = P_i(o + q) with s·q + i = d·t − p. A tap claims g where it equals the maximum and no earlier
    tap did; the last tap gets what is left.
    """
    axis, s, last = 2 + j, at.strides[j], at.kernel[j] - 1
    lowest = _lowest(x)
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
    if same_at_run_time(x, auto_pad, strides):
        return _average_pool_same(op, g, y, x, kernel_shape, strides, dilations, auto_pad, count_include_pad)
    at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    _check_counts(at, y)
    return spread(op, _divide_by_count(op, g, y, x, at, count_include_pad, taps_of_spread(at)), y, x, at)


def _average_pool_same(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    include_pad: int,
) -> Value:
    """The rule of AveragePool where the padding is known at run time only."""
    whole, begin, end = padded_as_same(op, x, kernel, strides, auto_pad, 0.0)
    at = windows(whole, kernel, strides, None, dilations, "VALID")
    share = op.Mul(g, op.const(1 / math.prod(kernel), like=x))
    if not include_pad:
        ones = op.Expand(op.const(1, like=x), op.Concat(op.ints(1, 1), vector(op, dims(x)[2:]), axis=0))
        counted, _, _ = padded_as_same(op, ones, kernel, strides, auto_pad, 0.0)
        taps = op.const(np.ones((1, 1, *kernel)), like=x)
        share = op.Div(g, op.Conv(counted, taps, strides=at.strides, dilations=at.dilations))
    return op.Slice(spread(op, share, y, whole, at), begin, end, op.ints(*range(2, rank(x))))


def taps_of_spread(at: Windows) -> int:
    """What ``spread`` wants the shares multiplied by: where it averages, the taps of a window."""
    return math.prod(at.kernel) if _is_average(at) else 1


def _is_average(at: Windows) -> bool:
    return max(at.dilations) == 1 and max(at.strides) == 1


def spread(op: Builder, share: Value, y: Value, x: Value, at: Windows) -> Value:
    """x̄(i) = Σ share(o) over the windows o that cover i: the transpose of a pool of sums; see ``taps_of_spread``."""
    if _is_average(at):
        pads = [reach - p for p, reach in zip(at.before + at.after, at.reach * 2, strict=True)]
        return op.AveragePool(share, kernel_shape=at.kernel, pads=pads, count_include_pad=1)
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
