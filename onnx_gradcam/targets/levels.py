"""A class over all levels of a detector: the mean of its logits over the cells that detect it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget, one_row
from onnx_gradcam.targets.detected import Detections, read_detections
from onnx_gradcam.targets.kinds import CELL


def over_all_levels(context: Context, pick: Callable[[ForwardPass, int], int]) -> BoundTarget:
    """Return the target that explains a class over all cells in which it is detected, whatever level they are of.

    Where none is, it is explained over the most probable cell of each level.

    Args:
        context: the model, with the probability from which on something is detected.
        pick: ``pick(forward, image)`` returns the class.
    """

    def row(forward: ForwardPass, image: int) -> RowTarget:
        index, seen = pick(forward, image), read_detections(context, forward, image)
        probability = seen.probability[index]
        mask = _cells(seen, probability, context.threshold)
        levels = len({seen.level(int(cell)) for cell in np.flatnonzero(mask)})
        title = f"{context.label(index)}, {int(mask.sum())} cells on {levels} of {len(seen.level_ends)} levels"
        weights = mask.astype(np.float32) / np.float32(mask.sum())
        return RowTarget(CELL, index, {"mask": weights}, str(index), title, probability=float(probability.max()))

    return one_row(CELL, row)


def _cells(seen: Detections, probability: Array, least: float) -> Array:
    """Return (P,) bool, the cells over which a class is explained."""
    detected = np.asarray(probability >= least)
    if detected.any():
        return detected
    for end, start in zip(seen.level_ends, (0, *seen.level_ends), strict=False):
        detected[start + int(probability[start:end].argmax())] = True
    return detected
