"""Where the layers of dense scores may lie: on the grid of a convolution or pooling, or before a block of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.grids import grids, has_space
from onnx_gradcam.anatomy.layer import Layer, LayerSearch, Verdict
from onnx_gradcam.anatomy.positions import SpatialLayout
from onnx_gradcam.anatomy.stages import depends_on_size
from onnx_gradcam.anatomy.tokens import RESIDUAL_SUMS, TokenPositions, TokenStream, may_have_tokens
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import between, steps_of
from onnx_gradcam.graph.operators import CONVOLUTIONS, POOLINGS
from onnx_gradcam.graph.quantization import real_form


@dataclass(frozen=True)
class Places:
    """The values of a network that have several positions in the image, none of them inside a block of tokens.

    Attributes:
        search: what is looked at.
        layouts: for each value how it becomes (N, C, *space).
    """

    search: LayerSearch
    layouts: Mapping[Value, SpatialLayout]

    def layer(self, value: Value, verdict: Verdict, level: int | None = None) -> Layer:
        """Return the layer that a value is."""
        layout = self.layouts[value]
        opened = depends_on_size(self.search.graph, layout.token_grid, self.search.token_grid)
        return Layer(real_form(value), layout.axes, verdict, layout.token_grid, opened, level)

    def space(self, value: Value) -> list[Dim]:
        """Return how many positions a value has along each spatial axis."""
        layout = self.layouts[value]
        if layout.token_grid is not None:
            return list(layout.token_grid.shape)
        return [] if value.shape is None else [value.shape[k] for k in layout.axes[2:]]


def find_places(search: LayerSearch) -> Places:
    """Return the places of a network: the values on a grid, and what each block of tokens reads."""
    on_grid = grids(search.nodes, CONVOLUTIONS | POOLINGS)
    streams = TokenPositions(search.graph).streams() if may_have_tokens(search.nodes, on_grid) else []
    inner = _inside(search.nodes, streams)
    layouts = {v: SpatialLayout(axes) for v, axes in on_grid.items() if has_space(v, axes) and v not in inner}
    placed = {s.value: layout for s in streams if (layout := _layout(search, s)) is not None and s.value not in inner}
    return Places(search, layouts | placed)


def _layout(search: LayerSearch, stream: TokenStream) -> SpatialLayout | None:
    """Return how a stream lies in the image, by the grid that the user names where none was found."""
    layout, named = stream.layout, search.token_grid
    if layout is None and named is not None:
        layout = named.layout(real_form(stream.value))
    return layout if layout is not None and _count(layout, stream.value) > 1 else None


def _count(layout: SpatialLayout, value: Value) -> int:
    if layout.token_grid is not None:
        return layout.token_grid.size
    dims = [] if value.shape is None else [value.shape[k] for k in layout.axes[2:]]
    return math.prod(d for d in dims if isinstance(d, int))


def _inside(nodes: Sequence[ir.Node], streams: Sequence[TokenStream]) -> set[Value]:
    """Return what lies inside a block: between the stream that it reads and the sum that it ends in, or the next one.

    The next sum ends the perceptron of the block, where no other block begins before it.
    """
    steps, inner, begun = steps_of(nodes), set[Value](), {stream.value for stream in streams}
    for stream in streams:
        sums = [node.outputs[-1] for node in stream.after.consumers() if node.op_type in RESIDUAL_SUMS]
        for begin, end in ((stream.value, stream.after), *((stream.after, v) for v in sums)):
            of_block = between(steps, [begin], end) - {begin, end}
            inner |= of_block if begun.isdisjoint(of_block) else set()
    return inner
