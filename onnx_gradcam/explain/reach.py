"""Whether a map shows more than the place of the cell that it explains.

What the last convolution before a cell reads is a few places about that cell, whatever the weights: a map of these
alone shows where the cell is, and not what the model looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.explain.network import Network
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def within_last_kernel(network: Network, layers: Sequence[LayerResult]) -> Array:
    """Return (R,) bool, whether the map of each row has no larger support than the last kernel before a cell.

    Args:
        network: the model, on the branch that is explained.
        layers: the results at the target layers.
    """
    kernels = network.last_kernels
    if not kernels:
        return np.zeros(len(layers[0].cam), np.bool_)
    supports = [_support(layer) for layer in layers]
    within = [(own <= kernel).all(axis=1) for own, kernel in zip(supports, kernels, strict=True)]
    return np.asarray(np.all(within, axis=0) & np.any([own.any(axis=1) for own in supports], axis=0))


def _support(layer: LayerResult) -> Array:
    """Return (R, n), over how many places each map reaches along each axis: those with a gradient.

    There is no end to it where weights are the same at all places, or are none.
    """
    rows, axes = layer.cam.shape[0], layer.cam.ndim - 1
    if layer.gradient is None or layer.weights is None or set(layer.weights.shape[2:]) == {1}:
        return np.full((rows, axes), np.iinfo(np.int64).max)
    somewhere = np.asarray(np.abs(layer.gradient).max(axis=1) != 0)
    return np.stack([_extent(somewhere, axis) for axis in range(axes)], axis=1)


def _extent(somewhere: Array, axis: int) -> Array:
    """Return (R,), how many places lie between the first and the last one along an axis of (R, *space)."""
    others = tuple(k for k in range(1, somewhere.ndim) if k != axis + 1)
    line: Array = np.asarray(somewhere.any(axis=others))
    first, last = line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)
    return np.asarray(np.where(line.any(axis=1), last - first, 0))
