"""The places of the elements of every value on the grid of the image, followed through the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import convolution_axes, joined_axis, listed_axes
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.constants import constant, evaluate, evaluation
from onnx_gradcam.graph.operators import (
    CONVOLUTIONS,
    IN_PLACE,
    MOVES,
    PRODUCTS,
    QUANTIZED_WEIGHT,
    RESHAPES,
    AxisEffect,
    operators,
)

# For each of the batch and the spatial axes the coordinate of every element; NaN where an element has no position.
Positions = tuple[np.ndarray, ...]

# Evaluated on positions, operators that only move elements move these alike.
KEEPS_POSITIONS = IN_PLACE - MOVES
# Operators that put another grid in the place of the one that they read.
CHANGES_GRID = operators(AxisEffect.POOLED, AxisEffect.RESIZED)
SQUASHED = operators(AxisEffect.SQUASHED)
IN_PLACE_OR_SQUASHED = KEEPS_POSITIONS | SQUASHED
REDUCES = operators(AxisEffect.REDUCED)
QUANTIZED_CONCAT = "QLinearConcat"  # joined here: the reference evaluator has standard operators only


@dataclass(frozen=True)
class SpatialLayout:
    """The steps that bring a value into the form (N, C, *space).

    Attributes:
        axes: for each of (N, C, *space) the axis of the value that holds it; with a token grid for (N, C, tokens).
        token_grid: (*space) the index of the token at each position of the grid; None for a value without tokens.
    """

    axes: tuple[int, ...]
    token_grid: np.ndarray | None = None

    def arrange(self, array: Any) -> Any:
        """Return ``array``, of the value's shape, as (N, C, *space)."""
        array = array.transpose(self.axes)
        return array if self.token_grid is None else array[:, :, self.token_grid]

    def restore(self, arranged: np.ndarray, array: np.ndarray) -> np.ndarray:
        """Return copies of ``array``, of the value's shape for one image, that hold ``arranged`` (B, C, *space).

        What lies at no position of the grid, such as a class token, is that of ``array``.
        """
        if self.token_grid is not None:
            copies = array.transpose(self.axes).repeat(len(arranged), axis=0)
            copies[:, :, self.token_grid] = arranged
            arranged = copies
        return arranged.transpose(np.argsort(self.axes))


def follow(
    nodes: Sequence[ir.Node], begin: Mapping[ir.Value, tuple[int, ...]], inputs: Sequence[ir.Value]
) -> dict[ir.Value, Positions]:
    """Return the positions of all values that hold elements of a grid in known positions.

    Reshapes, transposes, slices and joins move the positions as they move the elements. A linear layer over the last
    axis puts what it makes at the mean position of what it read, which is how patches are embedded and merged, and so
    does a reduction; where that is the same for all, positions are mixed and none is left. Attention mixes
    them, and the Add behind it keeps those of the stream; with fewer queries than keys it puts what it makes where its
    queries are. What pads, pools or resizes a grid begins a new one.

    Args:
        nodes: the nodes of a graph, in topological order; all shapes must be static.
        begin: values on a grid, with their axes in the order (N, C, *space).
        inputs: the inputs of the graph.
    """
    positions = {v: grid_positions(v, begin[v]) for v in inputs if v in begin}
    for node in nodes:
        if not all(v in begin for v in node.outputs):
            positions.update(_positions_after(node, positions))
        positions.update({v: grid_positions(v, begin[v]) for v in node.outputs if v in begin})
    return positions


def grid_positions(value: ir.Value, axes: tuple[int, ...]) -> Positions:
    """Return the positions of a value on a grid: counted along the batch axis and each spatial axis."""
    dims = static_dims(value)
    if dims is None:
        return ()
    lines = []
    for axis in (axes[0], *axes[2:]):
        line = np.arange(dims[axis], dtype=np.float64).reshape([-1 if k == axis else 1 for k in range(len(dims))])
        lines.append(np.broadcast_to(line, dims))
    return tuple(lines)


def _positions_after(node: ir.Node, known: Mapping[ir.Value, Positions]) -> dict[ir.Value, Positions]:
    """Return the positions of what ``node`` makes."""
    sources = [v for v in node.inputs if v is not None and known.get(v)]
    if not sources:
        return {}
    if node.op_type in MOVES:
        return _moved(node, known, len(known[sources[0]]))
    value = node.outputs[0]
    if node.op_type in KEEPS_POSITIONS:
        same = [v for v in sources if static_dims(v) == static_dims(value)]
        return dict.fromkeys((v for v in node.outputs if v.name), known[same[0]]) if same else {}
    if (queries := _queries(node)) is not None and (dims := static_dims(value)) is not None:
        of_queries = known.get(queries, ())
        return {value: _means(of_queries, [len(dims) - 1], dims)} if of_queries else {}
    positions = _on_another_grid(node, sources[0], known[sources[0]]) if node.inputs[0] is sources[0] else ()
    return {value: positions} if positions else {}


