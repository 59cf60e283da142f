"""The target layers of models with many scores per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import IN_PLACE, PICKING, RESHAPING
from onnx_gradcam.anatomy.dense.scores import Dense
from onnx_gradcam.anatomy.grids import CONVOLUTIONS, KEEPING, POOLS, grids
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import beginnings, carriers, downstream, upstream

BOTTLENECK = "the deepest value of lowest resolution"
LEVEL = "the deepest value that feeds level {}"
LOCAL = (
    CONVOLUTIONS
    | KEEPING
    | {"Resize", "Upsample", "DepthToSpace", "Softmax", "Transpose", *RESHAPING, *IN_PLACE, *PICKING}
)
Found = tuple[Value, tuple[int, ...], str]


def taken(graph: ir.Graph, score: Value, dense: Dense, branch: str = "logits") -> list[Found]:
    """Value, axes in the order (N, C, *space) and reason of each layer to take, one for each level of a detector.

    A segmenter: the value of lowest resolution, the deepest of those, but none from which only convolutions, resizes
    and elementwise operators lead to the score, where there is another. A detector: for each level the value that the
    last convolution of its class logits (or of another ``branch`` of ``Dense``) reads. Further up, one cell's gradient
    averaged over space says little of other places, and there maps were seen that lie beside the object.
    """
    nodes = list(graph)
    on_grid = {v: axes for v, axes in grids(nodes, CONVOLUTIONS | POOLS).items() if _has_space(v, axes)}
    begin = beginnings(nodes, graph.inputs)
    reached = downstream(nodes, begin)
    if not dense.detector:
        found = _bottleneck(nodes, on_grid, reached & upstream(nodes, score), score)
        return [] if found is None else [(found, on_grid[found], BOTTLENECK)]
    layers: list[Found] = []
    parts = dense.branch(branch)
    for k, part in enumerate(parts):
        found = _feeding(nodes, on_grid, reached, part.origin())
        if found is None:
            return []
        reason = LEVEL.format(k) if len(parts) > 1 else "the deepest value that feeds the scores"
        layers.append((found, on_grid[found], reason))
    return layers


def _has_space(value: Value, axes: tuple[int, ...]) -> bool:
    assert value.shape is not None
    return any(value.shape[k] != 1 for k in axes[2:])


def _bottleneck(
    nodes: Sequence[ir.Node], on_grid: dict[Value, tuple[int, ...]], path: set[Value], score: Value
) -> Value | None:
    scale = _scales(nodes, on_grid)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in path and v in scale]
    if not values:
        return None
    coarsest = max(scale[v] for v in values)
    lowest = [v for v in values if math.isclose(scale[v], coarsest)]
    beyond = _leading_through(nodes, score, lambda node: node.op_type not in LOCAL)
    spread = _leading_through(nodes, score, _mixes_places)
    for choice in (beyond, spread):
        kept = [v for v in lowest if v in choice]
        if kept:
            return kept[-1]
    return lowest[-1]


def _feeding(
    nodes: Sequence[ir.Node], on_grid: dict[Value, tuple[int, ...]], reached: set[Value], logits: Value
) -> Value | None:
    """The deepest value that every path to ``logits`` goes through, with a convolution behind it."""
    needed = _needed(nodes, reached & upstream(nodes, logits), logits)
    convolved = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in needed and v in convolved]
    return values[-1] if values else None


def _needed(nodes: Sequence[ir.Node], path: set[Value], sink: Value) -> set[Value]:
    """The values without which nothing reaches ``sink``: walking back, all that is open is one value."""
    open_, found = {sink}, set[Value]()
    for node in reversed(nodes):
        made = [v for v in node.outputs if v in open_]
        if not made:
            continue
        if len(open_) == 1:
            found.update(made)
        open_.difference_update(made)
        open_.update(v for _, v in carriers(node) if v in path)
    return found


def _leading_through(nodes: Sequence[ir.Node], sink: Value, wanted: Callable[[ir.Node], bool]) -> set[Value]:
    """The values from which a path to ``sink`` leads through a node that is ``wanted``."""
    to_sink = upstream(nodes, sink)
    found: set[Value] = set()
    for node in reversed(nodes):
        if any(v in found for v in node.outputs) or (wanted(node) and any(v in to_sink for v in node.outputs)):
            found.update(v for _, v in carriers(node))
    return found


def _mixes_places(node: ir.Node) -> bool:
    """Whether a cell of what ``node`` makes depends on several cells of what it reads."""
    if node.op_type in ("Conv", "FusedConv", "QLinearConv", "ConvTranspose"):
        weight = node.inputs[3 if node.op_type == "QLinearConv" else 1]
        return weight is None or weight.shape is None or any(d != 1 for d in weight.shape[2:])
    return node.op_type in CONVOLUTIONS or node.op_type not in LOCAL


def _scales(nodes: Sequence[ir.Node], on_grid: dict[Value, tuple[int, ...]]) -> dict[Value, float]:
    """How coarse each value on a grid is: 1 / the number of its cells; by strides where sizes are not known."""
    dims = {v: [v.shape[k] for k in axes[2:]] for v, axes in on_grid.items() if v.shape is not None}
    if all(isinstance(d, int) for found in dims.values() for d in found):
        return {v: 1 / math.prod(d for d in found if isinstance(d, int)) for v, found in dims.items()}
    by_strides: dict[Value, float] = {}
    for node in nodes:
        known = [by_strides[v] for v in node.inputs if v in by_strides]
        by_strides.update(dict.fromkeys(node.outputs, (known[0] if known else 1.0) * _stride(node)))
    return {v: by_strides[v] for v in dims}


def _stride(node: ir.Node) -> float:
    """By how much what ``node`` makes is coarser than what it reads."""
    strides = math.prod(node.attributes.get_ints("strides", ()))
    if node.op_type == "ConvTranspose":
        return 1 / strides
    if node.op_type == "Resize":
        scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return 1 / float(np.prod(scales)) if scales is not None and scales.size else 1.0
    return float(strides)
