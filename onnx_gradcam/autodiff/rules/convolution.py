"""Rules of Conv and ConvTranspose.

On ONNX Runtime's CPU provider a convolution with flipped weights costs what the forward layer costs, a transposed
convolution 1.1 to 2 times that, and 4 to 20 times that where it is depthwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Refused, Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import END, crop, dims, length, repeat, reshape, vector
from onnx_gradcam.autodiff.rules.windows import (
    SAME,
    Windows,
    is_padded_at_run_time,
    place_windows,
    same_pads_at_run_time,
    scatter,
)
from onnx_gradcam.graph.attributes import Convolution, TransposedConvolution, Windowed
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant


@vjp("Conv", wrt=0)
def conv_x(op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value | None = None, *, at: Convolution) -> Value:
    """y = x ⋆ W:  x̄ = g ⋆ W', its taps reversed and its channels exchanged; with strides, ConvTranspose(g, W)."""
    kernel = at.kernel_shape or _kernel(w)
    if kernel is None:
        return scatter(op, g, w, _windows_of_unknown_kernel(x, at), x, at.group)
    if at.auto_pad in SAME and any(d > 1 for d in at.dilations or ()):
        raise Refused("SAME padding with dilations, which onnxruntime's kernels do not take,")
    if is_padded_at_run_time(x, at):
        windows = place_windows(x, kernel, replace(at, auto_pad="VALID"))
        return _scatter_same(op, g, w, windows, x, at)
    windows = place_windows(x, kernel, at)
    weights = constant(w)
    if weights is None:
        return scatter(op, g, w, windows, x, at.group)
    is_depthwise = weights.shape[:2] == (at.group, 1)
    if is_depthwise and windows.strides == (2, 2) and None not in windows.sizes:
        return _spread_by_two(op, g, flip(weights, at.group), windows, at.group)
    if max(windows.strides) > 1:
        return scatter(op, g, w, windows, x, at.group)
    begin, end = ([r - p for r, p in zip(windows.reach, side, strict=True)] for side in (windows.before, windows.after))
    return _correlate(op, g, flip(weights, at.group), windows.dilations, begin, end, at.group)


@vjp("ConvTranspose", wrt=0)
def conv_transpose_x(
    op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value | None = None, *, at: TransposedConvolution
) -> Value:
    """y(s·i + d·t − p) = Σ x(i) · W(t):  x̄ = g ⋆ W, with the same strides, dilations and pads."""
    windows, extra = _transposed_windows(w, x, at)
    form = {"strides": windows.strides, "dilations": windows.dilations, "group": at.group}
    if at.output_shape and None in windows.sizes:
        padded = _pad_to_reach(op, g, x, windows, extra, at)
        return crop(op, op.Conv(padded, w, **form), x, dict.fromkeys(range(2, rank(x)), 0))
    missing = [max(p - e, 0) for p, e in zip(windows.after, extra, strict=True)]
    beyond = [2 + j for j, s in enumerate(windows.strides) if extra[j] - windows.after[j] >= s]
    return crop(op, op.Conv(g, w, pads=[*windows.before, *missing], **form), x, dict.fromkeys(beyond, 0))


@vjp("Conv", wrt=1)
def conv_w(op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value | None = None, *, at: Convolution) -> Value:
    """W̄(t) = Σ g(o) · x(s·o + d·t − p) over images and windows:  x ⋆ g, strides and dilations exchanged."""
    kernel = at.kernel_shape or _kernel(w)
    if kernel is None:
        return _correlate_images(op, x, g, w, _windows_of_unknown_kernel(x, at), at.group)
    if at.auto_pad in SAME and None in [length(x, k) for k in range(2, rank(x))]:
        windows = place_windows(x, kernel, replace(at, auto_pad="VALID"))
        before, after, _ = same_pads_at_run_time(op, x, windows, at.auto_pad)
        x = op.Pad(x, op.Concat(before, after, axis=0), op.const(0, like=x), op.ints(*range(2, rank(x))))
        return _correlate_images(op, x, g, w, windows, at.group)
    return _correlate_images(op, x, g, w, place_windows(x, kernel, at), at.group)


