"""Does the map stay when the image hardly changes, and change when the model or the class does?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_gradcam.copies.scores import Array
from onnx_gradcam.metrics.alike import rank_correlation
from onnx_gradcam.metrics.keeping import Explaining

RADIUS = 0.02  # of the range of the image: about 5 of 255 levels
SAMPLES = 10


def max_sensitivity(x: Array, heatmap: Array, explain: Explaining, *, seed: int = 0) -> float:
    """max over δ of ‖map(x + δ) − map(x)‖₂ / ‖map(x)‖₂.   Yeh et al. 2019, arXiv:1901.09392, def. 3.1.

    10 random δ, each value at most 2 % of the range of x. NaN for a blank map.

    Args:
        x: (C, *space).
        heatmap: (*space), the map on x.
        explain: gives the map of the same target on other images.
        seed: what δ is drawn from.
    """
    length = np.linalg.norm(np.asarray(heatmap, np.float64))
    if not length:
        return float("nan")
    noise = np.random.default_rng(seed).uniform(-1, 1, (SAMPLES, *x.shape)) * RADIUS * (x.max() - x.min())
    maps = explain((x + noise).astype(x.dtype))
    return float(max(np.linalg.norm(np.asarray(m, np.float64) - heatmap) for m in maps) / length)


def fgsm_stability(x: Array, heatmap: Array, gradient: Callable[[Array], Array], explain: Explaining) -> float:
    """Spearman's ρ of map(x) and map(x − ε sign ∂y/∂x).   Goodfellow et al. 2015, arXiv:1412.6572, eq. 1.

    ε is 2 % of the range of x. 1: the attack on the class leaves its map in the same order.

    Args:
        x: (C, *space).
        heatmap: (*space), the map on x.
        gradient: from copies of x to ∂score/∂x, (copies, C, *space).
        explain: gives the map of the same target on other images.
    """
    attacked = x - RADIUS * (x.max() - x.min()) * np.sign(gradient(x[None])[0])
    return rank_correlation(heatmap, explain(attacked[None].astype(x.dtype))[0])


def cascading_randomisation(heatmap: Array, randomised_from_top: Array) -> float:
    """mean_k of Spearman's ρ(map, map with the k last layers random).   Adebayo et al. 2018, arXiv:1810.03292, sec. 3.

    Near 0 for a map that depends on what the model has learnt; 1 for one that does not.

    Args:
        heatmap: (*space).
        randomised_from_top: (steps, *space), the maps while layer after layer loses its weights, the last layer first.
    """
    return float(np.mean([rank_correlation(heatmap, other) for other in randomised_from_top]))


def independent_randomisation(heatmap: Array, randomised_alone: Array) -> float:
    """mean_k of Spearman's ρ(map, map with layer k alone random).   Adebayo et al. 2018, arXiv:1810.03292, sec. 3.

    Args:
        heatmap: (*space).
        randomised_alone: (layers, *space), the maps while one layer has lost its weights and the others have theirs.
    """
    return float(np.mean([rank_correlation(heatmap, other) for other in randomised_alone]))


def random_class(heatmap: Array, map_of_random_class: Array) -> float:
    """Spearman's ρ of the map and that of a class drawn at random.   Sixt et al. 2020, arXiv:1912.09818, sec. 4.

    Near 0 for a map that depends on the class; 1 for one that does not.

    Args:
        heatmap: (*space).
        map_of_random_class: (*space), on the same image.
    """
    return rank_correlation(heatmap, map_of_random_class)
