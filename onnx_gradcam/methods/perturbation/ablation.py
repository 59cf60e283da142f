"""Ablation-CAM: the weight of a channel is what the score loses without it."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.methods.perturbation.options import whole_number
from onnx_gradcam.methods.perturbation.records import Array, PerturbedMaps, Run

RELATIVE, ABSOLUTE = DROPS = ("relative", "absolute")
"""What a drop is measured in: shares of the score, or its own units."""


def ablation_cam(activation: Array, scores: Array, run: Run, *, drop: str = RELATIVE, batch: int = 32) -> PerturbedMaps:
    """cam = relu(Σ_k w_k A_k), w_k = (y − y without A_k) / |y|.   Desai & Ramaswamy 2020, WACV, eq. 4.

    "Without" is A_k = 0 at every position. The paper divides by y, as pytorch-grad-cam does: the same where y > 0, but
    where y < 0 it turns the map around. Where y is 0 the drop is not divided. Where A has no 0, pytorch-grad-cam leaves
    A_k out by a number far below all others.

    ``drop``: "relative", as above, or "absolute", not divided by |y|. The maps differ in their scale alone. Absolute
    ones compare at one scale (``--both``, ``--true``): a difference of two scores is small, and divided by it a drop
    is large.

    ``batch``: how many channels are left out in one run of the layers behind A, each in a copy of its own.

    Args:
        activation: A of one image, (C, *space).
        scores: y for each of K targets, (K,).
        run: gives the scores of copies of A.
        drop: one of ``DROPS``.
        batch: at least 1.
    """
    channels, size = len(activation), whole_number("batch", batch, 1)
    copies = np.repeat(activation[None], min(size, channels), axis=0)
    without = np.empty((channels, len(scores)))
    for start in range(0, channels, size):
        numbers = np.arange(start, min(start + size, channels))
        rows = np.arange(len(numbers))
        copies[rows, numbers] = 0
        without[numbers] = run(copies[: len(numbers)])
        copies[rows, numbers] = activation[numbers]
    drops = scores - without
    if drop == RELATIVE:
        drops /= np.where(scores == 0, 1, np.abs(scores))
    weights = drops.T.astype(np.float32)
    maps = np.tensordot(weights, activation, axes=1)
    return PerturbedMaps(maps, weights.reshape(*weights.shape, *[1] * (activation.ndim - 1)))