@vjp("ConvTranspose", wrt=1)
def conv_transpose_w(
    op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value | None = None, *, at: TransposedConvolution
) -> Value:
    """W̄(t) = Σ x(i) · g(s·i + d·t − p) over images and places:  g ⋆ x, strides and dilations exchanged."""
    if g.shape is None:  # shape inference says nothing where the size of the weights is not known
        g.shape = ir.Shape([None] * rank(x))
    windows, extra = _transposed_windows(w, x, at)
    if at.output_shape and None in windows.sizes:
        g = _pad_to_reach(op, g, x, windows, extra, at)
        bare = replace(windows, before=(0,) * len(extra), after=(0,) * len(extra))
        return _correlate_images(op, g, x, w, bare, at.group)
    missing = tuple(max(p - e, 0) for p, e in zip(windows.after, extra, strict=True))
    return _correlate_images(op, g, x, w, replace(windows, after=missing), at.group)


@vjp("Conv", wrt=2)
def conv_b(op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value, *, at: Convolution) -> Value:
    """y = … + b:  b̄ = Σ g over images and places."""
    return op.ReduceSum(g, op.ints(0, *range(2, rank(x))), keepdims=0)


@vjp("ConvTranspose", wrt=2)
def conv_transpose_b(
    op: Builder, g: Value, y: Value, x: Value, w: Value, b: Value, *, at: TransposedConvolution
) -> Value:
    """y = … + b:  b̄ = Σ g over images and places."""
    return op.ReduceSum(g, op.ints(0, *range(2, rank(x))), keepdims=0)


def _correlate_images(op: Builder, image: Value, g: Value, w: Value, windows: Windows, group: int) -> Value:
    """Write Σ g(o) · image(s·o + d·t − p), a convolution in which images are channels, and strides dilations.

    ``image`` (N, G·c, …) becomes (c, G·N, …) and ``g`` (N, G·m, …) the weights (G·m, N, …) of G groups. The result has
    the shape of ``w``.
    """
    n = len(windows.kernel)
    spatial = range(2, 2 + n)
    if group == 1:
        channels = op.Transpose(image, perm=[1, 0, *spatial])
    else:
        batch, rest = dims(image)[0], dims(image)[2:]
        by_group = reshape(op, image, [batch, group, -1, *rest])
        channels = op.Transpose(by_group, perm=[2, 1, 0, *range(3, 3 + n)])
        channels = op.Reshape(channels, vector(op, [dims(w)[1], -1, *rest]))
    taps = op.Transpose(g, perm=[1, 0, *spatial])
    pads = [*windows.before, *windows.after]
    sums = op.Conv(channels, taps, strides=windows.dilations, dilations=windows.strides, pads=pads, group=group)
    sums = crop(op, op.Transpose(sums, perm=[1, 0, *spatial]), w, dict.fromkeys(spatial, 0))
    sums.shape = w.shape
    return sums


