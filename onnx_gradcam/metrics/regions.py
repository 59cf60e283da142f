"""Does the map lie where the object lies?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.scores import Array
from onnx_gradcam.metrics.order import ranks_of_removal

THRESHOLD = 0.15  # of the map's maximum
OVERLAPPING = 0.5  # a box with this IoU is right


def energy_inside(heatmap: Array, region: Array) -> float:
    """Σ_region relu(map) / Σ relu(map).   Wang et al. 2020, arXiv:1910.01279, sec. 4.3.

    A map that is the same everywhere has the share of the region's area; a map without positive values has 0.

    Args:
        heatmap: (*space).
        region: (*space) bool, the pixels of the box or of the mask.
    """
    evidence = np.maximum(np.asarray(heatmap, np.float64), 0)
    total = evidence.sum()
    return float(evidence[region].sum() / total) if total else 0.0


def pointing_game(heatmap: Array, region: Array) -> float:
    """1 if the map's maximum lies in the region, else 0.   Zhang et al. 2018, arXiv:1608.00507, without tolerance.

    Of several equal maxima it is the share that lies in the region. So a map that is the same everywhere has the share
    of the region's area: the chance of a point drawn at random. A map without positive values points nowhere: 0.

    Args:
        heatmap: (*space).
        region: (*space) bool, the pixels of the box or of the mask.
    """
    highest = np.max(heatmap)
    return float(region[heatmap == highest].mean()) if highest > 0 else 0.0


def region_iou(heatmap: Array, region: Array) -> float:
    """|H ∩ R| / |H ∪ R|, H the |R| highest pixels of the map, R the region.   Arras et al. 2022, arXiv:2003.07258.

    The paper's relevance rank accuracy a is |H ∩ R| / |R|; this is a / (2 − a). There is no threshold to
    choose. Equal values come in a fixed random order.

    Args:
        heatmap: (*space).
        region: (*space) bool.
    """
    size = np.count_nonzero(region)
    both = np.count_nonzero((ranks_of_removal(heatmap) < size) & region)
    return both / (2 * size - both)


def discrimination(heatmap: Array, region: Array, maps_of_others: Array) -> float:
    """share of the other objects whose map has less energy in this region.   After Selvaraju et al. 2017, sec. 5.1.

    The paper asks people which object a map shows; here the maps of the objects are compared. For images with
    objects of several classes. Where two maps have an equal share, the object counts half: ½ is chance.

    Args:
        heatmap: (*space), the map of this object's class.
        region: (*space) bool, this object.
        maps_of_others: (others, *space), the maps of the classes of the other objects on the image.
    """
    own = energy_inside(heatmap, region)
    others = np.array([energy_inside(other, region) for other in maps_of_others])
    return float(((others < own) + (others == own) / 2).mean())


def localisation_error(heatmap: Array, boxes: Array) -> float:
    """1 if the IoU of the map's box and every object's is below 0.5, else 0.   Selvaraju et al. 2017, sec. 4.1.

    The map's box is that around the largest part that hangs together of its pixels with 15 % of its maximum or more.

    Args:
        heatmap: (H, W), the map of the object's class.
        boxes: (K, 4) float, x1, y1, x2, y2 in pixels of the map; x2 and y2 are exclusive.
    """
    return _misses(heatmap, boxes, THRESHOLD)


def localisation_error_30(heatmap: Array, boxes: Array) -> float:
    """The same as ``localisation-error`` at 30 % of the maximum.   After Selvaraju et al. 2017, sec. 4.1.

    Args:
        heatmap: (H, W), the map of the object's class.
        boxes: as in ``localisation_error``.
    """
    return _misses(heatmap, boxes, 0.3)


def localisation_error_50(heatmap: Array, boxes: Array) -> float:
    """The same as ``localisation-error`` at 50 % of the maximum.   After Selvaraju et al. 2017, sec. 4.1.

    Args:
        heatmap: (H, W), the map of the object's class.
        boxes: as in ``localisation_error``.
    """
    return _misses(heatmap, boxes, 0.5)


def _misses(heatmap: Array, boxes: Array, threshold: float) -> float:
    """Return 1 if the box of the map overlaps with no object's by half, else 0.

    Args:
        heatmap: (H, W).
        boxes: as in ``localisation_error``.
        threshold: the share of the maximum from which on pixels count.
    """
    highest = np.max(heatmap)
    if highest <= 0:
        return 1.0
    rows, columns = np.nonzero(largest_part(heatmap >= threshold * highest))
    own = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return float(max(box_iou(own, box) for box in boxes) < OVERLAPPING)


def top1_localisation_error(heatmap: Array, boxes: Array, rank: int) -> float:
    """1 if the first prediction is wrong or its box is, else 0.   Selvaraju et al. 2017, sec. 4.1.

    Args:
        heatmap: (H, W), the map of the true class.
        boxes: as in ``localisation_error``.
        rank: how many classes the model puts before the true one.
    """
    return localisation_error(heatmap, boxes) if rank < 1 else 1.0


def top5_localisation_error(heatmap: Array, boxes: Array, rank: int) -> float:
    """1 if none of five predictions is right with its box, else 0.   Selvaraju et al. 2017, sec. 4.1.

    Args:
        heatmap: (H, W), the map of the true class.
        boxes: as in ``localisation_error``.
        rank: how many classes the model puts before the true one.
    """
    return localisation_error(heatmap, boxes) if rank < 5 else 1.0


def box_iou(a: Array, b: Array) -> float:
    """Return the area that two boxes x1, y1, x2, y2 share, divided by the area that they cover together."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0))
    covered = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return float(shared / covered) if covered else 0.0


def largest_part(mask: Array) -> Array:
    """Return the largest part of a mask that hangs together, corners included; of equal ones the first, by rows.

    Args:
        mask: (H, W) bool, not empty.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), ends = np.nonzero(edges == 1), np.nonzero(edges == -1)[1]  # runs of pixels, row by row
    first_of_row = np.searchsorted(rows, np.arange(len(mask)))
    parents = np.arange(len(rows))
    for run in np.flatnonzero(rows > 0):
        above = slice(first_of_row[rows[run] - 1], first_of_row[rows[run]])
        begin = above.start + np.searchsorted(ends[above], starts[run])
        end = above.start + np.searchsorted(starts[above], ends[run], side="right")
        for touching in range(begin, end):
            one, other = sorted((_root(parents, touching), _root(parents, int(run))))
            parents[other] = one
    roots = np.array([_root(parents, run) for run in range(len(rows))])
    largest = np.bincount(roots, weights=ends - starts).argmax()
    out = np.zeros(mask.shape, bool)
    for run in np.flatnonzero(roots == largest):
        out[rows[run], starts[run] : ends[run]] = True
    return out


def _root(parents: Array, run: int) -> int:
    """Return the first run of the part to which a run belongs, as far as it is known."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = int(parents[run])
    return run
