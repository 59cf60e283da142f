"""What the score loses where a window of the image is covered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.covering import OVERLAP, Occluded, Place, covered, patches, usual_stride, windows
from onnx_gradcam.copies.scores import Array, scores_of
from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.perturbation.options import whole_number
from onnx_gradcam.methods.perturbation.records import PerturbedMaps, Run

Side = int | Sequence[int]
"""One number of pixels, or one for each axis."""


def occlusion(
    x: Array,
    scores: Array,
    run: Run,
    *,
    window: Side = 0,
    stride: Side = 0,
    baseline: Baseline = "mean",
) -> PerturbedMaps:
    """mean over the windows P over a pixel of y(x) − y(x without P).   Zeiler & Fergus 2014, arXiv:1311.2901.

    ``window``: the side of a window in pixels, or one for each axis (``--option window=32,16``); ``stride``: the
    distance of two windows. 0 for both: 14 windows along the longest side, each twice as long as their distance; 0 for
    one of them: half the window, or twice the stride. ``baseline``, what a covered pixel becomes: "mean", the mean
    colour of the image; "blur", the image blurred so far that no object can be told; or a number, in the units of the
    model's input.

    Args:
        x: (C, *space).
        scores: y(x) for each of K targets, (K,).
        run: gives the scores of copies.
        window: see above.
        stride: see above; at most the window, so that every pixel is covered.
        baseline: see above.

    Raises:
        MethodError: an option is out of its range.
    """
    windows_of_x = places(x.shape[1:], window, stride)
    without = scores_of(run, covered(x, baseline_of(x, baseline), windows_of_x))
    return PerturbedMaps(mean_drop(x.shape[1:], Occluded(windows_of_x, scores - without)))


def each_window(shape: Sequence[int], *, window: Side, stride: Side, **_: Any) -> int:
    """Return how many windows an image of the shape (C, *space) has."""
    return len(places(shape[1:], window, stride))


def places(space: Sequence[int], window: Side, stride: Side) -> list[Place]:
    """Return the windows of an image, each as one slice for each axis.

    Raises:
        MethodError: a side or a distance is out of its range, or a window covers the whole image.
    """
    sides = [whole_number("window", side) for side in _each("window", window, space)]
    steps = [whole_number("stride", step) for step in _each("stride", stride, space)]
    if not any(sides) and not any(steps):
        return patches(space)
    usual = usual_stride(space)
    steps = [
        step or max(1, side // OVERLAP) if side else step or usual for side, step in zip(sides, steps, strict=True)
    ]
    sides = [side or OVERLAP * step for side, step in zip(sides, steps, strict=True)]
    if any(step > side for side, step in zip(sides, steps, strict=True)):
        raise MethodError(
            f"windows of {sides} pixels at a distance of {steps} leave pixels between them",
            hint="a stride that is at most the window",
            option="stride",
        )
    if max(space) > 1 and all(side >= n for side, n in zip(sides, space, strict=True)):
        raise MethodError(
            f"a window of {sides} pixels covers all of an image of {tuple(space)}: its drop tells no place",
            hint=f"a window below {max(space)}",
            option="window",
        )
    return windows(space, [min(side, n) for side, n in zip(sides, space, strict=True)], steps)


def _each(name: str, value: Side, space: Sequence[int]) -> list[Any]:
    """Return one number for each axis."""
    numbers: list[Any] = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * len(space)
    if len(numbers) != len(space):
        raise MethodError(
            f"option {name!r} has {len(numbers)} numbers for {len(space)} axes of space {tuple(space)}",
            hint="one number, or one for each axis",
            option=name,
        )
    return numbers


def mean_drop(space: Sequence[int], occluded: Occluded) -> Array:
    """Return for each pixel the mean drop of the windows over it, (R, *space) float64; (*space) for a single score."""
    total = np.zeros((*occluded.drops.shape[1:], *space))
    count = np.zeros(space)
    whole = (slice(None),) * (occluded.drops.ndim - 1)
    for place, drop in zip(occluded.places, occluded.drops, strict=True):
        total[(*whole, *place)] += np.reshape(drop, (*np.shape(drop), *[1] * len(space)))
        count[place] += 1
    return np.asarray(total / count)
