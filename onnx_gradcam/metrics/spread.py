"""Does the map show few things, or a little of everything?"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.scores import Array


def sparseness(heatmap: Array) -> float:
    """Gini's index Σ_k (2k − n − 1) |map|_(k) / (n Σ |map|), (k) sorted.   Chalasani et al. 2020, arXiv:1810.06583.

    0 for a map that is the same everywhere, near 1 for a single pixel; NaN for a blank map.

    Args:
        heatmap: (*space).
    """
    values = np.sort(np.abs(np.asarray(heatmap, np.float64)).ravel())
    total = values.sum()
    if not total:
        return float("nan")
    return float((2 * np.arange(1, values.size + 1) - values.size - 1) @ values / (values.size * total))


def complexity(heatmap: Array) -> float:
    """−Σ q ln q, q = |map| / Σ |map|.   Bhatt et al. 2020, arXiv:2005.00631, def. 4.

    0 for a single pixel, ln n for a map that is the same everywhere; NaN for a blank map.

    Args:
        heatmap: (*space).
    """
    values = np.abs(np.asarray(heatmap, np.float64)).ravel()
    shares = values[values > 0] / values.sum() if values.any() else values
    return float(-(shares * np.log(shares)).sum()) if values.any() else float("nan")