def flip(w: np.ndarray, group: int) -> np.ndarray:
    """Return weights (M, C/group, *k) as (C, M/group, *k): the channels of each group exchanged, the taps reversed."""
    m, c, *kernel = w.shape
    taps = w.reshape(group, m // group, c, -1)
    return taps.swapaxes(1, 2)[..., ::-1].reshape(group * c, m // group, *kernel)


def _kernel(w: Value) -> list[int] | None:
    """Return the spatial lengths of the weights, None where one is not known before the run."""
    sizes = [length(w, k) for k in range(2, rank(w))]
    return None if None in sizes else [k for k in sizes if k is not None]


def _windows_of_unknown_kernel(x: Value, at: Windowed) -> Windows:
    """Return the windows for weights whose size is known at run time only, as if so were the size of the image."""
    if at.auto_pad in SAME:
        raise Unwritten("SAME padding for weights of unknown size")
    n = rank(x) - 2
    return replace(place_windows(x, (1,) * n, at), sizes=(None,) * n, counts=(None,) * n)


def _correlate(
    op: Builder,
    g: Value,
    w: np.ndarray,
    dilations: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    group: int,
) -> Value:
    """Write a convolution without strides; pads below 0 crop ``g`` first."""
    pads = [*begin, *end]
    if min(pads) < 0:
        axes = range(2, 2 + len(begin))
        starts, ends = [max(-p, 0) for p in begin], [min(p, 0) or END for p in end]
        g = op.Slice(g, op.ints(*starts), op.ints(*ends), op.ints(*axes))
    return op.Conv(g, op.array(w), dilations=dilations, group=group, pads=[max(p, 0) for p in pads])


def _spread_by_two(op: Builder, g: Value, w: np.ndarray, windows: Windows, group: int) -> Value:
    """Write a depthwise scatter with strides (2, 2): zeros between the elements of g, then a stride-1 convolution.

    That takes 0.4 to 0.8 of the time of a depthwise ConvTranspose; with other strides it takes longer.
    """
    lengths = [2 * count for count in windows.counts if count is not None]
    comb = np.zeros(lengths)
    comb[::2, ::2] = 1
    spread = op.Mul(repeat(op, g, (2, 2)), op.const(comb, like=g))
    begin = [reach - p for reach, p in zip(windows.reach, windows.before, strict=True)]
    end = [size + p - n for size, p, n in zip(windows.sizes, windows.before, lengths, strict=True) if size is not None]
    return _correlate(op, spread, w, windows.dilations, begin, end, group)


def _scatter_same(op: Builder, g: Value, w: Value, windows: Windows, x: Value, at: Convolution) -> Value:
    """Write ``scatter`` for SAME padding of an image whose size, and so the padding, is known at run time only."""
    begin, _, size = same_pads_at_run_time(op, x, windows, at.auto_pad)
    spread = op.ConvTranspose(
        g,
        w,
        strides=windows.strides,
        dilations=windows.dilations,
        group=at.group,
        output_padding=[s - 1 for s in windows.strides],
    )
    return op.Slice(spread, begin, op.Add(begin, size), op.ints(*range(2, rank(x))))


def _transposed_windows(w: Value, x: Value, at: TransposedConvolution) -> tuple[Windows, list[int]]:
    """Return the windows of y that a ConvTranspose of x writes, and how many elements it adds at the end of y."""
    kernel = at.kernel_shape or _kernel(w)
    if kernel is None and (at.output_shape or at.auto_pad in SAME):
        raise Unwritten("output_shape or SAME padding for weights of unknown size")
    windows = place_windows(x, kernel or (1,) * (rank(x) - 2), replace(at, auto_pad="NOTSET"))
    extra = list(at.output_padding or [0] * len(windows.kernel))
    if not at.output_shape and at.auto_pad not in SAME:
        return windows, extra
    before, after = [], []
    for j, (s, reach, size) in enumerate(zip(windows.strides, windows.reach, windows.sizes, strict=True)):
        total = reach + 1 + extra[j] - s
        if at.output_shape:
            target = at.output_shape[-len(windows.kernel) :][j]
            total = 0 if size is None else s * (size - 1) + extra[j] + reach + 1 - target
            extra[j], total = extra[j] + max(-total, 0), max(total, 0)
        elif total < 0:
            raise Unwritten("padding that would be negative")
        before.append(total // 2 if at.auto_pad == "SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return replace(windows, before=tuple(before), after=tuple(after)), extra


def _pad_to_reach(
    op: Builder, g: Value, x: Value, windows: Windows, extra: Sequence[int], at: TransposedConvolution
) -> Value:
    """Write ``g`` with the border that ``output_shape`` cut off an image whose size is known at run time only."""
    n = len(windows.kernel)
    lengths = (at.output_shape or ())[-n:]
    size = op.Gather(op.shape_of(x), op.ints(*range(2, 2 + n)))
    fixed = [e + r + 1 - s - k for e, r, s, k in zip(extra, windows.reach, windows.strides, lengths, strict=True)]
    total = op.Max(op.Add(op.Mul(size, op.ints(*windows.strides)), op.ints(*fixed)), op.ints(0))
    less = op.Div(total, op.ints(2))
    more = op.Sub(total, less)
    before, after = (less, more) if at.auto_pad == "SAME_UPPER" else (more, less)
    missing = op.Max(op.Sub(after, op.ints(*extra)), op.ints(0))
    return op.Pad(g, op.Concat(before, missing, axis=0), op.const(0, like=g), op.ints(*range(2, 2 + n)))
