"""Target layers of models with many scores per image: a segmenter's bottleneck, one for each level of a detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.mixing import BEYOND_THE_LAST, LOCAL, mixing_stages
from onnx_gradcam.anatomy.dense.places import Places, find_places
from onnx_gradcam.anatomy.dense.scales import scales
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.anatomy.layer import COARSE, Layer, LayerSearch, Verdict, coarseness
from onnx_gradcam.anatomy.paths import smallest_cut, upstream_of_any
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import beginnings, carriers, downstream
from onnx_gradcam.graph.operators import CONVOLUTIONS, PRODUCTS

MULTIPLYING = ("Mul", "QLinearMul")


def bottleneck_layers(search: LayerSearch) -> list[Layer]:
    """Return the layer of a segmenter or of a sequence: the deepest of the values of lowest resolution.

    It is none from which only convolutions, resizes and elementwise operators lead to the score, where there is
    another, and never the logits themselves; more than the last spatial kernel lies behind it, where there is such a
    value. Where several streams have their own value of lowest resolution, it is the smallest set of these that all
    paths through that resolution go through. Empty where no value is on a grid.
    """
    places = find_places(search)
    values = _bottleneck(places, _images(places))
    verdict = Verdict.PARALLEL if len(values) > 1 else Verdict.BOTTLENECK
    return _noted(places, [places.layer(v, verdict) for v in values])


def level_layers(search: LayerSearch) -> list[Layer]:
    """Return one layer for each level of a detector: the deepest value that the whole branch of the level goes through.

    More than the last spatial kernel lies between it and the cells, where there is such a value: a map of what the last
    convolution reads shows where the cell is, whatever the weights. A level to which several streams lead has the ends
    of these: the smallest set of values that all its paths go through. Empty where a level has no such value.
    """
    nodes, dense = search.nodes, search.score.dense
    assert dense is not None
    places = find_places(search)
    begin = _images(places)
    reached = downstream(nodes, begin)
    levels = [sources(level.origin()) for level in dense.branch(search.branch)]
    values = [_feeding(places, reached, logits) for logits in levels]
    values = [v or _ends_of_streams(places, begin, logits) for v, logits in zip(values, levels, strict=True)]
    if not all(values):
        return []
    single = Verdict.LEVEL if len(levels) > 1 else Verdict.ONLY_LEVEL
    verdict = single if all(len(of_level) == 1 for of_level in values) else Verdict.PARALLEL
    layers = [places.layer(v, verdict, k) for k, each in enumerate(values) for v in each]
    return _noted(places, layers)


def _images(places: Places) -> list[Value]:
    """Return the values where paths begin that lead to a grid: those of the image, and not of a text beside it."""
    search = places.search
    named = [v for v in search.graph.inputs if search.image in (None, v.name)]
    begin = beginnings(search.nodes, named)
    return [v for v in begin if not places.layouts.keys().isdisjoint(downstream(search.nodes, [v]))]


def _noted(places: Places, layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers; one whose map is coarse says so, and names the deepest value before it that is finer."""
    return [replace(layer, note=coarseness(layer, _finer(places, layer))) for layer in layers]


def _finer(places: Places, layer: Layer) -> Layer | None:
    if layer.positions is None or layer.positions >= COARSE:
        return None
    nodes = places.search.nodes
    before = upstream_of_any(nodes, [layer.value]) - {layer.value}
    values = [v for node in nodes for v in node.outputs if v in before and v in places.layouts]
    each = [places.layer(v, Verdict.SHALLOWER) for v in values]
    finer = [x for x in each if x.positions is not None and x.positions > layer.positions]
    return finer[-1] if finer else None


