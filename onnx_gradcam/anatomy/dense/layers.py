"""Target layers of models with many scores per image: a segmenter's bottleneck, one for each level of a detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import PICKING
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.anatomy.grids import Axes, grids, has_space
from onnx_gradcam.anatomy.layer import Layer, LayerSearch, Verdict
from onnx_gradcam.anatomy.paths import upstream_of_any
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import beginnings, carriers, downstream
from onnx_gradcam.graph.operators import CONVOLUTIONS, IN_PLACE, POOLINGS, PRODUCTS
from onnx_gradcam.graph.quantization import real_form

# Operators by which a cell of a map depends on the cells about it, and on no others.
LOCAL = CONVOLUTIONS | IN_PLACE | PICKING | {"Resize", "Upsample", "DepthToSpace", "Softmax"}


def bottleneck_layers(search: LayerSearch) -> list[Layer]:
    """Return the layer of a segmenter or of a sequence: the deepest of the values of lowest resolution.

    It is none from which only convolutions, resizes and elementwise operators lead to the score, where there is
    another, and never the logits themselves. Empty where no value is on a grid.
    """
    nodes = search.nodes
    on_grid = _spatial_values(nodes)
    path = downstream(nodes, beginnings(nodes, search.graph.inputs)) & upstream_of_any(nodes, search.sinks)
    value = _bottleneck(nodes, on_grid, path, search.sinks)
    return [] if value is None else [Layer(real_form(value), on_grid[value], Verdict.BOTTLENECK)]


def level_layers(search: LayerSearch) -> list[Layer]:
    """Return one layer for each level of a detector: the value that the last convolution of its branch reads.

    Further up, one cell's gradient averaged over space says little of other positions, and there maps were seen that
    lie beside the object. Empty where a level has no such value.
    """
    nodes, dense = search.nodes, search.score.dense
    assert dense is not None
    on_grid = _spatial_values(nodes)
    reached = downstream(nodes, beginnings(nodes, search.graph.inputs))
    levels = dense.branch(search.branch)
    values = [_feeding(nodes, on_grid, reached, sources(level.origin())) for level in levels]
    verdict = Verdict.LEVEL if len(levels) > 1 else Verdict.ONLY_LEVEL
    layers = [Layer(real_form(v), on_grid[v], verdict, level=k) for k, v in enumerate(values) if v is not None]
    return layers if len(layers) == len(levels) else []


def _spatial_values(nodes: Sequence[ir.Node]) -> dict[Value, Axes]:
    """Return the values on the grid of a convolution or pooling that have several positions, with their axes."""
    return {v: axes for v, axes in grids(nodes, CONVOLUTIONS | POOLINGS).items() if has_space(v, axes)}


def _bottleneck(
    nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes], path: set[Value], sinks: Collection[Value]
) -> Value | None:
    scale = _scales(nodes, on_grid)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in path and v in scale]
    if not values:
        return None
    coarsest = max(scale[v] for v in values)
    lowest = [v for v in values if math.isclose(scale[v], coarsest)]
    beyond = _leading_through(nodes, sinks, lambda node: node.op_type not in LOCAL)
    spread = _leading_through(nodes, sinks, _mixes_positions)
    layered = _leading_through(nodes, sinks, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    for choice in (beyond, spread, layered):
        kept = [v for v in lowest if v in choice]
        if kept:
            return kept[-1]
    return lowest[-1]


def _feeding(
    nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes], reached: set[Value], logits: Collection[Value]
) -> Value | None:
    """Return the deepest value that every path to ``logits`` goes through, with a layer behind it."""
    required = _required(nodes, reached & upstream_of_any(nodes, logits), logits)
    before = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in required and v in before]
    return values[-1] if values else None


def _required(nodes: Sequence[ir.Node], path: set[Value], sinks: Collection[Value]) -> set[Value]:
    """Return the values without which nothing reaches ``sinks``: walking back, all that is open is one value."""
    open_, required = set(sinks), set[Value]()
    for node in reversed(nodes):
        outputs = [v for v in node.outputs if v in open_]
        if not outputs:
            continue
        if len(open_) == 1:
            required.update(outputs)
        open_.difference_update(outputs)
        open_.update(v for _, v in carriers(node) if v in path)
    return required


def _leading_through(
    nodes: Sequence[ir.Node], sinks: Collection[Value], is_passed: Callable[[ir.Node], bool]
) -> set[Value]:
    """Return the values from which a path to one of ``sinks`` leads through a node for which ``is_passed`` holds."""
    before = upstream_of_any(nodes, sinks)
    leading: set[Value] = set()
    for node in reversed(nodes):
        if any(v in leading for v in node.outputs) or (is_passed(node) and any(v in before for v in node.outputs)):
            leading.update(v for _, v in carriers(node))
    return leading


def _mixes_positions(node: ir.Node) -> bool:
    """Tell whether a cell of what ``node`` makes depends on several cells of what it reads."""
    if node.op_type in ("Conv", "FusedConv", "QLinearConv", "ConvTranspose"):
        weight = node.inputs[3 if node.op_type == "QLinearConv" else 1]
        return weight is None or weight.shape is None or any(d != 1 for d in weight.shape[2:])
    return node.op_type in CONVOLUTIONS or node.op_type not in LOCAL


def _scales(nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes]) -> dict[Value, float]:
    """Return how coarse each value on a grid is: 1 / the number of its cells; by strides where sizes are not known."""
    dims = {v: [v.shape[k] for k in axes[2:]] for v, axes in on_grid.items() if v.shape is not None}
    if all(isinstance(d, int) for space in dims.values() for d in space):
        return {v: 1 / math.prod(d for d in space if isinstance(d, int)) for v, space in dims.items()}
    by_strides: dict[Value, float] = {}
    for node in nodes:
        known = [by_strides[v] for v in node.inputs if v in by_strides]
        by_strides.update(dict.fromkeys(node.outputs, (known[0] if known else 1.0) * _stride(node)))
    return {v: by_strides[v] for v in dims}


def _stride(node: ir.Node) -> float:
    """Return by how much what ``node`` makes is coarser than what it reads."""
    strides = math.prod(node.attributes.get_ints("strides", ()))
    if node.op_type == "ConvTranspose":
        return 1 / strides
    if node.op_type == "Resize":
        scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return 1 / float(np.prod(scales)) if scales is not None and scales.size else 1.0
    return float(strides)
