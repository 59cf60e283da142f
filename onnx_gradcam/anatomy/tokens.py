"""Networks of tokens: where their blocks begin, and how a stream of tokens becomes a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.grids import CONVOLUTIONS, convolved_axes, grids, input_axes
from onnx_gradcam.anatomy.positions import LINEAR, STAYING, Layout, Positions, follow, is_linear, layout_of, varies
from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.flow import carriers, downstream, upstream
from onnx_gradcam.graph.prepare.prepare import with_shapes

ADDING = frozenset(("Add", "Sum", "SkipLayerNormalization", "QLinearAdd"))
PRODUCTS = frozenset(("Einsum", *LINEAR))
MIXING = frozenset("Attention DFT GRU GroupQueryAttention LSTM MultiHeadAttention QAttention RNN Scan".split())
COPYING = frozenset(("Cast", "DequantizeLinear", "Identity", "QuantizeLinear"))
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
    """Whether a product off the grid is taken of a value with three or more axes."""
    return any(
        node.op_type in PRODUCTS | MIXING
        and node.outputs[0] not in on_grid
        and v is not None
        and v.shape is not None
        and len(v.shape) > 2
        for node in nodes
        for v in node.inputs[:1]
    )


class Tokens:
    """The places of all values of ``graph`` for one size of its inputs."""

    def __init__(self, graph: ir.Graph, sizes: Mapping[str, Sequence[int]] | None = None) -> None:
        self._original = ir.convenience.create_value_mapping(graph)
        self._graph = with_shapes(graph, sizes or nominal_sizes(graph))
        self._nodes = list(self._graph)
        images = {v: _image_axes(self._nodes, v) for v in self._graph.inputs if len(v.shape or ()) > 2}
        self._begin = grids(self._nodes)
        self._found = follow(self._nodes, {**self._begin, **images}, self._graph.inputs)
        over_tokens: set[ir.Node] = set()
        while (found := self._convolutions_over_tokens()) - over_tokens:
            over_tokens |= found
            self._begin = grids(self._nodes, without=over_tokens)
            self._found = follow(self._nodes, {**self._begin, **images}, self._graph.inputs)
        self._by_name = {v.name: v for v in self._found}

    def on_grid(self) -> dict[ir.Value, Axes]:
        """As ``grids`` of the graph, without the convolutions that take tokens for channels."""
        return {self._original[v.name]: axes for v, axes in self._begin.items() if v.name in self._original}

    def _mixes_channels(self, node: ir.Node) -> bool:
        """Whether the places differ along the channel axis of a convolution: it is a linear layer over tokens."""
        return any(varies(p, convolved_axes(node, p.ndim)[1]) for p in self._places(node.inputs[0])[1:])

    def _convolutions_over_tokens(self) -> set[ir.Node]:
        """The convolutions that take tokens for channels: of placed tokens, or of what such ones made of them."""
        found: set[ir.Node] = set()
        made: set[ir.Value] = set()
        for node in self._nodes:
            inside = [v for v in node.inputs if v in made]
            if node.op_type in CONVOLUTIONS and (node.inputs[0] in inside or self._mixes_channels(node)):
                found.add(node)
                made.update(node.outputs)
            elif node.op_type in STAYING and inside and not any(self._places(v) for v in node.inputs if v not in made):
                made.update(node.outputs)
        return found

    def _places(self, value: ir.Value | None) -> Positions:
        return () if value is None else self._found.get(value, ())

    def layout(self, name: str | None) -> Layout | None:
        """How the value called ``name`` becomes (N, C, *space), where that is known."""
        value = self._by_name.get(name)
        positions = self._found[value] if value is not None else ()
        return layout_of(positions) if positions else None

    def streams(self) -> list[Stream]:
        """What the blocks of tokens read, in graph order.

        A block ends in an Add of two values of one shape that both depend on the image: one whose elements are still in
        their places, the stream, and one that was mixed on the way from the stream.
        """
        reached = downstream(self._nodes, [v for v, p in self._found.items() if p])
        mixed = {v for node in self._nodes if self._mixes(node, reached) for v in node.outputs}
        found = []
        for node in self._nodes if mixed else ():
            if node.op_type in ADDING and node.outputs[-1].name:
                value = node.outputs[-1]  # that of SkipLayerNormalization is the sum
                given = [v for v in node.inputs if v in reached and v is not None and _may_be_alike(v, value)]
                placed = [v for v in given if self._places(v)]
                others = [v for v in given if not self._places(v)]
                if placed and any(mixed & upstream(self._nodes, v) & self._behind(placed[0]) for v in others):
                    found.append(self._stream(placed[0], value))
        return found

    def _behind(self, value: ir.Value) -> set[ir.Value]:
        """What depends on ``value``, or on what it is a quantized or dequantized copy of."""
        copies = [value]
        while (node := copies[-1].producer()) is not None and node.op_type in COPYING and node.inputs[0] is not None:
            copies.append(node.inputs[0])
        return downstream(self._nodes, copies)

    def _mixes(self, node: ir.Node, reached: Set[ir.Value]) -> bool:
        """Whether tokens meet in ``node``: attention, a product of two values that depend on the image, a recurrence, a
        linear layer over tokens."""
        dynamic = [v for _, v in carriers(node) if v in reached]
        if node.op_type in MIXING:
            return bool(dynamic)
        if node.op_type in CONVOLUTIONS:
            return self._mixes_channels(node)
        if is_linear(node):
            places = self._places(node.inputs[0])[1:]
            return any(varies(p, p.ndim - 1) for p in places) and not self._places(node.outputs[0])
        return node.op_type in PRODUCTS and len(dynamic) > 1

    def _stream(self, value: ir.Value, after: ir.Value) -> Stream:
        names = value.name or "", after.name or ""
        return Stream(self._original[names[0]], self._original[names[1]], self.layout(names[0]))


def _image_axes(nodes: Sequence[ir.Node], value: ir.Value) -> Axes:
    """As a convolution reads the image; where none does, channels are last if there are 1, 3 or 4 of them."""
    dims = static_dims(value) or ()
    last = len(dims) - 1
    by_size = (0, last, *range(1, last)) if dims[last] in (1, 3, 4) and dims[1] not in (1, 3, 4) else range(last + 1)
    return input_axes(nodes, value) or tuple(by_size)


def _may_be_alike(a: ir.Value, b: ir.Value) -> bool:
    """Whether two values have one shape, as far as is known."""
    return static_dims(a) is None or static_dims(a) == static_dims(b)


def is_open(graph: ir.Graph) -> bool:
    """Whether a size of an input, other than the batch, is not known before the run."""
    return any(not isinstance(d, int) for v in graph.inputs for d in list(v.shape or ())[1:])


def nominal_sizes(graph: ir.Graph) -> dict[str, tuple[int, ...]]:
    """The declared sizes of the inputs; two images where the batch is open, ``SIDE`` where the size is."""
    return {
        v.name or "": tuple(d if isinstance(d, int) else 2 if k == 0 else SIDE for k, d in enumerate(v.shape or ()))
        for v in graph.inputs
    }


@dataclass(frozen=True)
class Grid:
    """The grid that the user says: its sizes, and how many tokens come before it (None: all that are too many)."""

    sizes: tuple[int, ...]
    before: int | None = None

    @classmethod
    def parse(cls, text: str) -> Grid:
        """ "14x14", or "14x14+1" with one token before the grid. Raises ``LayerError``."""
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*(\+\d+)?", text):
            raise LayerError(
                f"{text!r} is no grid",
                hint="14x14, or 14x14+1: 14 rows of 14 tokens after one token that has no place in the image",
                grid=text,
            )
        sizes, _, before = text.partition("+")
        return cls(tuple(int(size) for size in sizes.split("x")), int(before) if before else None)

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        return "x".join(map(str, self.sizes)) + ("" if self.before is None else f"+{self.before}")

    def layout(self, value: ir.Value) -> Layout:
        """How ``value``, of shape (N, tokens, C), (N, *grid, C) or (N, C, *grid), becomes (N, C, *grid).

        Raises ``LayerError`` for a value that this grid does not fit.
        """
        dims = [d if isinstance(d, int) else None for d in value.shape or ()]
        count, rank = math.prod(self.sizes), len(self.sizes) + 2
        if len(dims) == rank and dims[1:-1] == [*self.sizes] and rank > 3:
            return Layout((0, rank - 1, *range(1, rank - 1)))
        if len(dims) == rank and dims[2:] == [*self.sizes] and rank > 3:
            return Layout(tuple(range(rank)))
        if len(dims) == 3 and (dims[1] is not None or self.before is not None):
            first = self.before if self.before is not None else (dims[1] or 0) - count
            if first >= 0 and (dims[1] is None or first + count <= dims[1]):
                return Layout((0, 2, 1), first + np.arange(count).reshape(self.sizes))
        raise LayerError(
            f"the grid {self} does not fit {value.name!r}",
            where=f"shape {'?' if value.shape is None else value.shape}",
            hint="of a value (N, tokens, C) the grid holds at most the tokens: 14x14 of 197, or 14x14+1",
            name=value.name,
        )