def _on_another_grid(node: ir.Node, source: ir.Value, positions: Positions) -> Positions:
    """Return the positions of what ``node`` makes of its first input, which has those; () where none are left."""
    dims = static_dims(node.outputs[0])
    if dims is None:
        return ()
    if is_linear(node):
        return () if node.attributes.get_int("transA", 0) == 1 else _means(positions, [positions[0].ndim - 1], dims)
    if node.op_type in REDUCES:
        axes = listed_axes(node, source)
        return () if axes is None else _means(positions, sorted(axes), dims)
    if node.op_type in CONVOLUTIONS:
        return _means(positions, [convolution_axes(node, len(dims))[1]], dims) if _is_pointwise(node) else ()
    if node.op_type not in CHANGES_GRID | {"Pad"}:
        return ()
    layout = layout_of(positions)
    if layout is not None and layout.token_grid is None and len(dims) == positions[0].ndim:
        return _unless_mixed(positions, grid_positions(node.outputs[0], layout.axes))
    return _padded(node, positions) if node.op_type == "Pad" else ()


def _is_pointwise(node: ir.Node) -> bool:
    """Tell whether a convolution makes each element of those in its place alone."""
    weight = node.inputs[3 if node.op_type == "QLinearConv" else 1]
    is_small = weight is not None and weight.shape is not None and all(d == 1 for d in weight.shape[2:])
    return is_small and all(s == 1 for s in node.attributes.get_ints("strides", ()))


def _padded(node: ir.Node, positions: Positions) -> Positions:
    """Return the positions behind a Pad of what is no grid: what it adds has none."""
    steering = {k: constant(v) for k, v in enumerate(node.inputs) if k and v is not None}
    if node.attributes.get_string("mode", "constant") != "constant" or any(a is None for a in steering.values()):
        return ()
    numbers = np.arange(1, positions[0].size + 1, dtype=np.float64).reshape(positions[0].shape)
    arrays = {0: numbers, **steering} | ({2: np.zeros((), np.float64)} if 2 in steering else {})
    named = {v.name or "": arrays[k] for k, v in enumerate(node.inputs) if v is not None}
    (taken,) = evaluate(node, {name: array for name, array in named.items() if array is not None}, node.outputs)
    index = np.maximum(taken, 1).astype(np.int64) - 1
    return tuple(np.where(taken == 0, np.nan, p.reshape(-1)[index]) for p in positions)


def is_linear(node: ir.Node) -> bool:
    """Tell whether ``node`` multiplies the last axis of its first input with a constant matrix."""
    weight = node.inputs[QUANTIZED_WEIGHT.get(node.op_type, 1)] if node.op_type in PRODUCTS else None
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and constant(weight) is not None


def _queries(node: ir.Node) -> ir.Value | None:
    """Return the queries of an attention whose last product ``node`` is, where they are fewer than its keys.

    So tokens are merged: each row of what comes out is a mean, and stands where its query is. Of as many queries the
    stream that is added to keeps the positions.
    """
    dims = static_dims(node.inputs[0]) if _is_product(node) and node.inputs[0] is not None else None
    value = node.inputs[0] if dims is not None and dims[-2] < dims[-1] else None
    is_mean = False
    while value is not None and (maker := value.producer()) is not None:
        if is_mean and _is_product(maker):
            return maker.inputs[0]
        if maker.op_type not in IN_PLACE_OR_SQUASHED:
            return None
        is_mean = is_mean or maker.op_type in SQUASHED
        value = next((v for v in maker.inputs if v is not None and constant(v) is None), None)
    return None


def _is_product(node: ir.Node) -> bool:
    """Tell whether ``node`` multiplies two computed matrices."""
    return node.op_type in ("FusedMatMul", "MatMul") and all(v is not None and constant(v) is None for v in node.inputs)


def _moved(node: ir.Node, known: Mapping[ir.Value, Positions], count: int) -> dict[ir.Value, Positions]:
    """Return the positions moved as ``node`` moves the elements; elements of other values have no position."""
    if any(v.name and static_dims(v) is None for v in node.outputs):
        return {}  # as of a Squeeze whose axis is longer in images of the size that is tried
    if node.op_type in RESHAPES and _size(node.inputs[0]) != _size(node.outputs[0]):
        return {}  # a model that no runtime runs
    data = [v for v in (node.inputs[2::3] if node.op_type == QUANTIZED_CONCAT else node.inputs) if v is not None]
    arrays = [_arrays_along(value, known.get(value, ()), count) for value in data]
    complete = [a for a in arrays if a is not None]
    if len(complete) < len(arrays):
        return {}
    if node.op_type == QUANTIZED_CONCAT:
        moved = [[np.concatenate(rows, joined_axis(node))] for rows in zip(*complete, strict=True)]
    else:
        names = [v.name or "" for v in data]
        run = evaluation(node, names, node.outputs)
        moved = [run(dict(zip(names, rows, strict=True))) for rows in zip(*complete, strict=True)]
    return {value: tuple(outputs[i] for outputs in moved) for i, value in enumerate(node.outputs)}


