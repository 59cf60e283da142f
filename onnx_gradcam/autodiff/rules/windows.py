"""Where the windows of a convolution or a pool lie, along each spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_gradcam.autodiff.registry import Refused
from onnx_gradcam.autodiff.rules.axes import crop, length
from onnx_gradcam.graph.attributes import Pool, Windowed
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.prepare.pools import SAME, last_pad, same_pads, window_count

__all__ = [
    "SAME",
    "Windows",
    "fit",
    "is_padded_at_run_time",
    "place_windows",
    "pool_windows",
    "same_pads_at_run_time",
    "scatter",
]


@dataclass(frozen=True)
class Windows:
    """Window o covers x[stride · o + dilation · t − before] for t < kernel; what lies outside x is padding.

    One entry for each spatial axis. ``before`` and ``after`` are the padding. ``sizes`` and ``counts`` are the lengths
    of x and the numbers of windows, None where they are known at run time only. ``rounds_up`` is True for ceil_mode.
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
        """Return the distances from the first to the last tap: dilation · (kernel − 1)."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))


def place_windows(x: Value, kernel: Sequence[int], at: Windowed, *, rounds_up: bool = False) -> Windows:
    """Return the windows that an operator moves over ``x``.

    Args:
        x: the image (N, C, *space).
        kernel: the number of taps along each spatial axis.
        at: the operator's attributes; the defaults of the specification and auto_pad are worked out here.
        rounds_up: whether the operator has ceil_mode=1.

    Raises:
        Refused: SAME padding for windows with gaps between them.
    """
    n = len(kernel)
    strides, dilations = tuple(at.strides or (1,) * n), tuple(at.dilations or (1,) * n)
    sizes = tuple(length(x, 2 + j) for j in range(n))
    pads = tuple(at.pads) if at.pads and at.auto_pad == "NOTSET" else (0,) * (2 * n)
    before, after = pads[:n], pads[n:]
    if at.auto_pad in SAME:  # with dilations, onnxruntime pads for the bare kernel
        refuse_gaps(kernel, strides, dilations)
        before, after = _same(sizes, kernel, strides, at.auto_pad)
    windows = Windows(tuple(kernel), strides, dilations, before, after, sizes, sizes, rounds_up)
    return replace(windows, counts=tuple(None if i is None else _count(windows, j, i) for j, i in enumerate(sizes)))


def pool_windows(x: Value, at: Pool) -> Windows:
    """Return the windows of a pool of ``x``, ceil_mode included."""
    return place_windows(x, at.kernel_shape, at, rounds_up=bool(at.ceil_mode))


def fit(windows: Windows) -> tuple[tuple[int, ...], bool]:
    """Return the padding ``after`` with which the windows fit without ceil_mode, and whether they need it all the same.

    They need it where a length of the image is not known.
    """
    after = []
    for j, (size, count) in enumerate(zip(windows.sizes, windows.counts, strict=True)):
        if size is None or count is None:
            return windows.after, windows.rounds_up
        pads = windows.before[j], windows.after[j]
        after.append(last_pad(size, pads, windows.reach[j], windows.strides[j], count))
    return tuple(after), False


def _count(windows: Windows, j: int, size: int) -> int:
    """Return the number of windows along spatial axis j."""
    pads = windows.before[j], windows.after[j]
    return window_count(size, pads, windows.reach[j], windows.strides[j], rounds_up=windows.rounds_up)


def _same(
    sizes: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int], auto_pad: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the paddings before and after the image that SAME means."""
    pads = []
    for size, k, s in zip(sizes, kernel, strides, strict=True):
        assert size is not None or s == 1, "same_pads_at_run_time"
        pads.append(same_pads(size or 1, k, s, auto_pad))  # with stride 1 it is the same for every size
    return tuple(before for before, _ in pads), tuple(after for _, after in pads)


def refuse_gaps(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Raise ``Refused`` where SAME padding may have to be negative."""
    if any(k < s - 1 or (k < s and max(dilations) > 1) for k, s in zip(kernel, strides, strict=True)):
        raise Refused("SAME padding of windows with gaps between them, which onnxruntime's kernels place differently,")


def is_padded_at_run_time(x: Value, at: Windowed) -> bool:
    """Tell whether the padding depends on a length of ``x`` that is known at run time only."""
    has_strides = any(s > 1 for s in at.strides or ())
    return at.auto_pad in SAME and has_strides and None in [length(x, k) for k in range(2, rank(x))]


def same_pads_at_run_time(op: Builder, x: Value, windows: Windows, auto_pad: str) -> tuple[Value, Value, Value]:
    """Write SAME padding of an image whose size is known at run time only.

    Returns:
        The padding before, the padding after and the size of the image, each an int64 vector over the spatial axes.
    """
    refuse_gaps(windows.kernel, windows.strides, windows.dilations)
    strides = op.ints(*windows.strides)
    size = op.Gather(op.shape_of(x), op.ints(*range(2, 2 + len(windows.kernel))))
    last = op.Div(op.Sub(size, op.ints(1)), strides)
    covered = op.Add(op.Mul(last, strides), op.ints(*windows.kernel))
    total = op.Max(op.Sub(covered, size), op.ints(0))
    before = op.Div(op.Add(total, op.ints(0 if auto_pad == "SAME_UPPER" else 1)), op.ints(2))
    return before, op.Sub(total, before), size


def scatter(op: Builder, g: Value, w: Value, windows: Windows, x: Value, group: int = 1) -> Value:
    """x̄(i) = Σ g(o) · W(t) over the windows o and taps t that read i: a transposed convolution, cropped to x.

    Its pads are symmetric, because CUDA has no kernel for others. What is then too much is cropped.
    ``output_padding`` restores what no window reached.

    Args:
        op: writes the nodes.
        g: the cotangent of the windows (N, M, *counts).
        w: the weights (M, C/group, *kernel).
        windows: where the windows lie.
        x: the image (N, C, *sizes).
        group: the number of groups of channels.

    Returns:
        The cotangent of ``x``.
    """
    extra, starts, pads = [], {}, [min(pair) for pair in zip(windows.before, windows.after, strict=True)]
    for j, (s, size, count) in enumerate(zip(windows.strides, windows.sizes, windows.counts, strict=True)):
        start = windows.before[j] - pads[j]
        if size is None or count is None:
            extra.append(s - 1)
            is_cropped = s > 1 or windows.before[j] != windows.after[j]
        else:
            bare = (count - 1) * s + windows.reach[j] + 1 - 2 * pads[j]
            extra.append(max(start + size - bare, 0))
            is_cropped = start > 0 or bare > size
        if is_cropped:
            starts[2 + j] = start
    spread = op.ConvTranspose(
        g,
        w,
        strides=windows.strides,
        dilations=windows.dilations,
        pads=pads * 2,
        output_padding=extra if any(extra) else None,
        group=group,
    )
    return crop(op, spread, x, starts)
