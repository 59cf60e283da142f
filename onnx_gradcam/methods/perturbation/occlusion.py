"""What the score loses where a window of the image is covered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.covering import OVERLAP, Occluded, occlude, patches, usual_stride, windows
from onnx_gradcam.copies.scores import Array, Scoring
from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.perturbation.options import whole_number

Place = tuple[slice, ...]


def occlusion(
    x: Array,
    scores: Scoring,
    *,
    window: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 0,
    baseline: Baseline = "mean",
) -> Array:
    """mean over the windows P over a pixel of y(x) − y(x without P).   Zeiler & Fergus 2014, arXiv:1311.2901.

    ``window``: the side of a window in pixels, or one for each axis; ``stride``: the distance of two windows. 0 for
    both: 14 windows along the longest side, each twice as long as their distance; 0 for one of them: half the window,
    or twice the stride. ``baseline``, what a covered pixel becomes: "mean", the mean colour of the image; "blur", the
    image blurred so far that no object can be told; or a number, in the units of the model's input.

    Args:
        x: (C, *space).
        scores: the scoring function of R targets.
        window: see above.
        stride: see above; at most the window, so that every pixel is covered.
        baseline: see above.

    Returns:
        (R, *space) float64, in units of the score.

    Raises:
        MethodError: an option is out of its range.
    """
    return mean_drop(x.shape[1:], occlude(x, scores, baseline_of(x, baseline), places(x.shape[1:], window, stride)))


def places(space: Sequence[int], window: int | Sequence[int], stride: int | Sequence[int]) -> list[Place]:
    """Return the windows of an image, each as one slice for each axis.

    Raises:
        MethodError: a side or a distance is out of its range.
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
    return windows(space, [min(side, n) for side, n in zip(sides, space, strict=True)], steps)


def _each(name: str, value: int | Sequence[int], space: Sequence[int]) -> list[Any]:
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
