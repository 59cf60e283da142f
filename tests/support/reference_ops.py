"""Convolutions, pools and Pad for the reference evaluator, written plainly, in the dtype of the input.

The evaluator's own are wrong in places: ConvTranspose with several output channels per group, MaxPool with SAME_LOWER
or with ceil_mode and stride 1, AveragePool with dilations and auto_pad, GlobalMaxPool in 1-D and 3-D, Pad with negative
amounts, GatherElements with a smaller index. These are written from the specification and compared with torch in
test_reference_ops.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


@dataclass(frozen=True)
class Geometry:
    """Per spatial axis: kernel, stride, dilation, padding before and after, length of x, number of windows."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    sizes: Sequence[int]
    counts: Sequence[int]

    def taps(self, x: np.ndarray, fill: float) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Every tap t, row by row, with x at stride·o + dilation·t − before for all windows o."""
        far = [
            max(0, (n - 1) * s + (k - 1) * d + 1 - b - i)
            for n, s, k, d, b, i in zip(
                self.counts, self.strides, self.kernel, self.dilations, self.before, self.sizes, strict=True
            )
        ]
        padded = np.pad(x, [(0, 0), (0, 0), *zip(self.before, far, strict=True)], constant_values=fill)
        for tap in itertools.product(*map(range, self.kernel)):
            where = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, self.dilations, self.counts, self.strides, strict=True)
            ]
            yield tap, padded[(slice(None), slice(None), *where)]


def geometry(
    x: np.ndarray,
    kernel: Sequence[int],
    auto_pad: str,
    strides: Any,
    pads: Any,
    dilations: Any,
    ceil_mode: int = 0,
    pool: bool = True,
) -> Geometry:
    n, sizes = len(kernel), x.shape[2:]
    strides, dilations = strides or [1] * n, dilations or [1] * n
    before, after = (pads or [0] * 2 * n)[:n], (pads or [0] * 2 * n)[n:]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):  # onnxruntime's pools pad for the bare kernel, not for the dilated one
        widths = kernel if pool else spans
        total = [max(0, (-(-i // s) - 1) * s + w - i) for i, s, w in zip(sizes, strides, widths, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if auto_pad == "VALID":
        before, after = [0] * n, [0] * n
    counts = []
    for i, s, w, b, e in zip(sizes, strides, spans, before, after, strict=True):
        room = i + b + e - w
        count = (-(-room // s) if ceil_mode else room // s) + 1
        late = ceil_mode and (count - 1) * s >= i + b  # no window starts in the padding at the end
        counts.append(count - 1 if late else count)
    return Geometry(kernel, strides, dilations, before, after, sizes, counts)


class Conv(OpRun):
    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        at = geometry(x, w.shape[2:], auto_pad, strides, pads, dilations, pool=False)
        y = np.zeros((x.shape[0], group, w.shape[0] // group, *at.counts), x.dtype)
        for tap, part in at.taps(x, 0):
            split = part.reshape(x.shape[0], group, w.shape[1], *at.counts)
            weight = w[(slice(None), slice(None), *tap)].reshape(group, -1, w.shape[1])
            y += np.einsum("ngc...,gmc->ngm...", split, weight)
        y = y.reshape(x.shape[0], w.shape[0], *at.counts)
        return (y if b is None else y + b.reshape(-1, *[1] * len(at.counts)),)


class ConvTranspose(OpRun):
    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        output_padding=None,
        output_shape=None,
        pads=None,
        strides=None,
    ):
        n, sizes, kernel = x.ndim - 2, x.shape[2:], w.shape[2:]
        strides, dilations, extra = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
        full = [
            (i - 1) * s + d * (k - 1) + 1 + e
            for i, s, d, k, e in zip(sizes, strides, dilations, kernel, extra, strict=True)
        ]
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = output_shape or [i * s for i, s in zip(sizes, strides, strict=True)]
            full = [max(f, o) for f, o in zip(full, wanted, strict=True)]  # more than there is: zeros at the end
            total = [f - o for f, o in zip(full, wanted, strict=True)]
            less, more = [t // 2 for t in total], [t - t // 2 for t in total]
            before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
        else:
            before, after = (pads or [0] * 2 * n)[:n], (pads or [0] * 2 * n)[n:]
        y = np.zeros((x.shape[0], group, w.shape[1], *full), x.dtype)
        split = x.reshape(x.shape[0], group, -1, *sizes)
        for tap in itertools.product(*map(range, kernel)):
            where = [
                slice(t * d, t * d + (i - 1) * s + 1, s)
                for t, d, i, s in zip(tap, dilations, sizes, strides, strict=True)
            ]
            weight = w[(slice(None), slice(None), *tap)].reshape(group, -1, w.shape[1])
            y[(slice(None), slice(None), slice(None), *where)] += np.einsum("ngc...,gcm->ngm...", split, weight)
        kept = [slice(p, f - q) for p, f, q in zip(before, full, after, strict=True)]
        y = y.reshape(x.shape[0], -1, *full)[(slice(None), slice(None), *kept)]
        return (y if b is None else y + b.reshape(-1, *[1] * n),)


class MaxPool(OpRun):
    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        storage_order=None,
        strides=None,
    ):
        at = geometry(x, kernel_shape, auto_pad, strides, pads, dilations, ceil_mode or 0)
        places = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        if storage_order:
            places = places.reshape(*x.shape[:2], *x.shape[:1:-1]).transpose(0, 1, *range(x.ndim - 1, 1, -1))
        y = np.full((*x.shape[:2], *at.counts), -np.inf, x.dtype)
        index = np.full(y.shape, -1, np.int64)
        for (_, part), (_, place) in zip(at.taps(x, -np.inf), at.taps(places, -1), strict=True):
            better = part > y
            y, index = np.where(better, part, y), np.where(better, place, index)
        return (y, index)[: len(self.output)]


class AveragePool(OpRun):
    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        count_include_pad=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        at = geometry(x, kernel_shape, auto_pad, strides, pads, dilations, ceil_mode or 0)
        counted = np.ones((1, 1, *at.sizes))
        if count_include_pad:
            counted = np.ones([1, 1, *map(sum, zip(at.before, at.sizes, at.after, strict=True))])
            whole = Geometry(
                at.kernel,
                at.strides,
                at.dilations,
                [0] * len(at.kernel),
                at.after,
                counted.shape[2:],
                at.counts,
            )
        else:
            whole = at
        total = sum(part for _, part in at.taps(x, 0))
        count = sum(part for _, part in whole.taps(counted, 0))
        return ((total / count).astype(x.dtype),)


class LpPool(OpRun):
    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        kernel_shape=None,
        p=None,
        pads=None,
        strides=None,
    ):
        at = geometry(x, kernel_shape, auto_pad, strides, pads, dilations, ceil_mode or 0)
        return (sum(np.abs(part) ** p for _, part in at.taps(x, 0)) ** (1 / p),)


class GlobalLpPool(OpRun):
    def _run(self, x, p=None):  # type: ignore[no-untyped-def]
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class GlobalMaxPool(OpRun):
    def _run(self, x):  # type: ignore[no-untyped-def]
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Pad(OpRun):
    """Negative amounts take away before the others add, as in onnxruntime."""

    def _run(self, data, pads, constant_value=None, axes=None, mode=None):  # type: ignore[no-untyped-def]
        along = list(range(data.ndim) if axes is None else axes)
        added, kept = [(0, 0)] * data.ndim, [slice(None)] * data.ndim
        for axis, before, after in zip(along, pads[: len(along)], pads[len(along) :], strict=True):
            added[axis] = (max(before, 0), max(after, 0))
            kept[axis] = slice(max(-before, 0), min(after, 0) or None)
        fill = {} if mode != "constant" or constant_value is None else {"constant_values": constant_value}
        return (np.pad(data[tuple(kept)], added, mode=mode, **fill),)


class GatherElements(OpRun):
    """The index may be shorter than the data along the other axes too."""

    def _run(self, data, indices, axis=None):  # type: ignore[no-untyped-def]
        axis = (axis or 0) % data.ndim
        within = tuple(slice(None) if k == axis else slice(n) for k, n in enumerate(indices.shape))
        return (np.take_along_axis(data[within], indices, axis),)


REFERENCE_OPS = (Conv, ConvTranspose, MaxPool, AveragePool, LpPool, GlobalLpPool, GlobalMaxPool, Pad, GatherElements)
