"""Whether a map shows more than the place of the cell that it explains.

What the last convolution before a cell reads is a few places about that cell, whatever the weights: a map of these
alone shows where the cell is, and not what the model looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.dense.mixing import last_kernel
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.explain.network import Network
from onnx_gradcam.graph.flow import beginnings, downstream
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def within_last_kernel(network: Network, layers: Sequence[LayerResult]) -> Array:
    """Return (R,) bool, whether the map of each row has no larger support than the last kernel before a cell.

    Args:
        network: the model, on the branch that is explained.
        layers: the results at the target layers.
    """
    dense, of_rows = network.score.dense, len(layers[0].cam)
    if dense is None:
        return np.zeros(of_rows, np.bool_)
    graph, count = network.prepared.graph, layers[0].cam.ndim - 1
    nodes = list(graph)
    of_image = downstream(nodes, beginnings(nodes, [v for v in graph.inputs if v.name == network.image_input.name]))
    ends = [sources(each.origin()) for each in dense.branch(network.branch)]
    kernel = np.max([last_kernel(nodes, sinks, of_image, count) for sinks in ends], axis=0)
    supports = np.stack([_support(layer) for layer in layers])  # (layers, R, n)
    return np.asarray((supports <= kernel).all(axis=(0, 2)) & supports.any(axis=(0, 2)))


def _support(layer: LayerResult) -> Array:
    """Return (R, n), over how many places each map reaches along each axis: those with a gradient.

    It is all of the map where weights are the same at all places, or are none.
    """
    rows_of, space = layer.cam.shape[0], layer.cam.shape[1:]
    if layer.gradient is None or layer.weights is None or set(layer.weights.shape[2:]) == {1}:
        return np.tile(np.array(space, np.int64), (rows_of, 1))
    somewhere = np.asarray(np.abs(layer.gradient).max(axis=1) != 0)
    return np.stack([_extent(somewhere, axis) for axis in range(len(space))], axis=1)


def _extent(somewhere: Array, axis: int) -> Array:
    """Return (R,), how many places lie between the first and the last one along an axis of (R, *space)."""
    others = tuple(k for k in range(1, somewhere.ndim) if k != axis + 1)
    line: Array = np.asarray(somewhere.any(axis=others))
    first, last = line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)
    return np.asarray(np.where(line.any(axis=1), last - first, 0))
