"""Convolutions and pools, tap by tap."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
        """Yield every tap t, row by row, with x at stride·o + dilation·t − before for all windows o."""
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


def geometry(x: np.ndarray, kernel: Sequence[int], form: Mapping[str, Any], pool: bool = True) -> Geometry:
    """Return the windows of an operator with the attributes ``form``; one that is missing or None has its default."""
    n, sizes = len(kernel), x.shape[2:]
    strides, dilations = form.get("strides") or [1] * n, form.get("dilations") or [1] * n
    pads, auto_pad, ceil_mode = form.get("pads") or [0] * 2 * n, form.get("auto_pad"), form.get("ceil_mode")
    before, after = pads[:n], pads[n:]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):  # onnxruntime's pools pad for the bare kernel, not for the dilated one
        widths = kernel if pool else spans
        total = [max(0, (-(-i // s) - 1) * s + w - i) for i, s, w in zip(sizes, strides, widths, strict=True)]
        before, after = halves(total, auto_pad)
    if auto_pad == "VALID":
        before, after = [0] * n, [0] * n
    counts = []
    for i, s, w, b, e in zip(sizes, strides, spans, before, after, strict=True):
        room = i + b + e - w
        count = (-(-room // s) if ceil_mode else room // s) + 1
        late = ceil_mode and (count - 1) * s >= i + b  # no window starts in the padding at the end
        counts.append(count - 1 if late else count)
    return Geometry(kernel, strides, dilations, before, after, sizes, counts)


def halves(total: Sequence[int], auto_pad: str) -> tuple[list[int], list[int]]:
    """Return what comes before and after; an odd one more after (SAME_UPPER) or before (SAME_LOWER)."""
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def convolution(x: np.ndarray, w: np.ndarray, group: int, at: Geometry) -> np.ndarray:
    """Return Σ W(t) · x(stride·o + dilation·t − before) over the taps t."""
    y = np.zeros((len(x), group, len(w) // group, *at.counts), x.dtype)
    for tap, part in at.taps(x, 0):
        split = part.reshape(len(x), group, w.shape[1], *at.counts)
        weight = w[(slice(None), slice(None), *tap)].reshape(group, -1, w.shape[1])
        y += np.einsum("ngc...,gmc->ngm...", split, weight)
    return y.reshape(len(x), len(w), *at.counts)


class Conv(OpRun):
    def _run(self, x, w, b=None, group=None, **form):  # type: ignore[no-untyped-def]
        y = convolution(x, w, group, geometry(x, w.shape[2:], form, pool=False))
        return (y if b is None else y + b.reshape(-1, *[1] * (x.ndim - 2)),)


class ConvTranspose(OpRun):
    def _run(self, x, w, b=None, group=None, **form):  # type: ignore[no-untyped-def]
        n, sizes, kernel, auto_pad = x.ndim - 2, x.shape[2:], w.shape[2:], form["auto_pad"]
        strides, dilations, extra = (
            form[name] or [default] * n for name, default in (("strides", 1), ("dilations", 1), ("output_padding", 0))
        )
        full = [
            (i - 1) * s + d * (k - 1) + 1 + e
            for i, s, d, k, e in zip(sizes, strides, dilations, kernel, extra, strict=True)
        ]
        if form["output_shape"] or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            final = form["output_shape"] or [i * s for i, s in zip(sizes, strides, strict=True)]
            full = [max(f, o) for f, o in zip(full, final, strict=True)]  # more than there is: zeros at the end
            before, after = halves([f - o for f, o in zip(full, final, strict=True)], auto_pad)
        else:
            pads = form["pads"] or [0] * 2 * n
            before, after = pads[:n], pads[n:]
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
    def _run(self, x, kernel_shape=None, storage_order=None, **form):  # type: ignore[no-untyped-def]
        at = geometry(x, kernel_shape, form)
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
    def _run(self, x, kernel_shape=None, count_include_pad=None, **form):  # type: ignore[no-untyped-def]
        at = geometry(x, kernel_shape, form)
        counted, around = np.ones((1, 1, *at.sizes)), at
        if count_include_pad:
            counted = np.ones([1, 1, *map(sum, zip(at.before, at.sizes, at.after, strict=True))])
            around = replace(at, before=[0] * len(at.kernel), sizes=counted.shape[2:])
        total = sum(part for _, part in at.taps(x, 0))
        count = sum(part for _, part in around.taps(counted, 0))
        return ((total / count).astype(x.dtype),)


class LpPool(OpRun):
    def _run(self, x, kernel_shape=None, p=None, **form):  # type: ignore[no-untyped-def]
        at = geometry(x, kernel_shape, form)
        return (sum(np.abs(part) ** p for _, part in at.taps(x, 0)) ** (1 / p),)


class GlobalLpPool(OpRun):
    def _run(self, x, p=None):  # type: ignore[no-untyped-def]
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class GlobalMaxPool(OpRun):
    def _run(self, x):  # type: ignore[no-untyped-def]
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


OPERATORS = (Conv, ConvTranspose, MaxPool, AveragePool, LpPool, GlobalLpPool, GlobalMaxPool)
