"""Networks of tokens: where their blocks begin, and how a stream of tokens becomes a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import convolution_axes
from onnx_gradcam.anatomy.grids import Axes, grids, input_axes
from onnx_gradcam.anatomy.positions import (
    KEEPS_POSITIONS,
    Positions,
    SpatialLayout,
    follow,
    is_linear,
    layout_of,
    varies,
)
from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.flow import Steps, between, carriers, spread, steps_of
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.operators import CONVOLUTIONS, COPIES, PRODUCTS, AxisEffect, operators
from onnx_gradcam.graph.prepare.prepare import with_shapes

RESIDUAL_SUMS = frozenset(("Add", "Sum", "SkipLayerNormalization", "QLinearAdd"))
PRODUCTS_OF_VALUES = PRODUCTS | {"Einsum"}
MIXERS = operators(AxisEffect.MIXED)
QUANTIZED_COPIES = COPIES | operators(AxisEffect.REQUANTIZED)
NOMINAL_SIDE = 224  # of an image whose size the model leaves open


@dataclass(frozen=True)
class TokenStream:
    """What a block of tokens reads, and what an Add makes of it: the stream plus what the block mixed.

    Attributes:
        value: the stream before the block.
        after: the stream after the block.
        layout: how the stream becomes (N, C, *space); None where the positions of the tokens are no regular grid.
    """

    value: ir.Value
    after: ir.Value
    layout: SpatialLayout | None


def may_have_tokens(nodes: Sequence[ir.Node], on_grid: Mapping[ir.Value, Axes]) -> bool:
    """Tell whether a product off the grid is taken of a value with three or more axes."""
    return any(
        node.op_type in PRODUCTS_OF_VALUES | MIXERS
        and node.outputs[0] not in on_grid
        and v is not None
        and v.shape is not None
        and len(v.shape) > 2
        for node in nodes
        for v in node.inputs[:1]
    )


class TokenPositions:
    """The positions of all values of a graph, for one size of its inputs.

    Args:
        graph: a prepared graph.
        sizes: the shape of each input by name; None: those of ``nominal_sizes``.
    """

    def __init__(self, graph: ir.Graph, sizes: Mapping[str, Sequence[int]] | None = None) -> None:
        self._original = values_by_name(graph)
        self._graph = with_shapes(graph, sizes or nominal_sizes(graph))
        self._nodes = list(self._graph)
        images = {v: _image_axes(self._nodes, v) for v in self._graph.inputs if len(v.shape or ()) > 2}
        self._begin = grids(self._nodes)
        self._positions = follow(self._nodes, {**self._begin, **images}, self._graph.inputs)
        over_tokens: set[ir.Node] = set()
        while (more := self._convolutions_over_tokens()) - over_tokens:
            over_tokens |= more
            self._begin = grids(self._nodes, without=over_tokens)
            self._positions = follow(self._nodes, {**self._begin, **images}, self._graph.inputs)
        self._by_name = {v.name: v for v in self._positions}

    @property
    def graph(self) -> ir.Graph:
        """Return the graph in which every shape is known, with the names of the other."""
        return self._graph

    @cached_property
    def _steps(self) -> Steps:
        return steps_of(self._nodes)

    def on_grid(self) -> dict[ir.Value, Axes]:
        """Return the values of the graph as ``grids`` does, without the convolutions that take tokens for channels."""
        return {self._original[v.name]: axes for v, axes in self._begin.items() if v.name in self._original}

    def _mixes_channels(self, node: ir.Node) -> bool:
        """Tell whether positions differ along the channel axis of a convolution: it is a linear layer over tokens."""
        return any(varies(p, convolution_axes(node, p.ndim)[1]) for p in self._of(node.inputs[0])[1:])

    def _runs_along_rows(self, node: ir.Node) -> bool:
        """Tell whether a convolution has fewer spatial axes than the positions of what it reads have coordinates.

        It runs along tokens in one row, or, where no position differs along its axis, along features.
        """
        space = self._of(node.inputs[0])[1:]
        return len(space) > 1 and space[0].ndim - 2 < len(space)

    def _convolutions_over_tokens(self) -> set[ir.Node]:
        """Return the convolutions that begin no grid of the image.

        They take tokens for channels (tokens with positions, or what such ones made), or run along tokens that lie in
        one row, or along features.
        """
        over_tokens: set[ir.Node] = set()
        results: set[ir.Value] = set()
        for node in self._nodes:
            inside = [v for v in node.inputs if v in results]
            if node.op_type in CONVOLUTIONS and (node.inputs[0] in inside or self._mixes_channels(node)):
                over_tokens.add(node)
                results.update(node.outputs)
            elif node.op_type in CONVOLUTIONS and self._runs_along_rows(node):
                over_tokens.add(node)
            elif node.op_type in KEEPS_POSITIONS and inside and not any(self._of(v) for v in {*node.inputs} - results):
                results.update(node.outputs)
        return over_tokens

    def _of(self, value: ir.Value | None) -> Positions:
        return () if value is None else self._positions.get(value, ())

    def layout(self, name: str | None) -> SpatialLayout | None:
        """Return how the value called ``name`` becomes (N, C, *space), or None where that is not known."""
        value = self._by_name.get(name)
        positions = self._positions[value] if value is not None else ()
        return layout_of(positions) if positions else None

    def streams(self) -> list[TokenStream]:
        """Return what the blocks of tokens read, in graph order.

        A block ends in an Add of two values of one shape that both depend on the image: the stream, whose elements are
        still in their positions, and one that was mixed on the way from the stream. Where the positions of a stream are
        not known it is one all the same: what it holds cannot be placed, and no stream before it is the last.
        """
        reached = spread([v for v, p in self._positions.items() if p], self._steps.after)
        mixed = {v for node in self._nodes if self._mixes(node, reached) for v in node.outputs}
        sums = [n for n in self._nodes if n.op_type in RESIDUAL_SUMS and n.outputs[-1].name] if mixed else []
        streams = (self._stream_into(node, reached, mixed) for node in sums)
        return [stream for stream in streams if stream is not None]

    def _stream_into(self, node: ir.Node, reached: Set[ir.Value], mixed: Set[ir.Value]) -> TokenStream | None:
        """Return the stream that the sum ``node`` adds to, where a block of tokens ends in it."""
        value = node.outputs[-1]  # the last output of SkipLayerNormalization is the sum
        terms = [v for v in node.inputs if v in reached and v is not None and _may_be_alike(v, value)]
        placed = [v for v in terms if self._of(v)]
        begin = placed[:1] or [v for v in terms if _has_tokens(v)]
        for before in begin:
            others = [v for v in terms if v is not before and not self._of(v)]
            if any(not mixed.isdisjoint(between(self._steps, _with_originals(before), v)) for v in others):
                names = before.name or "", value.name or ""
                return TokenStream(self._original[names[0]], self._original[names[1]], self.layout(names[0]))
        return None

    def _mixes(self, node: ir.Node, reached: Set[ir.Value]) -> bool:
        """Tell whether tokens meet in ``node``.

        They do in attention, in a product of two values that depend on the image, in a recurrence, and in a linear
        layer over tokens.
        """
        dynamic = [v for _, v in carriers(node) if v in reached]
        if node.op_type in MIXERS:
            return bool(dynamic)
        if node.op_type in CONVOLUTIONS:
            return self._mixes_channels(node)
        if is_linear(node):
            positions = self._of(node.inputs[0])[1:]
            return any(varies(p, p.ndim - 1) for p in positions) and not self._of(node.outputs[0])
        return node.op_type in PRODUCTS_OF_VALUES and len(dynamic) > 1


def _image_axes(nodes: Sequence[ir.Node], value: ir.Value) -> Axes:
    """Return the axes of an image as a convolution reads it.

    Where no convolution does, channels are last if there are 1, 3 or 4 of them.
    """
    dims = static_dims(value) or ()
    last = len(dims) - 1
    by_size = (0, last, *range(1, last)) if dims[last] in (1, 3, 4) and dims[1] not in (1, 3, 4) else range(last + 1)
    return input_axes(nodes, value) or tuple(by_size)


def _with_originals(value: ir.Value) -> list[ir.Value]:
    """Return ``value`` and the values that it is a quantized or dequantized copy of."""
    copies = [value]
    while (node := copies[-1].producer()) is not None:
        if node.op_type not in QUANTIZED_COPIES or node.inputs[0] is None:
            break
        copies.append(node.inputs[0])
    return copies


def _has_tokens(value: ir.Value) -> bool:
    """Tell whether ``value`` may hold several tokens: two of its axes, beside that of the batch, are longer than 1."""
    dims = static_dims(value)
    return dims is not None and sum(d != 1 for d in dims[1:]) > 1


def _may_be_alike(a: ir.Value, b: ir.Value) -> bool:
    """Tell whether two values have one shape, as far as is known."""
    return static_dims(a) is None or static_dims(a) == static_dims(b)


def is_open(graph: ir.Graph) -> bool:
    """Tell whether a size of an input, other than the batch, is not known before the run."""
    return any(not isinstance(d, int) for v in graph.inputs for d in list(v.shape or ())[1:])


def nominal_sizes(graph: ir.Graph) -> dict[str, tuple[int, ...]]:
    """Return the declared sizes of the inputs: two images where the batch is open, 224 where another size is."""
    return {
        v.name or "": tuple(
            d if isinstance(d, int) else 2 if k == 0 else NOMINAL_SIDE for k, d in enumerate(v.shape or ())
        )
        for v in graph.inputs
    }


@dataclass(frozen=True)
class TokenGrid:
    """The token grid that the user names.

    Attributes:
        sizes: how many tokens lie along each spatial axis.
        before: how many tokens come before the grid; None: all that are too many.
    """

    sizes: tuple[int, ...]
    before: int | None = None

    @classmethod
    def parse(cls, text: str) -> TokenGrid:
        """Return the grid of a text such as "14x14", or "14x14+1" with one token before the grid.

        Raises:
            LayerError: the text is no grid.
        """
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*(\+\d+)?", text):
            raise LayerError(
                f"{text!r} is no grid",
                hint="14x14, or 14x14+1: 14 rows of 14 tokens after one token that has no place in the image",
                grid=text,
            )
        sizes, _, before = text.partition("+")
        return cls(tuple(int(size) for size in sizes.split("x")), int(before) if before else None)

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return "x".join(map(str, self.sizes)) + ("" if self.before is None else f"+{self.before}")

    def layout(self, value: ir.Value) -> SpatialLayout:
        """Return how ``value``, of shape (N, tokens, C), (N, *grid, C) or (N, C, *grid), becomes (N, C, *grid).

        Raises:
            LayerError: the grid does not fit the value.
        """
        dims = [d if isinstance(d, int) else None for d in value.shape or ()]
        layout = self._own_axes(dims) or self._tokens_of(dims)
        if layout is None:
            raise LayerError(
                f"the grid {self} does not fit {value.name!r}",
                where=f"shape {'?' if value.shape is None else value.shape}",
                hint="of a value (N, tokens, C) the grid holds at most the tokens: 14x14 of 197, or 14x14+1",
                name=value.name,
            )
        return layout

    def _own_axes(self, dims: Sequence[int | None]) -> SpatialLayout | None:
        """Return the layout of a value that has an axis for each of the grid."""
        rank = len(self.sizes) + 2
        if len(dims) != rank or rank <= 3:
            return None
        if list(dims[1:-1]) == [*self.sizes]:
            return SpatialLayout((0, rank - 1, *range(1, rank - 1)))
        return SpatialLayout(tuple(range(rank))) if list(dims[2:]) == [*self.sizes] else None

    def _tokens_of(self, dims: Sequence[int | None]) -> SpatialLayout | None:
        """Return the layout of a value (N, tokens, C)."""
        if len(dims) != 3 or (dims[1] is None and self.before is None):
            return None
        count = math.prod(self.sizes)
        first = self.before if self.before is not None else (dims[1] or 0) - count
        if first < 0 or (dims[1] is not None and first + count > dims[1]):
            return None
        return SpatialLayout((0, 2, 1), first + np.arange(count).reshape(self.sizes))