def _arrays_along(value: ir.Value, positions: Positions, count: int) -> Positions | None:
    """Return what stands for ``value`` where each of ``count`` coordinates is moved; None where that is not known."""
    if len(positions) == count:
        return positions
    array = _without_position(value)
    return None if array is None else (array,) * count


def _size(value: ir.Value | None) -> int | None:
    """Return how many elements a value has; None where that is open."""
    dims = None if value is None else static_dims(value)
    return None if dims is None else math.prod(dims)


def _without_position(value: ir.Value) -> np.ndarray | None:
    """Return integers as they are, and NaN for numbers, which have no position; None where they are not known."""
    if value.dtype is not None and value.dtype.is_integer() and value.dtype.itemsize > 1:
        return constant(value)
    dims = static_dims(value)
    return None if dims is None else np.broadcast_to(np.float64(np.nan), dims)


def _means(positions: Positions, axes: Sequence[int], dims: Sequence[int]) -> Positions:
    """Return the mean positions over some axes, as those of a value of the shape ``dims``; () where they are mixed."""
    means = positions
    for axis in axes:
        means = tuple(p.mean(axis=axis, keepdims=True) if varies(p, axis) else p.take([0], axis=axis) for p in means)
    if len(dims) < means[0].ndim:
        means = tuple(np.squeeze(m, tuple(axes)) for m in means)
    return _unless_mixed(positions, tuple(np.broadcast_to(m, dims) for m in means))


def _unless_mixed(before: Positions, after: Positions) -> Positions:
    """Return the positions ``after`` an operator; () where it brings all elements to one position."""
    is_mixed = any(_distinct(p) > 1 for p in before[1:]) and all(_distinct(p) <= 1 for p in after[1:])
    return () if is_mixed else after


def _distinct(array: np.ndarray) -> int:
    """Return how many positions occur: 0, 1, or 2 for several; NaN is none."""
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
    return 0 if np.isnan(low) else 1 if high - low < 1e-6 else 2


def varies(array: np.ndarray, axis: int) -> bool:
    """Tell whether the positions differ along ``axis``."""
    if array.shape[axis] == 1 or array.strides[axis] == 0:
        return False
    return bool(np.any(np.fmax.reduce(array, axis=axis) - np.fmin.reduce(array, axis=axis) > 1e-6))


def layout_of(positions: Positions) -> SpatialLayout | None:
    """Return how a value with these positions becomes (N, C, *space), or None where they are no regular grid."""
    batch, *space = positions
    rank = batch.ndim
    spatial = [{k for k in range(rank) if varies(p, k)} for p in space]
    along = set().union(*spatial)
    others = [k for k in range(rank) if k not in along]
    batches = [k for k in others if varies(batch, k)] or [k for k in others if batch.shape[k] == 1]
    if not batches or len(others) != 2 or any(varies(batch, k) for k in along):
        return None
    (channels,) = (k for k in others if k != batches[0])
    if rank == len(space) + 2 and all(len(s) == 1 for s in spatial) and not np.isnan(batch).any():
        axes = tuple(k for s in spatial for k in s)
        if all(_rises(p, k) for p, k in zip(space, axes, strict=True)) and len(set(axes)) == len(space):
            return SpatialLayout((batches[0], channels, *axes))
    if len(along) != 1:
        return None
    (axis,) = along
    token_grid = _token_grid([np.moveaxis(p, axis, 0).reshape(p.shape[axis], -1)[:, 0] for p in space])
    return None if token_grid is None else SpatialLayout((batches[0], channels, axis), token_grid)


def _rises(positions: np.ndarray, axis: int) -> bool:
    line = np.moveaxis(positions, axis, 0).reshape(positions.shape[axis], -1)[:, 0]
    return bool(np.all(np.diff(line) > 0))


def _token_grid(positions: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the index of the token at each position of the grid that the tokens with a position fill, each once.

    None where they fill no grid. ``positions`` (tokens,) for each spatial axis.
    """
    placed = np.flatnonzero(~np.isnan(positions[0]))
    lines = [np.unique(np.round(p[placed], 6), return_inverse=True) for p in positions]
    token_grid = np.full(tuple(len(values) for values, _ in lines), -1)
    token_grid[tuple(index.ravel() for _, index in lines)] = placed
    return token_grid if len(placed) == token_grid.size and (token_grid >= 0).all() else None
