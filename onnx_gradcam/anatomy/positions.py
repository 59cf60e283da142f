"""Where on the image's grid the elements of every value lie, followed through the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.grids import KEEPING
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.constants import constant, evaluate

# For each of the batch and the spatial axes the coordinate of every element; NaN where an element has no place.
Positions = tuple[np.ndarray, ...]

MOVING = frozenset(
    "Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Reshape Slice SpaceToDepth Split Squeeze Tile "
    "Transpose Unsqueeze".split()
)
# Operators that compute from an element and, at most, the statistics of its neighbours what stays in its place.
STAYING = (KEEPING - {"Concat", "QLinearConcat", "Split"}) | frozenset(
    "BiasGelu FastGelu QuickGelu RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization".split()
)
# Linear operators over the last axis → the position of their weight among the inputs.
LINEAR = {"MatMul": 1, "Gemm": 1, "FusedMatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "QGemm": 3}


@dataclass(frozen=True)
class Layout:
    """How a value becomes (N, C, *space).

    ``axes``: for each of (N, C, *space) the axis of the value that holds it; where ``tokens`` is given, for (N, C,
    tokens), and ``tokens`` (\\*space) holds the index of the token at each place of the grid.
    """

    axes: tuple[int, ...]
    tokens: np.ndarray | None = None

    def arrange(self, array: Any) -> Any:
        """``array`` as (N, C, *space)."""
        array = array.transpose(self.axes)
        return array if self.tokens is None else array[:, :, self.tokens]


def follow(
    nodes: Sequence[ir.Node], begin: Mapping[ir.Value, tuple[int, ...]], inputs: Sequence[ir.Value]
) -> dict[ir.Value, Positions]:
    """The positions of all values that hold elements of a grid in known places.

    ``begin``: values on a grid, with their axes in the order (N, C, *space); all shapes must be static. Reshapes,
    transposes, slices and joins move the positions as they move the elements. A linear layer over the last axis puts
    what it makes in the mean place of what it read, which is how patches are embedded and merged; where that is the
    same for all, places are mixed and none is left. Attention mixes them, and the Add behind it keeps the stream's.
    """
    found = {v: grid_positions(v, begin[v]) for v in inputs if v in begin}
    for node in nodes:
        if not all(v in begin for v in node.outputs):
            found.update(_through(node, found))
        found.update({v: grid_positions(v, begin[v]) for v in node.outputs if v in begin})
    return found


def grid_positions(value: ir.Value, axes: tuple[int, ...]) -> Positions:
    """Counted along the batch axis and each spatial axis."""
    dims = static_dims(value)
    if dims is None:
        return ()
    found = []
    for axis in (axes[0], *axes[2:]):
        line = np.arange(dims[axis], dtype=np.float64).reshape([-1 if k == axis else 1 for k in range(len(dims))])
        found.append(np.broadcast_to(line, dims))
    return tuple(found)


def _through(node: ir.Node, found: Mapping[ir.Value, Positions]) -> dict[ir.Value, Positions]:
    """The positions of what ``node`` makes."""
    known = [v for v in node.inputs if v is not None and found.get(v)]
    if not known:
        return {}
    if node.op_type in MOVING or node.op_type == "QLinearConcat":
        return _moved(node, found, len(found[known[0]]))
    value = node.outputs[0]
    if node.op_type in STAYING:
        same = [v for v in known if static_dims(v) == static_dims(value)]
        return dict.fromkeys((v for v in node.outputs if v.name), found[same[0]]) if same else {}
    positions = _contracted(node, found[known[0]]) if is_linear(node) and node.inputs[0] in found else ()
    return {value: positions} if positions else {}


def is_linear(node: ir.Node) -> bool:
    """Whether ``node`` multiplies the last axis of its first input with a weight."""
    weight = node.inputs[LINEAR[node.op_type]] if node.op_type in LINEAR else None
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and constant(weight) is not None


def _moved(node: ir.Node, found: Mapping[ir.Value, Positions], count: int) -> dict[ir.Value, Positions]:
    """Moved as the elements are; elements of other values have no place."""
    if any(v.name and static_dims(v) is None for v in node.outputs):
        return {}  # as of a Squeeze whose axis is longer in images of the size that is tried
    results: list[list[np.ndarray]] = []
    data = node.inputs[2::3] if node.op_type == "QLinearConcat" else node.inputs
    for k in range(count):
        arrays: dict[str, np.ndarray] = {}
        for value in data:
            if value is None:
                continue
            positions = found.get(value, ())
            array = positions[k] if len(positions) == count else _elsewhere(value)
            if array is None:
                return {}
            arrays[value.name or ""] = array
        if node.op_type == "QLinearConcat":
            results.append(
                [np.concatenate([arrays[v.name or ""] for v in data if v], node.attributes["axis"].as_int())]
            )
        else:
            results.append(evaluate(node, arrays, node.outputs))
    return {value: tuple(r[i] for r in results) for i, value in enumerate(node.outputs)}


def _elsewhere(value: ir.Value) -> np.ndarray | None:
    """Integers as they are, numbers without a place; None where not known."""
    if value.dtype is not None and value.dtype.is_integer() and value.dtype.itemsize > 1:
        return constant(value)
    dims = static_dims(value)
    return None if dims is None else np.broadcast_to(np.float64(np.nan), dims)


def _contracted(node: ir.Node, positions: Positions) -> Positions:
    """The means over the last axis; () where places are mixed."""
    dims = static_dims(node.outputs[0])
    if dims is None or node.attributes.get_int("transA", 0) == 1:
        return ()
    last = positions[0].ndim - 1
    means = [p[..., :1] if not varies(p, last) else p.mean(axis=-1, keepdims=True) for p in positions]
    before = any(_distinct(p) > 1 for p in positions[1:])
    if before and all(_distinct(m) <= 1 for m in means[1:]):
        return ()
    return tuple(np.broadcast_to(m, dims) for m in means)


def _distinct(array: np.ndarray) -> int:
    """How many places occur, not counting none."""
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
    return 0 if np.isnan(low) else 1 if high - low < 1e-6 else 2


def varies(array: np.ndarray, axis: int) -> bool:
    """Whether the places differ along ``axis``."""
    if array.shape[axis] == 1 or array.strides[axis] == 0:
        return False
    return bool(np.any(np.fmax.reduce(array, axis=axis) - np.fmin.reduce(array, axis=axis) > 1e-6))


def layout_of(positions: Positions) -> Layout | None:
    """How values with these positions become (N, C, *space), or None where they are no regular grid."""
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
            return Layout((batches[0], channels, *axes))
    if len(along) != 1:
        return None
    (axis,) = along
    tokens = _token_grid([np.moveaxis(p, axis, 0).reshape(p.shape[axis], -1)[:, 0] for p in space])
    return None if tokens is None else Layout((batches[0], channels, axis), tokens)


def _rises(positions: np.ndarray, axis: int) -> bool:
    line = np.moveaxis(positions, axis, 0).reshape(positions.shape[axis], -1)[:, 0]
    return bool(np.all(np.diff(line) > 0))


def _token_grid(places: Sequence[np.ndarray]) -> np.ndarray | None:
    """The index of the token at each place of the grid that the tokens with a place fill, each once; else None."""
    placed = np.flatnonzero(~np.isnan(places[0]))
    found = [np.unique(np.round(p[placed], 6), return_inverse=True) for p in places]
    grid = tuple(len(values) for values, _ in found)
    tokens = np.full(grid, -1)
    tokens[tuple(index.ravel() for _, index in found)] = placed
    return tokens if len(placed) == tokens.size and (tokens >= 0).all() else None
