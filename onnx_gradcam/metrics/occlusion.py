"""Does the map agree with what the score does when a patch of the image is covered?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from onnx_gradcam.metrics.copies import Array, Scoring, scores_of

Place = tuple[slice, ...]

PATCHES = 14  # along the longest side
OVERLAP = 2  # patches cover each pixel so many times along each axis, but at the edges


def occlusion(x: Array, score: Scoring, baseline: Array) -> Array:
    """mean over the patches P over a pixel of y(x) − y(x without P).   Zeiler & Fergus 2014, arXiv:1311.2901.

    Args:
        x: (C, *space).
        score: the scoring function.
        baseline: (C, *space), what a covered pixel becomes.

    Returns:
        (*space) float64, in units of the score.
    """
    total, count = np.zeros((2, *x.shape[1:]))
    places = patches(x.shape[1:])
    for place, drop in zip(places, occlusion_drops(x, score, baseline, places), strict=True):
        total[place] += drop
        count[place] += 1
    return np.asarray(total / count)


def occlusion_drops(x: Array, score: Scoring, baseline: Array, places: Sequence[Place]) -> Array:
    """Return y(x) − y(x without the patch) for each patch, (patches,) float64."""
    scores = scores_of(score, _covered(x, baseline, places))
    return np.asarray(scores[0] - scores[1:])


def _covered(x: Array, baseline: Array, places: Sequence[Place]) -> Iterator[Array]:
    """Yield the image as it is, and then without each of the patches."""
    yield x
    for place in places:
        copy = x.copy()
        copy[:, *place] = baseline[:, *place]
        yield copy


def patches(space: Sequence[int]) -> list[Place]:
    """Return the patches that cover an image one after the other, each as one slice for each axis.

    There are 14 along the longest side, each twice as long as their distance, so they overlap by half; the shorter
    sides get as many as fit at the same distance, and every pixel is covered.
    """
    stride = max(1, round(max(space) / PATCHES))
    lines = [[slice(k, min(k + OVERLAP * stride, n)) for k in range(0, n, stride)] for n in space]
    return list(itertools.product(*lines))


def occlusion_correlation(x: Array, heatmap: Array, score: Scoring, baseline: Array) -> float:
    """Spearman's ρ of mean_P map and y(x) − y(x without P) over patches P.   Selvaraju et al. 2017, sec. 5.3.

    1: the map ranks the patches as covering them does; 0: their ranks have nothing to do with each other.

    Args:
        x: (C, *space).
        heatmap: (*space).
        score: the scoring function.
        baseline: (C, *space), what a covered pixel becomes.
    """
    places = patches(x.shape[1:])
    means = np.array([heatmap[place].mean(dtype=np.float64) for place in places])
    return rank_correlation(means, occlusion_drops(x, score, baseline, places))


def rank_correlation(a: Array, b: Array) -> float:
    """ρ = Pearson's r of the ranks of a and b; equal values share the mean of their ranks.   Spearman 1904.

    Values that are all the same correlate with nothing: 0.
    """
    first, second = (ranks(np.asarray(values, np.float64).ravel()) for values in (a, b))
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size else 0.0


def ranks(values: Array) -> Array:
    """Return the rank of each value, from 0; equal values share the mean of their ranks: (n,) float64."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[places.ravel()], np.float64)
