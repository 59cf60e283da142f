"""Networks of tokens: where their blocks begin, and how a stream of tokens becomes a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.flow import downstream
from onnx_gradcam.graph.grids import grids
from onnx_gradcam.graph.positions import Layout, Positions, follow, layout_of
from onnx_gradcam.graph.prepare import with_shapes

ADDING = frozenset(("Add", "Sum", "SkipLayerNormalization"))
MIXING = frozenset("Attention Einsum FusedMatMul Gemm MatMul MultiHeadAttention".split())
SIDE = 224  # of an image whose size the model leaves open
Axes = tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """The values that blocks of tokens read, and what an Add makes of each: the stream plus what the block mixed.

    ``layout`` is None where the places of the tokens are not a regular grid.
    """

    value: ir.Value
    after: ir.Value
    layout: Layout | None


def may_have_tokens(nodes: Sequence[ir.Node], on_grid: Mapping[ir.Value, Axes]) -> bool:
    """Whether something is computed of a value with three or more axes that is off the grid."""
    return any(
        node.op_type in MIXING and v is not None and v not in on_grid and v.shape is not None and len(v.shape) > 2
        for node in nodes
        for v in node.inputs[:1]
    )


class Tokens:
    """The places of all values of ``graph`` for one size of its inputs."""

    def __init__(self, graph: ir.Graph, sizes: Mapping[str, Sequence[int]] | None = None) -> None:
        self._original = ir.convenience.create_value_mapping(graph)
        self._graph = with_shapes(graph, sizes or nominal_sizes(graph))
        self._nodes = list(self._graph)
        begin = grids(self._nodes)
        begin.update({v: tuple(range(len(v.shape or ()))) for v in self._graph.inputs if len(v.shape or ()) > 2})
        self._found = follow(self._nodes, begin, self._graph.inputs)
        self._by_name = {v.name: v for v in self._found}

    def layout(self, name: str | None) -> Layout | None:
        """How the value called ``name`` becomes (N, C, *space), where that is known."""
        value = self._by_name.get(name)
        positions = self._found[value] if value is not None else ()
        return layout_of(positions) if positions else None

    def streams(self) -> list[Stream]:
        """What the blocks of tokens read, in graph order.

        A block ends in an Add of two values of one shape that both depend on the image: one whose elements are still in
        their places, the stream, and one in which places are mixed.
        """
        reached = downstream(self._nodes, [v for v, p in self._found.items() if p])
        found = []
        for node in self._nodes:
            if node.op_type in ADDING:
                value = node.outputs[0]
                same = [v for v in node.inputs if v in reached and v is not None and _alike(v, value)]
                placed = [v for v in same if self._found.get(v)]
                if placed and len(placed) < len(same):
                    found.append(self._stream(placed[0], value))
        return found

    def _stream(self, value: ir.Value, after: ir.Value) -> Stream:
        names = value.name or "", after.name or ""
        return Stream(self._original[names[0]], self._original[names[1]], self.layout(names[0]))


def _alike(a: ir.Value, b: ir.Value) -> bool:
    return static_dims(a) is not None and static_dims(a) == static_dims(b)


def nominal_sizes(graph: ir.Graph) -> dict[str, tuple[int, ...]]:
    """The declared sizes of the inputs; two images where the batch is open, ``SIDE`` where the size is."""
    return {
        v.name or "": tuple(
            d if isinstance(d, int) else 2 if k == 0 else SIDE for k, d in enumerate(v.shape or ())
        )
        for v in graph.inputs
    }
