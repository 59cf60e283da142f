"""GridSample, RoiAlign and others that read between elements: one place after the other."""

from __future__ import annotations

import itertools
import math

import numpy as np
from onnx.reference.op_run import OpRun


def keys(d: float, a: float = -0.75) -> float:
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def mirrored(place: float, low: float, high: float) -> float:
    if high <= low:
        return low
    while not low <= place <= high:
        place = 2 * low - place if place < low else 2 * high - place
    return place


def taps_of(place: float, size: int, mode: str, padding: str, corners: int) -> list[tuple[int, float]]:
    """(element, weight) along one axis; an element outside is left out."""
    low, high = (0, size - 1) if corners else (-0.5, size - 0.5)

    def moved(at: float) -> float:
        if padding == "zeros":
            return at
        if padding == "reflection":
            at = mirrored(at, low, high)
        return min(max(at, 0), size - 1)

    if mode == "nearest":
        weights = {moved(np.rint(place)): 1.0}
    elif mode in ("linear", "bilinear"):
        place = moved(place)
        first = math.floor(place)
        weights = {first: 1 - (place - first), first + 1: place - first}
    else:
        first = math.floor(place)
        pairs = [(moved(first + k), keys(place - first - k)) for k in (-1, 0, 1, 2)]
        return [(int(i), w) for i, w in pairs if 0 <= i < size]
    return [(int(i), w) for i, w in weights.items() if 0 <= i < size]


def around(place: float, size: int) -> list[tuple[int, float]]:
    """The two elements around a place on the axis; at its end twice the last one, once with a weight of 0."""
    place = min(max(place, 0), size - 1)
    first = math.floor(place)
    return [(first, 1 - (place - first)), (min(first + 1, size - 1), place - first)]


class GridSample(OpRun):
    op_domain = ""

    def _run(self, x, grid, align_corners=None, mode=None, padding_mode=None):  # type: ignore[no-untyped-def]
        sizes, outer = x.shape[2:], grid.shape[1:-1]
        y = np.zeros((*x.shape[:2], *outer), x.dtype)
        for n, at in itertools.product(range(len(x)), np.ndindex(*outer)):
            axes = []
            for size, place in zip(sizes, grid[(n, *at)][::-1], strict=True):
                spread = (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2
                axes.append(taps_of(spread, size, mode, padding_mode, align_corners))
            for taps in itertools.product(*axes):
                weight = math.prod(w for _, w in taps)
                y[(n, slice(None), *at)] += weight * x[(n, slice(None), *(i for i, _ in taps))]
        return (y,)


class RoiAlign(OpRun):
    """As onnxruntime has it: the maximum is over the four weighted elements of each sample, not over their sum."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        rois,
        batch,
        coordinate_transformation_mode=None,
        mode=None,
        output_height=None,
        output_width=None,
        sampling_ratio=None,
        spatial_scale=None,
    ):
        half = coordinate_transformation_mode == "half_pixel"
        y = np.zeros((len(rois), x.shape[1], output_height, output_width), x.dtype)
        for r, box in enumerate(rois):
            edges = box * spatial_scale - (0.5 if half else 0)
            lines = []
            for k, cells, size in ((1, output_height, x.shape[2]), (0, output_width, x.shape[3])):
                extent = edges[k + 2] - edges[k]
                cell = (extent if half else max(extent, 1)) / cells
                lines.append((edges[k], cell, sampling_ratio or max(math.ceil(cell), 0), size))
            for p, q in np.ndindex(output_height, output_width):
                samples = [
                    [(first + at * cell + (s + 0.5) * cell / count, size) for s in range(count)]
                    for at, (first, cell, count, size) in zip((p, q), lines, strict=True)
                ]
                terms = []
                for pair in itertools.product(*samples):
                    outside = any(place < -1 or place > size for place, size in pair)
                    axes = [around(place, size) for place, size in pair]
                    for (i, v), (j, w) in itertools.product(*axes):
                        terms.append(x[batch[r], :, i, j] * (0 if outside else v * w))
                if terms:
                    count = len(samples[0]) * len(samples[1])
                    y[r, :, p, q] = np.sum(terms, axis=0) / count if mode == "avg" else np.max(terms, axis=0)
        return (y,)


class MaxRoiPool(OpRun):
    op_domain = ""

    def _run(self, x, rois, pooled_shape=None, spatial_scale=None):  # type: ignore[no-untyped-def]
        y = np.full((len(rois), x.shape[1], *pooled_shape), -np.inf, x.dtype)
        for r, box in enumerate(np.asarray(rois, np.float64)):
            corners = [math.copysign(math.floor(abs(v * spatial_scale) + 0.5), v) for v in box[1:]]
            for (p, i), (q, j) in itertools.product(
                *(itertools.product(range(n), range(size)) for n, size in zip(pooled_shape, x.shape[2:], strict=True))
            ):
                inside = True
                for at, element, n, k in ((p, i, pooled_shape[0], 1), (q, j, pooled_shape[1], 0)):
                    cell = max(corners[k + 2] - corners[k] + 1, 1) / n
                    first, end = math.floor(at * cell + 1e-9), math.ceil((at + 1) * cell - 1e-9)
                    inside &= first <= element - corners[k] < end
                if inside:
                    y[r, :, p, q] = np.maximum(y[r, :, p, q], x[int(box[0]), :, i, j])
        return (np.where(np.isinf(y), 0, y).astype(x.dtype),)


class DeformConv(OpRun):
    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        w,
        offset,
        b=None,
        mask=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        offset_group=None,
        pads=None,
        strides=None,
    ):
        strides, dilations, pads = strides or [1, 1], dilations or [1, 1], pads or [0] * 4
        images, outer, taps = len(x), offset.shape[2:], w.shape[2:]
        moves = offset.reshape(images, offset_group, math.prod(taps), 2, *outer)
        kept = np.ones_like(moves[:, :, :, 0]) if mask is None else mask.reshape(images, offset_group, -1, *outer)
        share, y = x.shape[1] // offset_group, np.zeros((images, len(w), *outer), x.dtype)
        for n, o in itertools.product(range(images), np.ndindex(*outer)):
            columns = np.zeros((x.shape[1], *taps), x.dtype)
            for d, (t, tap) in itertools.product(range(offset_group), enumerate(np.ndindex(*taps))):
                at = [o[k] * strides[k] + tap[k] * dilations[k] - pads[k] + moves[(n, d, t, k, *o)] for k in (0, 1)]
                lines = [
                    taps_of(place, size, "linear", "zeros", 1) for place, size in zip(at, x.shape[2:], strict=True)
                ]
                channels = slice(d * share, (d + 1) * share)
                for (i, u), (j, v) in itertools.product(*lines):
                    columns[(channels, *tap)] += kept[(n, d, t, *o)] * u * v * x[n, channels, i, j]
            grouped = columns.reshape(group, -1)
            y[(n, slice(None), *o)] = np.einsum("gmk,gk->gm", w.reshape(group, -1, grouped.shape[1]), grouped).ravel()
        return (y if b is None else y + b.reshape(-1, 1, 1),)


OPERATORS = (GridSample, RoiAlign, MaxRoiPool, DeformConv)
