"""GridSample, RoiAlign and others that read between elements, for the reference evaluator: written plainly, in float64.

The evaluator's own GridSample knows no names of opset 16 and takes places near the border for outside; its
GatherElements ends at 64 elements. Compared with ONNX Runtime (and with torch) in test_reference_sampling.py.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

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


class GatherElements(OpRun):
    op_domain = ""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: Any = None) -> tuple[np.ndarray]:
        return (np.take_along_axis(data, indices % data.shape[axis or 0], axis or 0),)


REFERENCE_SAMPLING = (GridSample, GatherElements)
