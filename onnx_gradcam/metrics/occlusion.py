"""Does the map agree with what the score does when a patch of the image is covered?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.metrics.alike import rank_correlation
from onnx_gradcam.metrics.copies import Array, Scoring, scores_of

Place = tuple[slice, ...]

PATCHES = 14  # along the longest side
OVERLAP = 2  # patches cover each pixel so many times along each axis, but at the edges


@dataclass(frozen=True, eq=False)
class Occluded:
    """What covering each patch of an image does to a score; it serves every map of that score.

    Attributes:
        places: the patches, each as one slice for each axis.
        drops: y(x) − y(x without the patch), (patches,) float64.
    """

    places: Sequence[Place]
    drops: Array


def occlude(x: Array, score: Scoring, baseline: Array) -> Occluded:
    """Return what covering one patch of an image after the other does to its score.

    Args:
        x: (C, *space).
        score: the scoring function.
        baseline: (C, *space), what a covered pixel becomes, such as ``mean_colour(x)``.
    """
    places = patches(x.shape[1:])
    scores = scores_of(score, _covered(x, baseline, places))
    return Occluded(places, scores[0] - scores[1:])


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
    occluded = occlude(x, score, baseline)
    for place, drop in zip(occluded.places, occluded.drops, strict=True):
        total[place] += drop
        count[place] += 1
    return np.asarray(total / count)


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
