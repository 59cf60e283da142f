"""Does the score stay when only what the map shows is kept?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_gradcam.copies.scores import Array, Scoring
from onnx_gradcam.metrics.alike import correlation

Explaining = Callable[[Array], Array]
"""From copies of an image, (copies, C, *space), to the map of the same target on each, (copies, *space)."""


def kept(x: Array, heatmap: Array, baseline: Array) -> Array:
    """Return baseline + map · (x − baseline), the map held within 0 … 1: (C, *space) of the dtype of x."""
    return np.asarray(baseline + np.clip(heatmap, 0, 1) * (x - baseline), x.dtype)


def average_drop(x: Array, heatmap: Array, probability: Scoring, baseline: Array) -> float:
    """max(0, p(x) − p(x · map)) / p(x).   Chattopadhay et al. 2018, arXiv:1710.11063, sec. 4.1.

    NaN where p(x) is not above 0, as a score may be that is no probability.

    Args:
        x: (C, *space).
        heatmap: (*space), from 0 to 1.
        probability: the scoring function.
        baseline: (C, *space), what is left of a pixel where the map is 0.
    """
    before, after = probability(np.stack([x, kept(x, heatmap, baseline)])).astype(np.float64)
    return float(max(0.0, before - after) / before) if before > 0 else float("nan")


def confidence_increase(x: Array, heatmap: Array, probability: Scoring, baseline: Array) -> float:
    """1 if p(x · map) > p(x), else 0.   Chattopadhay et al. 2018, arXiv:1710.11063, sec. 4.1.

    Args:
        x: (C, *space).
        heatmap: (*space), from 0 to 1.
        probability: the scoring function.
        baseline: (C, *space), what is left of a pixel where the map is 0.
    """
    before, after = probability(np.stack([x, kept(x, heatmap, baseline)]))
    return float(after > before)


def adcc(x: Array, heatmap: Array, probability: Scoring, baseline: Array, explain: Explaining) -> float:
    """3 / (1 / coherency + 1 / (1 − mean map) + 1 / (1 − average drop)).   Poppi et al. 2021, arXiv:2104.10252, eq. 5.

    Coherency is (1 + r) / 2, r the correlation of the map and of the map of what it keeps. 0 where one of the three
    is 0, NaN where the average drop is.

    Args:
        x: (C, *space).
        heatmap: (*space), from 0 to 1.
        probability: the scoring function.
        baseline: (C, *space), what is left of a pixel where the map is 0.
        explain: gives the map of the same target on other images.
    """
    again = explain(kept(x, heatmap, baseline)[None])[0]
    coherency = (1 + correlation(heatmap, again)) / 2
    simplicity = 1 - float(np.mean(np.clip(heatmap, 0, 1), dtype=np.float64))
    parts = coherency, simplicity, 1 - average_drop(x, heatmap, probability, baseline)
    if np.isnan(parts).any():
        return float("nan")
    return 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0
