"""Does the map agree with what the score does when a patch of the image is covered?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.covering import Occluded
from onnx_gradcam.copies.scores import Array
from onnx_gradcam.metrics.alike import rank_correlation


def occlusion_correlation(heatmap: Array, occluded: Occluded) -> float:
    """Spearman's ρ of mean_P map and y(x) − y(x without P) over patches P.   Selvaraju et al. 2017, sec. 5.3.

    1: the map ranks the patches as covering them does; 0: their ranks have nothing to do with each other.

    Args:
        heatmap: (*space).
        occluded: what ``occlude`` returned for the image.
    """
    means = np.array([heatmap[place].mean(dtype=np.float64) for place in occluded.places])
    return rank_correlation(means, occluded.drops)


def infidelity(heatmap: Array, occluded: Occluded) -> float:
    """min_β mean_P (β Σ_P map − Δ_P)² / mean_P Δ_P², Δ_P = y(x) − y(x without P).   Yeh et al. 2019, arXiv:1901.09392.

    Their definition 2.1, where covering a patch P is the perturbation. β is the best scale of the map, so that maps of
    any unit compare; divided by the mean square of the drops: 0 is a map that tells every drop, 1 one that tells
    nothing. NaN where nothing drops.

    Args:
        heatmap: (*space).
        occluded: what ``occlude`` returned for the image.
    """
    told = np.array([heatmap[place].sum(dtype=np.float64) for place in occluded.places])
    drops, square = occluded.drops, told @ told
    if not drops.any():
        return float("nan")
    beta = told @ drops / square if square else 0.0
    return float(np.square(beta * told - drops).mean() / np.square(drops).mean())
