"""How alike two heatmaps are, in numbers. NumPy arrays of one shape, any number of axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.photos.opencv import cv2

Array = npt.NDArray[Any]
TOP = 0.2  # the share of points that "the top" means
PEAK = 0.05  # the share of a map's range below its maximum that still belongs to its peak
BLANK, FLAT, NOT_FINITE = "blank", "the same everywhere", "not finite"


@dataclass(frozen=True)
class Agreement:
    """How alike two heatmaps are.

    Attributes:
        pearson: correlation of the maps.
        iou: overlap of their highest 20 %.
        distance_px, distance: of their peaks, in points and as a share of the diagonal.
        note: "", or why a map says nothing: it is blank, the same everywhere, or not finite.

    All numbers are None where both maps are blank: they agree in saying nothing. Where one of two says nothing, they
    disagree: 0, 0 and 1.
    """

    pearson: float | None
    iou: float | None
    distance_px: float | None
    distance: float | None
    note: str = ""


def agreement_of(a: Array, b: Array) -> Agreement:
    """Measure how alike two heatmaps are."""
    states = [_silence(m) for m in (a, b)]
    note = "; ".join(f"the map of {side} is {state}" for side, state in zip("AB", states, strict=True) if state)
    if states == [BLANK, BLANK]:
        return Agreement(None, None, None, None, note)
    longest = diagonal(a.shape)
    if note and states != [FLAT, FLAT]:
        return Agreement(0.0, 0.0, longest, 1.0, note)
    pixels = peak_distance(a, b)
    return Agreement(pearson(a, b), top_iou(a, b), pixels, pixels / longest if longest else 0.0, note)


def _silence(heatmap: Array) -> str:
    if not np.isfinite(heatmap).all():
        return NOT_FINITE
    if not heatmap.any():
        return BLANK
    return FLAT if heatmap.size > 1 and heatmap.min() == heatmap.max() else ""


def pearson(a: Array, b: Array) -> float:
    """r = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² · Σ (b − b̄)²).

    A map that is the same everywhere correlates with nothing: 0, unless the two are equal: 1.
    """
    x, y = (np.asarray(m, np.float64).ravel() for m in (a, b))
    if (x == x[0]).all() or (y == y[0]).all():
        return float(np.array_equal(x, y))
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares of tiny values would vanish
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def top_iou(a: Array, b: Array, share: float = TOP) -> float:
    """Return |T(a) ∩ T(b)| / |T(a) ∪ T(b)|, T the ``share`` of points with the highest values, rounded, at least one.

    Of equal values the first in row-major order comes first. A point that is not positive holds no evidence and is
    never in T: two maps that are 0 almost everywhere would agree on the zeros. Where both T are empty: 1.
    """
    first, second = _top(a, share), _top(b, share)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _top(a: Array, share: float) -> npt.NDArray[np.bool_]:
    flat = np.asarray(a).ravel()
    highest = np.argsort(-flat, kind="stable")[: max(1, round(share * flat.size))]
    chosen = np.zeros(flat.size, bool)
    chosen[highest] = flat[highest] > 0
    return chosen


def peak_distance(a: Array, b: Array) -> float:
    """Return the Euclidean distance of the nearest points p ∈ P(a), q ∈ P(b), in points.

    P is the peak of a map: every point with a value ≥ max − ``PEAK`` · (max − min). A map with two summits of about the
    same height has both in its peak. So the distance does not jump where two builds put them in another order.
    """
    first, second = _peak(a), _peak(b)
    if (first & second).any():
        return 0.0
    candidates, points = np.argwhere(first), np.argwhere(second)
    if a.ndim <= 2:  # one transform finds the nearest point of many; its float32 is not precise enough for the result
        away = cv2.distanceTransform((~np.atleast_2d(second)).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        candidates = candidates[[int(np.argmin(away[np.atleast_2d(first)]))]]
    return float(min(np.linalg.norm(points - p, axis=1).min() for p in candidates))


def _peak(a: Array) -> npt.NDArray[np.bool_]:
    values = np.asarray(a, np.float64)
    low, high = values.min(), values.max()
    return np.asarray(values >= high - PEAK * (high - low))


def diagonal(shape: tuple[int, ...]) -> float:
    """Return the largest distance that two points of a map can have."""
    return float(np.linalg.norm(np.subtract(shape, 1)))
