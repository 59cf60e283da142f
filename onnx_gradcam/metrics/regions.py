"""Does the map lie where the object lies?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.metrics.copies import Array


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