def _bottleneck(places: Places, begin: Sequence[Value]) -> list[Value]:
    nodes, sinks = places.search.nodes, places.search.sinks
    path = downstream(nodes, begin) & upstream_of_any(nodes, sinks)
    scale = scales(nodes, {v: places.space(v) for v in places.layouts})
    values = [v for n in nodes for v in n.outputs if v in path and v in scale]
    layered = _leading_through(nodes, sinks, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    values = [v for v in values if v in layered] or values
    features = _leading_without_gates(places)
    values = [v for v in values if v in features] or values
    if not values:
        return []
    coarsest = max(scale[v] for v in values)
    lowest = [v for v in values if math.isclose(scale[v], coarsest)]
    first = [v for v in lowest if (node := v.producer()) is not None and not any(x in lowest for x in node.inputs)]
    beyond = _leading_through(nodes, sinks, lambda node: node.op_type not in LOCAL)
    stages = mixing_stages(nodes, sinks, path)
    for least in range(BEYOND_THE_LAST, -1, -1):
        deep = [v for v in lowest if stages.get(v, 0) >= least]
        for choice in ([v for v in deep if v in beyond], deep):
            if ends := smallest_cut(nodes, first, sinks, choice):
                return _beginning(nodes, ends)
        if ends := smallest_cut(nodes, begin, sinks, [v for v in values if stages.get(v, 0) >= least]):
            return _beginning(nodes, ends)
    return lowest[-1:]


def _leading_without_gates(places: Places) -> set[Value]:
    """Return the values from which a path leads to the score other than as a gate.

    A gate is a map of one channel by which features are multiplied: it weighs places, and holds no features of them.
    """
    leading = set(places.search.sinks)
    for node in reversed(places.search.nodes):
        if any(v in leading for v in node.outputs):
            gates = [v for v in node.inputs if node.op_type in MULTIPLYING and v is not None and _is_gate(v, node)]
            leading.update(v for _, v in carriers(node) if v not in gates)
    return leading


def _is_gate(value: Value, node: ir.Node) -> bool:
    """Tell whether ``value``, which ``node`` multiplies, has one channel for each place, and the product several."""
    dims, made = (list(v.shape or ()) for v in (value, node.outputs[0]))
    wider = [k for k, (a, b) in enumerate(zip(dims, made, strict=False)) if a != b]
    return len(dims) == len(made) and [dims[k] for k in wider] == [1] and sum(d != 1 for d in dims[1:]) > 1


def _beginning(nodes: Sequence[ir.Node], ends: Sequence[Value]) -> list[Value]:
    """Return those of ``ends`` that depend on no other one: the gradient there holds what flows through the others."""
    if len(ends) < 2:
        return list(ends)
    return [v for v in ends if not any(v in downstream(nodes, [other]) for other in ends if other is not v)]


def _feeding(places: Places, reached: set[Value], logits: Collection[Value]) -> list[Value]:
    """Return the deepest value that every path to ``logits`` goes through, with mixing stages or a layer behind it."""
    nodes = places.search.nodes
    required = _required(nodes, reached & upstream_of_any(nodes, logits), logits)
    values = [v for n in nodes for v in n.outputs if v in places.layouts and v in required]
    stages = mixing_stages(nodes, logits, reached)
    for least in range(BEYOND_THE_LAST, 0, -1):
        if mixed := [v for v in values if stages[v] >= least]:
            return mixed[-1:]
    before = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    return [v for v in values if v in before][-1:]


def _ends_of_streams(places: Places, begin: Sequence[Value], logits: Collection[Value]) -> list[Value]:
    """Return the smallest set of values that all paths to ``logits`` go through, with stages or a layer behind each."""
    nodes = places.search.nodes
    before = _leading_through(nodes, logits, lambda node: node.op_type in CONVOLUTIONS | PRODUCTS)
    stages = mixing_stages(nodes, logits, downstream(nodes, begin))
    for least in range(BEYOND_THE_LAST, -1, -1):
        if ends := smallest_cut(
            nodes, begin, logits, [v for v in places.layouts if v in before and stages[v] >= least]
        ):
            return ends
    return []


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
