"""The order in which a map's pixels are removed."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.scores import Array


def ranks_of_removal(heatmap: Array, seed: int = 0) -> Array:
    """Return for each pixel its place in the order from the highest value down, 0 first, (*space) int.

    Pixels of equal value come in an order that is drawn from ``seed``, so a map that is the same everywhere removes
    pixels at random, and equal maps always remove the same ones.
    """
    flat = np.asarray(heatmap, np.float64).ravel()
    shuffled = np.random.default_rng(seed).permutation(flat.size)
    order = shuffled[np.argsort(-flat[shuffled], kind="stable")]
    ranks = np.empty(flat.size, np.int64)
    ranks[order] = np.arange(flat.size)
    return ranks.reshape(np.shape(heatmap))
