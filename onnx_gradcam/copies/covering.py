"""Cover the parts of an image one after the other, and tell what that does to its score."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnx_gradcam.copies.scores import Array, Scoring, scores_of

Place = tuple[slice, ...]

PATCHES = 14  # along the longest side
OVERLAP = 2  # patches cover each pixel so many times along each axis, but at the edges


@dataclass(frozen=True, eq=False)
class Occluded:
    """The change of a score when each patch of an image is covered; it serves every map of that score.

    Attributes:
        places: the patches, each as one slice for each axis.
        drops: y(x) − y(x without the patch), (patches,) float64; (patches, R) for R targets.
    """

    places: Sequence[Place]
    drops: Array


def occlude(x: Array, score: Scoring, baseline: Array, places: Sequence[Place] | None = None) -> Occluded:
    """Return what covering one patch of an image after the other does to its score.

    Args:
        x: (C, *space).
        score: the scoring function.
        baseline: (C, *space), what a covered pixel becomes, such as ``mean_colour(x)``.
        places: the patches; None: ``patches`` of the image.
    """
    covered_places = patches(x.shape[1:]) if places is None else places
    scores = scores_of(score, itertools.chain([x], covered(x, baseline, covered_places)))
    return Occluded(covered_places, scores[0] - scores[1:])


def covered(x: Array, baseline: Array, places: Iterable[Place]) -> Iterator[Array]:
    """Yield the image (C, *space) without each of the patches."""
    for place in places:
        copy = x.copy()
        copy[:, *place] = baseline[:, *place]
        yield copy


def patches(space: Sequence[int]) -> list[Place]:
    """Return the patches that cover an image one after the other, each as one slice for each axis.

    There are 14 along the longest side, each twice as long as their distance, so they overlap by half; the shorter
    sides get as many as fit at the same distance, and every pixel is covered.
    """
    stride = usual_stride(space)
    return _places(space, [range(0, n, stride) for n in space], [OVERLAP * stride] * len(space))


def usual_stride(space: Sequence[int]) -> int:
    """Return the distance of the patches that ``patches`` returns."""
    return max(1, round(max(space) / PATCHES))


def windows(space: Sequence[int], sides: Sequence[int], strides: Sequence[int]) -> list[Place]:
    """Return windows at equal distances, as few as cover every pixel; the last along an axis is cut at the edge.

    Args:
        space: the extents of the image.
        sides: how long a window is along each axis, at least 1.
        strides: the distance of two windows along each axis, at least 1.
    """
    starts = [range(0, max(n - side, 0) + step, step) for n, side, step in zip(space, sides, strides, strict=True)]
    return _places(space, starts, sides)


def _places(space: Sequence[int], starts: Sequence[range], sides: Sequence[int]) -> list[Place]:
    """Return the product of the stretches along each axis, each cut at the edge."""
    axes = zip(space, starts, sides, strict=True)
    return list(itertools.product(*([slice(k, min(k + side, n)) for k in first] for n, first, side in axes)))
