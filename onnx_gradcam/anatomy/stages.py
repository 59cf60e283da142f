"""Target layers of classifiers: the ends of convolutional blocks, and the beginnings of blocks of tokens.

A convolutional block begins with a convolution and ends with the last value that keeps its grid. A block of tokens
begins with the value that its first normalisation reads: behind the last block, the score may read the class token
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import turned_axes
from onnx_gradcam.anatomy.grids import Axes, grids, has_space, input_axes
from onnx_gradcam.anatomy.layer import TAKEN, Layer, LayerSearch, Verdict
from onnx_gradcam.anatomy.paths import bottlenecks, smallest_cut, upstream_of_any
from onnx_gradcam.anatomy.positions import SpatialLayout
from onnx_gradcam.anatomy.tokens import TokenGrid, TokenPositions, TokenStream, is_open, may_have_tokens
from onnx_gradcam.graph.flow import beginnings, downstream, upstream
from onnx_gradcam.graph.operators import CONVOLUTIONS
from onnx_gradcam.graph.quantization import real_form


@dataclass(frozen=True)
class Blocks:
    """What lies between the image and the score of a classifier.

    Attributes:
        search: what is looked at.
        on_grid: the values on a convolution's grid, with their axes.
        streams: the streams of tokens, by the value that a block reads.
        begin: the values where the paths from the image begin.
        path: the values on a differentiable path from the image to the score.
        required: those that every such path goes through.
    """

    search: LayerSearch
    on_grid: Mapping[ir.Value, Axes]
    streams: Mapping[ir.Value, TokenStream]
    begin: Sequence[ir.Value]
    path: set[ir.Value]
    required: set[ir.Value]

    def is_placed(self, value: ir.Value) -> bool:
        """Tell whether the positions of a value are known: it lies on a grid, or its tokens form one."""
        named = self.search.token_grid is not None
        return value not in self.streams or named or self.streams[value].layout is not None


def classifier_layers(search: LayerSearch) -> list[Layer]:
    """Return the ends of convolutional blocks and the beginnings of blocks of tokens, the deepest first.

    Taken is the deepest with more than one spatial position that every path from the image to the score goes through.
    Where there is none, it is the smallest set of them that all paths go through, of several such sets the deepest: the
    ends of parallel parts. What is taken comes first.
    """
    blocks = _blocks(search)
    layers = {**stage_ends(blocks), **token_blocks(blocks)}
    if not any(layer.verdict in TAKEN or layer.verdict is Verdict.NO_TOKEN_GRID for layer in layers.values()):
        return _with_parallel_ends(blocks, layers)
    return _with_deeper_parts(blocks, layers, _ranked(layers, search.nodes))


def _with_deeper_parts(blocks: Blocks, layers: Mapping[ir.Value, Layer], ranked: Sequence[Layer]) -> list[Layer]:
    """Return ``ranked``, where the one that is taken names the ends of parallel parts behind it, if there are any."""
    taken = next((layer for layer in ranked if layer.chosen), None)
    begin = [v for v, layer in layers.items() if taken is not None and layer.value is taken.value]
    behind = downstream(blocks.search.nodes, begin)
    deeper = [v for v, layer in layers.items() if v in behind and v not in begin and layer.verdict is Verdict.BYPASSED]
    convolved = [v for v in deeper if blocks.is_placed(v)]
    ends = smallest_cut(blocks.search.nodes, begin, blocks.search.sinks, convolved) if convolved else []
    if taken is None or len(ends) < 2:
        return list(ranked)
    names = " ".join(f"--layer {layers[v].name}" for v in ends)
    note = f"{taken.name!r} is where all paths meet last; the parts behind it end in layers of their own: {names}"
    caution = "this map does not show where parts behind its layer look"
    return [replace(layer, note=note, caution=caution) if layer is taken else layer for layer in ranked]


def _with_parallel_ends(blocks: Blocks, layers: Mapping[ir.Value, Layer]) -> list[Layer]:
    """Return all layers ranked, where no path goes through a single one: the ends of parallel parts are taken."""
    places = [v for v, layer in layers.items() if layer.verdict is Verdict.BYPASSED and blocks.is_placed(v)]
    ends = smallest_cut(blocks.search.nodes, blocks.begin, blocks.search.sinks, places)
    ranked = _ranked({v: layer for v, layer in layers.items() if v not in ends}, blocks.search.nodes)
    taken = [replace(layers[v], verdict=Verdict.PARALLEL, mirrored=_mirrored(blocks, v)) for v in reversed(ends)]
    return taken + ranked


def _mirrored(blocks: Blocks, value: ir.Value) -> tuple[int, ...]:
    """Return the spatial axes along which a part sees the image mirrored, as one of two views may."""
    nodes = blocks.search.nodes
    before = upstream(nodes, value) & blocks.path
    turned = [k for n in nodes if n.op_type == "Slice" and n.outputs[0] in before for k in _turned_space(blocks, n)]
    return tuple(k for k in sorted(set(turned)) if turned.count(k) % 2)


def _turned_space(blocks: Blocks, node: ir.Node) -> list[int]:
    """Return the spatial axes, counted from 0, that a Slice mirrors: of a grid, or of the image before there is one."""
    source = node.inputs[0]
    images = (axes for v in blocks.begin if (axes := input_axes(blocks.search.nodes, v)) is not None)
    axes = blocks.on_grid.get(source) if source is not None and source in blocks.on_grid else next(images, None)
    return [] if axes is None else [axes.index(k) - 2 for k in turned_axes(node) if k in axes[2:]]


def stage_ends(blocks: Blocks) -> dict[ir.Value, Layer]:
    """Return the end of each convolutional block, with the verdict on it alone."""
    behind = _behind_tokens(blocks)
    ends = [v for v in blocks.on_grid if v in blocks.path and v not in blocks.streams and v not in behind]
    return {v: _stage_end(blocks, v) for v in ends if _ends_block(v, blocks)}


def token_blocks(blocks: Blocks) -> dict[ir.Value, Layer]:
    """Return what each block of tokens reads, with the verdict on it alone."""
    return {v: _token_block(blocks, stream) for v, stream in blocks.streams.items() if v in blocks.path}


def _blocks(search: LayerSearch) -> Blocks:
    nodes, graph = search.nodes, search.graph
    on_grid: Mapping[ir.Value, Axes] = grids(nodes)
    streams: dict[ir.Value, TokenStream] = {}
    if may_have_tokens(nodes, on_grid):
        tokens = TokenPositions(graph)
        on_grid, streams = tokens.on_grid(), {s.value: s for s in tokens.streams()}
    images = [v for v in graph.inputs if search.image in (None, v.name)]
    begin = [v for v in beginnings(nodes, images) if downstream(nodes, [v]) & {*on_grid, *streams}]
    path = downstream(nodes, begin) & upstream_of_any(nodes, search.sinks)
    return Blocks(search, on_grid, streams, begin, path, set(bottlenecks(nodes, begin, search.sinks)))


def _stage_end(blocks: Blocks, value: ir.Value) -> Layer:
    axes = blocks.on_grid[value]
    if not has_space(value, axes):
        verdict = Verdict.ONE_POSITION
    else:
        verdict = Verdict.LAST_STAGE if value in blocks.required else Verdict.BYPASSED
    return Layer(real_form(value), axes, verdict)


def _token_block(blocks: Blocks, stream: TokenStream) -> Layer:
    value, named = stream.value, blocks.search.token_grid
    layout = stream.layout if named is None else named.layout(real_form(value))
    shown = SpatialLayout(tuple(range(len(value.shape or ())))) if layout is None else layout
    if shown.token_grid is None and not has_space(value, shown.axes):
        verdict = Verdict.ONE_POSITION
    elif value not in blocks.required:
        verdict = Verdict.BYPASSED
    else:
        verdict = Verdict.NO_TOKEN_GRID if layout is None else Verdict.LAST_BLOCK
    opened = depends_on_size(blocks.search.graph, shown.token_grid, named)
    return Layer(real_form(value), shown.axes, verdict, shown.token_grid, opened)


def depends_on_size(graph: ir.Graph, token_grid: np.ndarray | None, named: TokenGrid | None) -> bool:
    """Tell whether a token grid was found for images of a nominal size, and is another one for other sizes."""
    return token_grid is not None and named is None and is_open(graph)


def _ranked(layers: Mapping[ir.Value, Layer], nodes: Sequence[ir.Node]) -> list[Layer]:
    """Return each layer once, the deepest first but what is taken before the others; only the deepest is taken."""
    depth = {v: k for k, node in enumerate(nodes) for v in node.outputs}
    ranked: list[Layer] = []
    is_settled = False
    for value in sorted(layers, key=lambda v: depth[v], reverse=True):
        layer = layers[value]
        if any(other.value is layer.value for other in ranked):
            continue
        if layer.verdict in TAKEN or layer.verdict is Verdict.NO_TOKEN_GRID:
            is_shallower = is_settled and layer.verdict in TAKEN
            layer = replace(layer, verdict=Verdict.SHALLOWER) if is_shallower else layer
            is_settled = True
        ranked.append(layer)
    return sorted(ranked, key=lambda layer: not layer.chosen)


def _behind_tokens(blocks: Blocks) -> set[ir.Value]:
    """Return the values behind the last block of tokens, up to the next convolution."""
    required = [stream for stream in blocks.streams.values() if stream.value in blocks.required]
    if not required:
        return set()
    nodes = blocks.search.nodes
    behind = downstream(nodes, [required[-1].after])
    convolved = [n.outputs[0] for n in nodes if n.op_type in CONVOLUTIONS and n.inputs[0] in behind]
    return behind - downstream(nodes, convolved)


def _ends_block(value: ir.Value, blocks: Blocks) -> bool:
    """Tell whether something other than a pointwise operator on the same grid reads ``value``."""
    readers = [node for node in value.consumers() if any(v in blocks.path for v in node.outputs)]
    return not readers or any(
        not any(v in blocks.on_grid for v in node.outputs) or node.op_type in CONVOLUTIONS for node in readers
    )
