"""Where the windows of a convolution or pool stand, along each spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_gradcam.autodiff.registry import Refused
from onnx_gradcam.autodiff.rules.axes import crop, length
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.prepare.pools import SAME, last_pad, same_pads, window_count

__all__ = ["SAME", "Windows", "fit", "same_pads_at_run_time", "scatter", "windows"]


@dataclass(frozen=True)
class Windows:
    """Window o covers x[stride · o + dilation · t − before] for t < kernel; what lies outside x is padding.

    One entry per spatial axis. ``before``, ``after``: the padding; ``sizes``, ``counts``: the lengths of x and the
    numbers of windows, None where they are known at run time only. ``rounds_up``: ceil_mode, where it counts.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    sizes: tuple[int | None, ...]
    counts: tuple[int | None, ...]
    rounds_up: bool

    @property
    def reach(self) -> tuple[int, ...]:
        """From the first to the last tap: dilation · (kernel − 1)."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))


def windows(
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int = 0,
) -> Windows:
    """The attributes of Conv and the pools on ``x``, with the specification's defaults and auto_pad worked out."""
    n = len(kernel)
    strides, dilations = tuple(strides or (1,) * n), tuple(dilations or (1,) * n)
    sizes = tuple(length(x, 2 + j) for j in range(n))
    pads = tuple(pads) if pads and auto_pad == "NOTSET" else (0,) * (2 * n)
    before, after = pads[:n], pads[n:]
    if auto_pad in SAME:  # with dilations, onnxruntime pads for the bare kernel
        refuse_gaps(kernel, strides, dilations)
        before, after = _same(sizes, kernel, strides, auto_pad)
    at = Windows(tuple(kernel), strides, dilations, before, after, sizes, sizes, bool(ceil_mode))
    return replace(at, counts=tuple(None if i is None else _count(at, j, i) for j, i in enumerate(sizes)))


def fit(at: Windows) -> tuple[tuple[int, ...], bool]:
    """``after`` with which the windows fit without ceil_mode, and whether ceil_mode is needed nevertheless."""
    after = []
    for j, (size, count) in enumerate(zip(at.sizes, at.counts, strict=True)):
        if size is None or count is None:
            return at.after, at.rounds_up
        after.append(last_pad(size, (at.before[j], at.after[j]), at.reach[j], at.strides[j], count))
    return tuple(after), False


def _count(at: Windows, j: int, size: int) -> int:
    return window_count(size, (at.before[j], at.after[j]), at.reach[j], at.strides[j], rounds_up=at.rounds_up)


def _same(
    sizes: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int], auto_pad: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pads = []
    for size, k, s in zip(sizes, kernel, strides, strict=True):
        assert size is not None or s == 1, "same_pads_at_run_time"
        pads.append(same_pads(size or 1, k, s, auto_pad))  # with stride 1 it is the same for every size
    return tuple(before for before, _ in pads), tuple(after for _, after in pads)


def refuse_gaps(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Where SAME padding may have to be negative."""
    if any(k < s - 1 or (k < s and max(dilations) > 1) for k, s in zip(kernel, strides, strict=True)):
        raise Refused("SAME padding of windows with gaps between them, which onnxruntime's kernels place differently,")


def same_pads_at_run_time(op: Builder, x: Value, at: Windows, auto_pad: str) -> tuple[Value, Value, Value]:
    """SAME padding of an image whose size is known at run time only: before, after, and the size itself."""
    refuse_gaps(at.kernel, at.strides, at.dilations)
    strides = op.ints(*at.strides)
    size = op.Gather(op.shape_of(x), op.ints(*range(2, 2 + len(at.kernel))))
    last = op.Div(op.Sub(size, op.ints(1)), strides)
    covered = op.Add(op.Mul(last, strides), op.ints(*at.kernel))
    total = op.Max(op.Sub(covered, size), op.ints(0))
    before = op.Div(op.Add(total, op.ints(0 if auto_pad == "SAME_UPPER" else 1)), op.ints(2))
    return before, op.Sub(total, before), size


def scatter(op: Builder, g: Value, w: Value, at: Windows, x: Value, group: int = 1) -> Value:
    """x̄(i) = Σ g(o) · W(t) over the windows o and taps t that read i: a transposed convolution, cropped to x.

    ``g`` (N, M, *counts), ``w`` (M, C/group, *kernel) → (N, C, *sizes). Its pads are symmetric, because CUDA has no
    kernel for others; what is then too much is cropped. ``output_padding`` restores what no window reached.
    """
    extra, starts, pads = [], {}, [min(pair) for pair in zip(at.before, at.after, strict=True)]
    for j, (s, size, count) in enumerate(zip(at.strides, at.sizes, at.counts, strict=True)):
        start = at.before[j] - pads[j]
        if size is None or count is None:
            extra.append(s - 1)
            cropped = s > 1 or at.before[j] != at.after[j]
        else:
            bare = (count - 1) * s + at.reach[j] + 1 - 2 * pads[j]
            extra.append(max(start + size - bare, 0))
            cropped = start > 0 or bare > size
        if cropped:
            starts[2 + j] = start
    spread = op.ConvTranspose(
        g,
        w,
        strides=at.strides,
        dilations=at.dilations,
        pads=pads * 2,
        output_padding=extra if any(extra) else None,
        group=group,
    )
    return crop(op, spread, x, starts)
