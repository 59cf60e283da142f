"""Target layers of models with many scores per image: a segmenter's bottleneck, one for each level of a detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import PICKING
from onnx_gradcam.anatomy.dense.scales import scales
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.anatomy.grids import Axes, grids, has_space
from onnx_gradcam.anatomy.layer import COARSE, Layer, LayerSearch, Verdict, coarseness
from onnx_gradcam.anatomy.paths import smallest_cut, upstream_of_any
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import beginnings, carriers, downstream
from onnx_gradcam.graph.operators import CONVOLUTIONS, IN_PLACE, POOLINGS, PRODUCTS
from onnx_gradcam.graph.quantization import real_form

# Operators by which a cell of a map depends on the cells about it, and on no others.
LOCAL = CONVOLUTIONS | IN_PLACE | PICKING | {"Resize", "Upsample", "DepthToSpace", "Softmax"}


def bottleneck_layers(search: LayerSearch) -> list[Layer]:
    """Return the layer of a segmenter or of a sequence: the deepest of the values of lowest resolution.

    It is none from which only convolutions, resizes and elementwise operators lead to the score, where there is
    another, and never the logits themselves. Where several streams have their own value of lowest resolution, it is
    the smallest set of these that all paths through that resolution go through. Empty where no value is on a grid.
    """
    nodes = search.nodes
    on_grid = _spatial_values(nodes)
    path = downstream(nodes, _images(search, on_grid)) & upstream_of_any(nodes, search.sinks)
    values = _bottleneck(nodes, on_grid, path, search.sinks)
    verdict = Verdict.PARALLEL if len(values) > 1 else Verdict.BOTTLENECK
    return _noted(search, on_grid, [Layer(real_form(v), on_grid[v], verdict) for v in values])


def level_layers(search: LayerSearch) -> list[Layer]:
    """Return one layer for each level of a detector: the value that the last convolution of its branch reads.

    Further up, one cell's gradient averaged over space says little of other positions, and there maps were seen that
    lie beside the object. A level to which several streams lead has the ends of these: the smallest set of values that
    all its paths go through. Empty where a level has no such value.
    """
    nodes, dense = search.nodes, search.score.dense
    assert dense is not None
    on_grid = _spatial_values(nodes)
    begin = _images(search, on_grid)
    reached = downstream(nodes, begin)
    levels = [sources(level.origin()) for level in dense.branch(search.branch)]
    values = [_feeding(nodes, on_grid, reached, logits) for logits in levels]
    values = [v or _ends_of_streams(nodes, on_grid, begin, logits) for v, logits in zip(values, levels, strict=True)]
    if not all(values):
        return []
    single = Verdict.LEVEL if len(levels) > 1 else Verdict.ONLY_LEVEL
    verdict = single if all(len(of_level) == 1 for of_level in values) else Verdict.PARALLEL
    layers = [Layer(real_form(v), on_grid[v], verdict, level=k) for k, each in enumerate(values) for v in each]
    return _noted(search, on_grid, layers)


def _spatial_values(nodes: Sequence[ir.Node]) -> dict[Value, Axes]:
    """Return the values on the grid of a convolution or pooling that have several positions, with their axes."""
    return {v: axes for v, axes in grids(nodes, CONVOLUTIONS | POOLINGS).items() if has_space(v, axes)}


def _images(search: LayerSearch, on_grid: Mapping[Value, Axes]) -> list[Value]:
    """Return the values where paths begin that lead to a grid: those of the image, and not of a text beside it."""
    named = [v for v in search.graph.inputs if search.image in (None, v.name)]
    return [v for v in beginnings(search.nodes, named) if not on_grid.keys().isdisjoint(downstream(search.nodes, [v]))]


def _noted(search: LayerSearch, on_grid: Mapping[Value, Axes], layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers; one whose map is coarse says so, and names the deepest value before it that is finer."""
    return [replace(layer, note=coarseness(layer, _finer(search, on_grid, layer))) for layer in layers]


def _finer(search: LayerSearch, on_grid: Mapping[Value, Axes], layer: Layer) -> Layer | None:
    if layer.positions is None or layer.positions >= COARSE:
        return None
    before = upstream_of_any(search.nodes, [layer.value]) - {layer.value}
    values = [v for node in search.nodes for v in node.outputs if v in before and v in on_grid]
    each = [Layer(real_form(v), on_grid[v], Verdict.SHALLOWER) for v in values]
    finer = [x for x in each if x.positions is not None and x.positions > layer.positions]
    return finer[-1] if finer else None


def _bottleneck(
    nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes], path: set[Value], sinks: Collection[Value]
) -> list[Value]:
    scale = scales(nodes, on_grid)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in path and v in scale]
    layered = _leading_through(nodes, sinks, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    values = [v for v in values if v in layered] or values
    if not values:
        return []
    coarsest = max(scale[v] for v in values)
    lowest = [v for v in values if math.isclose(scale[v], coarsest)]
    beyond = _leading_through(nodes, sinks, lambda node: node.op_type not in LOCAL)
    spread = _leading_through(nodes, sinks, _mixes_positions)
    choices = ([v for v in lowest if v in choice] for choice in (beyond, spread))
    deep = next((choice for choice in choices if choice), lowest)
    first = [v for v in lowest if (node := v.producer()) is not None and not any(x in lowest for x in node.inputs)]
    streams = smallest_cut(nodes, first, sinks, deep)
    return streams if len(streams) > 1 else deep[-1:]


def _feeding(
    nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes], reached: set[Value], logits: Collection[Value]
) -> list[Value]:
    """Return the deepest value that every path to ``logits`` goes through, with a layer behind it."""
    required = _required(nodes, reached & upstream_of_any(nodes, logits), logits)
    before = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    values = [v for n in nodes for v in n.outputs if v in on_grid and v in required and v in before]
    return values[-1:]


def _ends_of_streams(
    nodes: Sequence[ir.Node], on_grid: Mapping[Value, Axes], begin: Sequence[Value], logits: Collection[Value]
) -> list[Value]:
    """Return the smallest set of values that all paths to ``logits`` go through, with a layer behind each."""
    before = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    return smallest_cut(nodes, begin, logits, [v for v in on_grid if v in before])


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
