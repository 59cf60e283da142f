"""Any number of images through a model of any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.constants import constant

NOTHING: Mapping[str, int] = {}
Run = Callable[[Sequence[str], Mapping[str, np.ndarray]], dict[str, Any]]


def batch_size(graph: ir.Graph, name: str) -> int | None:
    """Return how many images the model takes at once through input ``name``: its fixed first dimension, 1 for a graph
    that mixes the images of a batch, None for any number."""
    value = next(v for v in graph.inputs if v.name == name)
    first = value.shape[0] if value.shape else 1
    if isinstance(first, int):
        return first
    return 1 if any(_mixes_images(node) for node in graph) else None


def _mixes_images(node: ir.Node) -> bool:
    """Tell whether a node mixes the images of a batch: by one scale, by statistics, or by a reduction over
    the batch."""
    if node.op_type == "DynamicQuantizeLinear":
        return True
    if node.op_type == "BatchNormalization":
        return node.attributes.get_int("training_mode", 0) == 1
    if node.op_type == "MeanVarianceNormalization":
        return 0 in node.attributes.get_ints("axes", (0, 2, 3))
    x = node.inputs[0] if node.inputs else None
    if not node.op_type.startswith("Reduce") or x is None or x.shape is None or len(x.shape) < 2:
        return False
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return node.attributes.get_int("noop_with_empty_axes", 0) == 0
    axes = constant(node.inputs[1])
    return axes is not None and bool(np.any((axes == 0) | (axes == -len(x.shape))))


def run_in_pieces(
    run: Run,
    names: Sequence[str],
    feeds: Mapping[str, np.ndarray],
    size: int | None,
    along: Mapping[str, int] = NOTHING,
) -> dict[str, Any]:
    """Run a model on all images, at once where ``size`` is None, else in pieces of ``size``; return the results by
    name.

    The number of images is the length of the input with the most axes; inputs of another length go into every run. A
    short last piece is padded by repeating its last image, and the padding dropped.

    Args:
        run: runs the model.
        names: the outputs.
        feeds: arrays by the names of inputs.
        size: how many images the model takes at once; None: any number.
        along: the batch axis of some results, which may hold several entries for each image. Of others it is the first
            axis of the length ``size``; those without one are taken from the first piece.
    """
    count = len(max(feeds.values(), key=np.ndim))
    if size is None or count == size:
        return run(names, feeds)
    pieces = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        results = run(names, {k: v[rows] if np.ndim(v) and len(v) == count else v for k, v in feeds.items()})
        pieces.append(results)
    return {name: _join([piece[name] for piece in pieces], size, count, along.get(name)) for name in names}


def _join(pieces: list[Any], size: int, count: int, axis: int | None) -> Any:
    """Return the pieces of one result behind one another, without the padding at the end."""
    if isinstance(pieces[0], list):
        return [row for piece in pieces for row in piece][:count]
    if axis is None:
        axis = next((k for k, n in enumerate(np.shape(pieces[0])) if n == size), None)
        same = axis != 0 and all(np.array_equal(piece, pieces[0]) for piece in pieces)
        axis = None if same else axis
    if axis is None:
        return pieces[0]
    entries = pieces[0].shape[axis] // size  # for each image
    return np.concatenate(pieces, axis=axis).take(np.arange(count * entries), axis=axis)
