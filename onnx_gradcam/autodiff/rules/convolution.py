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
from onnx_gradcam.autodiff.rules.windows import SAME, Windows, same_pads_at_run_time, scatter, windows
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant


@vjp("Conv", wrt=0)
def conv_x(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y = x ⋆ W:  x̄ = g ⋆ W', its taps reversed and its channels exchanged; with strides, ConvTranspose(g, W)."""
    kernel = kernel_shape or _kernel(w)
    if kernel is None:
        return scatter(op, g, w, _windows_of_unknown(x, strides, pads, dilations, auto_pad), x, group)
    strided = any(s > 1 for s in strides or ())
    if auto_pad in SAME and any(d > 1 for d in dilations or ()):
        raise Refused("SAME padding with dilations, which onnxruntime's kernels do not take,")
    if auto_pad in SAME and strided and None in [length(x, k) for k in range(2, rank(x))]:
        at = windows(x, kernel, strides, None, dilations, "VALID")
        return _scatter_same(op, g, w, at, x, group, auto_pad)
    at = windows(x, kernel, strides, pads, dilations, auto_pad)
    weights = constant(w)
    if weights is None:
        return scatter(op, g, w, at, x, group)
    depthwise = weights.shape[:2] == (group, 1)
    if depthwise and at.strides == (2, 2) and None not in at.sizes:
        return _spread_by_two(op, g, flipped(weights, group), at, group)
    if strided:
        return scatter(op, g, w, at, x, group)
    begin, end = ([reach - p for reach, p in zip(at.reach, side, strict=True)] for side in (at.before, at.after))
    return _correlate(op, g, flipped(weights, group), at, begin, end, group)


@vjp("ConvTranspose", wrt=0)
def conv_transpose_x(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y(s·i + d·t − p) = Σ x(i) · W(t):  x̄ = g ⋆ W, with the same strides, dilations and pads."""
    at, extra = _transposed_windows(
        w, x, kernel_shape, strides, pads, dilations, auto_pad, output_shape, output_padding
    )
    form = {"strides": at.strides, "dilations": at.dilations, "group": group}
    if output_shape and None in at.sizes:
        padded = _padded_to_reach(op, g, x, at, extra, output_shape, auto_pad)
        return crop(op, op.Conv(padded, w, **form), x, dict.fromkeys(range(2, rank(x)), 0))
    missing = [max(p - e, 0) for p, e in zip(at.after, extra, strict=True)]
    beyond = [2 + j for j, s in enumerate(at.strides) if extra[j] - at.after[j] >= s]
    return crop(op, op.Conv(g, w, pads=[*at.before, *missing], **form), x, dict.fromkeys(beyond, 0))


@vjp("Conv", wrt=1)
def conv_w(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """W̄(t) = Σ g(o) · x(s·o + d·t − p) over images and windows:  x ⋆ g, strides and dilations exchanged."""
    kernel = kernel_shape or _kernel(w)
    if kernel is None:
        return _weights(op, x, g, w, _windows_of_unknown(x, strides, pads, dilations, auto_pad), group)
    if auto_pad in SAME and None in [length(x, k) for k in range(2, rank(x))]:
        at = windows(x, kernel, strides, None, dilations, "VALID")
        before, after, _ = same_pads_at_run_time(op, x, at, auto_pad)
        x = op.Pad(x, op.Concat(before, after, axis=0), op.const(0, like=x), op.ints(*range(2, rank(x))))
        return _weights(op, x, g, w, at, group)
    return _weights(op, x, g, w, windows(x, kernel, strides, pads, dilations, auto_pad), group)


@vjp("ConvTranspose", wrt=1)
def conv_transpose_w(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """W̄(t) = Σ x(i) · g(s·i + d·t − p) over images and places:  g ⋆ x, strides and dilations exchanged."""
    if g.shape is None:  # shape inference says nothing where the size of the weights is not known
        g.shape = ir.Shape([None] * rank(x))
    at, extra = _transposed_windows(
        w, x, kernel_shape, strides, pads, dilations, auto_pad, output_shape, output_padding
    )
    if output_shape and None in at.sizes:
        g = _padded_to_reach(op, g, x, at, extra, output_shape, auto_pad)
        return _weights(op, g, x, w, replace(at, before=(0,) * len(extra), after=(0,) * len(extra)), group)
    missing = tuple(max(p - e, 0) for p, e in zip(at.after, extra, strict=True))
    return _weights(op, g, x, w, replace(at, after=missing), group)


@vjp("Conv", wrt=2)
def conv_b(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y = … + b:  b̄ = Σ g over images and places."""
    return op.ReduceSum(g, op.ints(0, *range(2, rank(x))), keepdims=0)


@vjp("ConvTranspose", wrt=2)
def conv_transpose_b(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    w: Value,
    b: Value,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y = … + b:  b̄ = Σ g over images and places."""
    return op.ReduceSum(g, op.ints(0, *range(2, rank(x))), keepdims=0)


def _weights(op: Builder, image: Value, g: Value, w: Value, at: Windows, group: int) -> Value:
    """Σ g(o) · image(s·o + d·t − p), a convolution in which images are channels, and strides dilations.

    ``image`` (N, G·c, …) becomes (c, G·N, …) and ``g`` (N, G·m, …) the weights (G·m, N, …) of G groups.
    """
    n = len(at.kernel)
    spatial = range(2, 2 + n)
    if group == 1:
        turned = op.Transpose(image, perm=[1, 0, *spatial])
    else:
        batch, rest = dims(image)[0], dims(image)[2:]
        apart = reshape(op, image, [batch, group, -1, *rest])
        turned = op.Transpose(apart, perm=[2, 1, 0, *range(3, 3 + n)])
        turned = op.Reshape(turned, vector(op, [dims(w)[1], -1, *rest]))
    taps = op.Transpose(g, perm=[1, 0, *spatial])
    found = op.Conv(turned, taps, strides=at.dilations, dilations=at.strides, pads=[*at.before, *at.after], group=group)
    found = crop(op, op.Transpose(found, perm=[1, 0, *spatial]), w, dict.fromkeys(spatial, 0))
    found.shape = w.shape
    return found


def flipped(w: np.ndarray, group: int) -> np.ndarray:
    """(M, C/group, *k) → (C, M/group, *k): the channels of each group exchanged, the taps reversed."""
    m, c, *kernel = w.shape
    taps = w.reshape(group, m // group, c, -1)
    return taps.swapaxes(1, 2)[..., ::-1].reshape(group * c, m // group, *kernel)


def _kernel(w: Value) -> list[int] | None:
    sizes = [length(w, k) for k in range(2, rank(w))]
    return None if None in sizes else [k for k in sizes if k is not None]


def _windows_of_unknown(
    x: Value, strides: Sequence[int] | None, pads: Sequence[int] | None, dilations: Sequence[int] | None, auto_pad: str
) -> Windows:
    """For weights whose size is known at run time only: as if that of the image were, too."""
    if auto_pad in SAME:
        raise Unwritten("SAME padding for weights of unknown size")
    n = rank(x) - 2
    at = windows(x, (1,) * n, strides, pads, dilations, auto_pad)
    return replace(at, sizes=(None,) * n, counts=(None,) * n)


def _correlate(
    op: Builder, g: Value, w: np.ndarray, at: Windows, begin: Sequence[int], end: Sequence[int], group: int
) -> Value:
    """A convolution without strides; pads below 0 crop ``g`` first."""
    pads = [*begin, *end]
    if min(pads) < 0:
        axes = range(2, 2 + len(begin))
        starts, ends = [max(-p, 0) for p in begin], [min(p, 0) or END for p in end]
        g = op.Slice(g, op.ints(*starts), op.ints(*ends), op.ints(*axes))
    return op.Conv(g, op.array(w), dilations=at.dilations, group=group, pads=[max(p, 0) for p in pads])


def _spread_by_two(op: Builder, g: Value, w: np.ndarray, at: Windows, group: int) -> Value:
    """Depthwise with strides (2, 2): zeros between the elements of g, then a stride-1 convolution.

    That takes 0.4 to 0.8 of the time of a depthwise ConvTranspose; with other strides it takes longer.
    """
    filled = [2 * count for count in at.counts if count is not None]
    comb = np.zeros(filled)
    comb[::2, ::2] = 1
    spread = op.Mul(repeat(op, g, (2, 2)), op.const(comb, like=g))
    begin = [reach - p for reach, p in zip(at.reach, at.before, strict=True)]
    end = [size + p - n for size, p, n in zip(at.sizes, at.before, filled, strict=True) if size is not None]
    return _correlate(op, spread, w, at, begin, end, group)


def _scatter_same(op: Builder, g: Value, w: Value, at: Windows, x: Value, group: int, auto_pad: str) -> Value:
    """``scatter`` for SAME padding of an image whose size, and so the padding, is known at run time only."""
    begin, _, size = same_pads_at_run_time(op, x, at, auto_pad)
    spread = op.ConvTranspose(
        g,
        w,
        strides=at.strides,
        dilations=at.dilations,
        group=group,
        output_padding=[s - 1 for s in at.strides],
    )
    return op.Slice(spread, begin, op.Add(begin, size), op.ints(*range(2, rank(x))))


def _transposed_windows(
    w: Value,
    x: Value,
    kernel: Sequence[int] | None,
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    output_shape: Sequence[int] | None,
    output_padding: Sequence[int] | None,
) -> tuple[Windows, list[int]]:
    """The windows of y that a ConvTranspose of x writes, and what it adds at the end."""
    kernel = kernel or _kernel(w)
    if kernel is None and (output_shape or auto_pad in SAME):
        raise Unwritten("output_shape or SAME padding for weights of unknown size")
    at = windows(x, kernel or (1,) * (rank(x) - 2), strides, pads, dilations, "NOTSET")
    extra = list(output_padding or [0] * len(at.kernel))
    if not output_shape and auto_pad not in SAME:
        return at, extra
    before, after = [], []
    for j, (s, reach, size) in enumerate(zip(at.strides, at.reach, at.sizes, strict=True)):
        total = reach + 1 + extra[j] - s
        if output_shape:
            total = 0 if size is None else s * (size - 1) + extra[j] + reach + 1 - output_shape[-len(at.kernel) :][j]
            extra[j], total = extra[j] + max(-total, 0), max(total, 0)
        elif total < 0:
            raise Unwritten("padding that would be negative")
        before.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return replace(at, before=tuple(before), after=tuple(after)), extra


def _padded_to_reach(
    op: Builder, g: Value, x: Value, at: Windows, extra: Sequence[int], output_shape: Sequence[int], auto_pad: str
) -> Value:
    """``g`` with what ``output_shape`` cut off an image whose size is known at run time only."""
    n = len(at.kernel)
    size = op.Gather(op.shape_of(x), op.ints(*range(2, 2 + n)))
    fixed = [e + r + 1 - s - o for e, r, s, o in zip(extra, at.reach, at.strides, output_shape[-n:], strict=True)]
    total = op.Max(op.Add(op.Mul(size, op.ints(*at.strides)), op.ints(*fixed)), op.ints(0))
    less = op.Div(total, op.ints(2))
    more = op.Sub(total, less)
    before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    missing = op.Max(op.Sub(after, op.ints(*extra)), op.ints(0))
    return op.Pad(g, op.Concat(before, missing, axis=0), op.const(0, like=g), op.ints(*range(2, 2 + n)))
