"""The first run decides what shape inference leaves open, and corrects what a model declares of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.tokens import nominal_sizes
from onnx_gradcam.anatomy.vectors import BATCH_AXIS, closing_nodes
from onnx_gradcam.engine.batches import batch_size
from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.rows import rows_of
from onnx_gradcam.engine.session import Session
from onnx_gradcam.errors import InputError, ModelError, OnnxGradcamError, ScoreError, TargetError
from onnx_gradcam.explain.network import Network
from onnx_gradcam.graph.flow import is_float

Arrays = Mapping[str, np.ndarray]
Dims = tuple[int, ...]


def settles(network: Network, feeds: Arrays | None, error: OnnxGradcamError) -> bool:
    """Tell whether ``settle`` changed anything, where an error may come from wrong shapes.

    Without feeds nothing has been run: then it may be that there is no score, or not the class that is explained.
    """
    kinds = (ScoreError, TargetError) if feeds is None else (ScoreError, ModelError, InputError)
    return type(error) in kinds and settle(network, feeds)


def settle(network: Network, feeds: Arrays | None = None) -> bool:
    """Run the model and take the shapes of its outputs as they are; tell whether that changed what was known of them.

    It is done where no score was found, or where a run failed: an ordinary model does not pay for it. It is run for the
    images, for one more, which tells along which axis they lie, and for larger ones where the size is open, which tells
    what depends on it.

    Args:
        network: the network; what it found by the old shapes is forgotten.
        feeds: arrays by the names of the inputs; None: zeros of the declared sizes.

    Raises:
        ScoreError: the score has no axis of the images.
    """
    graph, image = network.prepared.graph, network.image_input.name
    values = {v.name or "": v for output in graph.outputs for v in _with_trail(output)}
    feeds = _zeros(graph) if feeds is None else feeds
    count, size = len(feeds[image]), batch_size(graph, image)
    try:
        session = Session(forward_only(network.prepared, list(values)), network.options)
        first = _shapes(session, values, _images(feeds, image, size or count))
        other = first if size else _shapes(session, values, _images(feeds, image, count + 1))
        larger = _shapes(session, values, _enlarged(graph, image, _images(feeds, image, size or count)))
    except OnnxGradcamError:
        return False  # what is wrong has been said already, by the error that led here
    axes = {name: _batch_axis(first[name], other[name], size or count) for name in values}
    _require_rows(network, first, axes, size or count)
    batch = network.prepared.graph.inputs[[v.name for v in graph.inputs].index(image)].shape
    stays = {k: [n == m for n, m in zip(first[k], larger[k], strict=True)] for k in values}
    changes = [_correct(v, first[k], other[k], axes[k], batch, stays[k]) for k, v in values.items()]
    if any(changes):
        network.forget()
    return any(changes)


def _with_trail(output: ir.Value) -> Sequence[ir.Value]:
    """Return an output and the values before its Softmax, reshapes and casts, where these are floats."""
    before = [node.inputs[0] for node in closing_nodes(output)]
    return [v for v in (output, *before) if v is not None and is_float(v) and v.producer() is not None]


def _zeros(graph: ir.Graph) -> dict[str, np.ndarray]:
    dtypes = {v.name: v.dtype.numpy() for v in graph.inputs if v.dtype is not None}
    return {name: np.zeros(dims, dtypes[name]) for name, dims in nominal_sizes(graph).items()}


def _images(feeds: Arrays, image: str, count: int) -> dict[str, np.ndarray]:
    """Return the feeds with ``count`` images, the last repeated."""
    there = len(feeds[image])
    return {name: rows_of(x, np.minimum(np.arange(count), there - 1), there) for name, x in feeds.items()}


def _enlarged(graph: ir.Graph, image: str, feeds: Arrays) -> Arrays:
    """Return the feeds with images twice as large along every axis whose size is open."""
    x, declared = feeds[image], next(v.shape for v in graph.inputs if v.name == image)
    for axis, size in enumerate(declared or ()):
        if axis and not isinstance(size, int):
            x = np.concatenate([x, x], axis)
    return {**feeds, image: x}


def _shapes(session: Session, values: Mapping[str, ir.Value], feeds: Arrays) -> dict[str, Dims]:
    results = session.run(list(values), {name: x for name, x in feeds.items() if name in session.inputs})
    return {name: np.shape(result) for name, result in results.items()}


def _batch_axis(first: Dims, other: Dims, count: int) -> int | None:
    """Return the first axis that is as long as there are images, in both runs."""
    grown = count + (first != other)
    return next((k for k, (n, m) in enumerate(zip(first, other, strict=True)) if n == count and m == grown), None)


def _correct(
    value: ir.Value, first: Dims, other: Dims, batch_axis: int | None, batch: ir.Shape | None, stays: Sequence[bool]
) -> bool:
    """Give a value the shape that it had; tell whether that is another one than was known.

    ``stays``: for each axis whether its length is the same for larger images.
    """
    old = list(value.shape) if value.shape is not None and len(value.shape) == len(first) else [None] * len(first)
    dims: list[int | ir.SymbolicDim | None] = []
    for axis, (n, m, known, kept) in enumerate(zip(first, other, old, stays, strict=True)):
        if axis == batch_axis and batch is not None:
            dims.append(batch[0])
        elif isinstance(known, int):
            dims.append(n if kept else None)
        else:
            dims.append(n if n == m and kept else known)
    moved = batch_axis not in (None, 0, value.meta.get(BATCH_AXIS, 0))
    if moved:
        value.meta[BATCH_AXIS] = batch_axis
    changed = moved or value.shape is None or list(ir.Shape(dims)) != list(value.shape)
    value.shape = ir.Shape(dims)
    return changed


def _require_rows(network: Network, shapes: Mapping[str, Dims], axes: Mapping[str, int | None], count: int) -> None:
    """Raise ``ScoreError`` where the score that was found has no axis of the images."""
    try:
        score = network.score
    except ScoreError:
        return  # there is none yet
    name = score.value.name or ""
    if name in shapes and axes[name] is None:
        raise ScoreError(
            f"{name!r} has no row for each image: its shape is {shapes[name]} for {count} image{'s' * (count > 1)}",
            where=f"declared {network.image_input}",
            hint="--score NAME: a value with one row for each image; or feed its views as images of a batch",
            name=name,
        )
