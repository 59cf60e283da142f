"""The shapes of all values, for images of a nominal size where a model leaves theirs open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.tokens import is_open, nominal_sizes
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.prepare.prepare import with_shapes


class Sizes(NamedTuple):
    """The shapes of the values of a graph."""

    nominal: Mapping[str | None, list[Dim]]

    @classmethod
    def of(cls, graph: ir.Graph) -> Sizes:
        """Return the sizes of a graph; those of a model that leaves none open are its own."""
        if not is_open(graph):
            return cls({})
        sized = with_shapes(graph, nominal_sizes(graph))
        values = [*sized.inputs, *(v for node in sized for v in node.outputs)]
        return cls({v.name: list(v.shape) for v in values if v.shape is not None})

    def dims(self, value: Value) -> list[Dim]:
        """Return the dimensions of a value."""
        return self.nominal.get(value.name, list(value.shape or ()))

    def numbers(self, value: Value) -> int | None:
        """Return how many numbers a value has for one image; None where that is not known."""
        dims = self.dims(value)[1:]
        known = [d for d in dims if isinstance(d, int)]
        return math.prod(known) if dims and len(known) == len(dims) else None
