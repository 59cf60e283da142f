"""How far from the object does the map lie? In shares of the diagonal, so that photos of any size compare."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.scores import Array
from onnx_gradcam.metrics.order import ranks_of_removal

PAIRS = 1 << 20
"""How many distances are held at a time."""


def centroid_distance(heatmap: Array, region: Array) -> float:
    """|centroid of H − that of R| / diagonal, H the |R| highest pixels.   Moments of Hu 1962, IRE Trans. IT-8.

    It tells whether a map points at the right spot, however its outline runs. Equal values come in a fixed random
    order.

    Args:
        heatmap: (*space).
        region: (*space) bool, R.
    """
    centroids = [np.argwhere(pixels).mean(axis=0) for pixels in (_highest(heatmap, region), region)]
    return float(np.linalg.norm(centroids[0] - centroids[1]) / np.linalg.norm(region.shape))


def boundary_distance(heatmap: Array, region: Array) -> float:
    """mean distance from the borders of H and R to the other / diagonal.   Taha and Hanbury 2015, BMC 15:29.

    It is the average symmetric surface distance; unlike the Hausdorff distance one stray pixel does not decide it. H
    are the |R| highest pixels of the map, R is the region. A pixel of the border has a neighbour outside, or lies at
    the edge of the image. Equal values come in a fixed random order.

    Args:
        heatmap: (*space).
        region: (*space) bool, R.
    """
    ours, theirs = (np.argwhere(_border(pixels)) for pixels in (_highest(heatmap, region), region))
    distances = np.concatenate([_to_nearest(ours, theirs), _to_nearest(theirs, ours)])
    return float(distances.mean() / np.linalg.norm(region.shape))


def _highest(heatmap: Array, region: Array) -> Array:
    return np.asarray(ranks_of_removal(heatmap) < np.count_nonzero(region))


def _border(pixels: Array) -> Array:
    """Return the pixels of a set with a neighbour along an axis that is not in the set."""
    padded = np.pad(pixels, 1)
    inner = np.ones(pixels.shape, bool)
    for axis in range(pixels.ndim):
        for start in (0, 2):
            window = [slice(1, -1)] * pixels.ndim
            window[axis] = slice(start, start + pixels.shape[axis])
            inner &= padded[tuple(window)]
    return np.asarray(pixels & ~inner)


def _to_nearest(points: Array, others: Array) -> Array:
    """Return for each of the points (n, d) the distance to the nearest of the others (m, d)."""
    step = max(1, PAIRS // len(others))
    squares = [
        ((points[start : start + step, None] - others[None]) ** 2).sum(axis=2).min(axis=1)
        for start in range(0, len(points), step)
    ]
    return np.asarray(np.sqrt(np.concatenate(squares)))
