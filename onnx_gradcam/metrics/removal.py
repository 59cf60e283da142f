"""Does the score fall when the map's highest pixels go, and rise when they come?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_gradcam.copies.scores import Array, Scoring, scores_of
from onnx_gradcam.metrics.order import ranks_of_removal

STEPS = 32


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """The score after each step of a removal or an insertion.

    Attributes:
        shares: the share of pixels that was changed, from 0 to 1, (steps + 1,).
        scores: the score at each of them, (steps + 1,).
    """

    shares: Array
    scores: Array

    @property
    def area(self) -> float:
        """Return the area under the curve, by trapezoids."""
        return float((np.diff(self.shares) * (self.scores[1:] + self.scores[:-1]) / 2).sum())


def deletion(x: Array, heatmap: Array, probability: Scoring, baseline: Array, *, steps: int = STEPS) -> ScoreCurve:
    """∫ p(x without its highest share s) ds, s from 0 to 1.   Petsiuk et al. 2018, arXiv:1806.07421, sec. 4.3.

    Pixels go in the order of their values in the map, all channels at once, ``steps`` times the same number; pixels of
    equal value in a fixed random order.

    Args:
        x: (C, *space).
        heatmap: (*space); signed maps count by value, so that negative evidence goes last.
        probability: the scoring function; the paper takes the probability of the class.
        baseline: (C, *space), what a removed pixel becomes, such as ``mean_colour(x)``.
        steps: how many times pixels are removed.
    """
    return _exchange(x, baseline, heatmap, probability, steps)


def insertion(x: Array, heatmap: Array, probability: Scoring, blurred: Array, *, steps: int = STEPS) -> ScoreCurve:
    """∫ p(blurred x with its highest share s) ds, s from 0 to 1.   Petsiuk et al. 2018, arXiv:1806.07421, sec. 4.3.

    Pixels come in the order of their values in the map, as they go in ``deletion``.

    Args:
        x: (C, *space).
        heatmap: (*space).
        probability: the scoring function.
        blurred: (C, *space), the image before any pixel came, such as ``copies.blurred(x)``.
        steps: how many times pixels are inserted.
    """
    return _exchange(blurred, x, heatmap, probability, steps)


def _exchange(before: Array, after: Array, heatmap: Array, score: Scoring, steps: int) -> ScoreCurve:
    """Return the scores while the pixels of one image become those of another, the highest of the map first."""
    counts = np.unique(np.rint(np.linspace(0, heatmap.size, steps + 1)).astype(np.int64))
    ranks = ranks_of_removal(heatmap)
    copies = (np.where(ranks < count, after, before) for count in counts)
    return ScoreCurve(counts / heatmap.size, scores_of(score, copies))
