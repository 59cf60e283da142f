"""Parts of outputs: the columns that one convolution or linear layer made, with the grid that they lie on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense.tensors import Apart, Tensor, columns
from onnx_gradcam.anatomy.entries.columns import Column, Entries
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.anatomy.vectors import Batches, batch_axis
from onnx_gradcam.graph.builder import Value

RAW, SQUASHED, CHANGED = "raw", "squashed", "changed"


class Part(NamedTuple):
    """Some columns of an output, ``value``, with one history.

    Attributes:
        value: the output.
        source: the logits of all its columns; the output itself where nothing squashes them.
        axis: the axis of the columns.
        start: the number of the first column.
        width: how many columns there are.
        total: how many columns the output has.
        cells: the dimensions of its grid.
        state: ``RAW``, as a convolution or linear layer made them; ``SQUASHED``, by a Sigmoid; ``CHANGED``, by
            arithmetic.
        origins: what made them, one value for each level.
    """

    value: Value
    source: Tensor
    axis: int
    start: int
    width: int
    total: int
    cells: tuple[Dim, ...]
    state: str
    origins: frozenset[Value] = frozenset()

    def tensor(self, anchors: int = 1) -> Tensor:
        """Return the columns; those of several anchors behind an axis of the anchors."""
        taken = columns(self.source, self.axis, self.start, self.width, self.total)
        return taken if anchors == 1 else Apart(taken, self.axis, anchors)

    def column_axis(self, anchors: int = 1) -> int:
        """Return the axis of the columns in ``tensor``."""
        return self.axis + (anchors > 1)


Grids = list[list[Part]]


def parts_of(value: Value, known: Mapping[Value, Entries], batches: Batches, sizes: Sizes) -> list[Part]:
    """Return the parts of an output in the order of their columns; empty where its columns or its batch are not known.

    Args:
        value: an output, or what a user names.
        known: the entries of the values of its graph.
        batches: the first dimensions of the inputs.
        sizes: the sizes of the values.
    """
    entries = known.get(value)
    dims = [] if value.shape is None else list(value.shape)
    if entries is None or len(dims) < 3:
        return []
    axis = entries.axis
    others = [k for k in range(len(dims)) if k != axis]
    batch = batch_axis(value, dims, others, batches)
    if batch is None:
        return []
    nominal = sizes.dims(value)
    cells = tuple(nominal[k] for k in others if k != batch)
    parts: list[Part] = []
    start = 0
    for (origins, state), run in groupby(entries.columns, key=_history):
        width = len(list(run))
        source = value if state == CHANGED else entries.logits
        parts.append(Part(value, source, axis, start, width, len(entries.columns), cells, state, origins))
        start += width
    return parts


def _history(column: Column) -> tuple[frozenset[Value], str]:
    if column.is_raw:
        return column.origins, RAW
    return column.origins, SQUASHED if column.kind == ("Sigmoid", "") else CHANGED


def by_grid(parts: Sequence[Part]) -> Grids:
    """Return the parts that lie on one grid together, the grids in the order of the outputs."""
    grids: dict[tuple[Dim, ...], list[Part]] = {}
    for part in parts:
        grids.setdefault(part.cells, []).append(part)
    return list(grids.values())


def listed(parts: Sequence[Part]) -> str:
    """Return the numbers of columns, for a sentence."""
    return " + ".join(str(part.width) for part in parts)


def counted(grids: Sequence[Sequence[Part]]) -> str:
    """Return how many grids there are, for a sentence."""
    return "one grid" if len(grids) == 1 else f"{len(grids)} grids"


def is_convolved(part: Part) -> bool:
    """Tell whether convolutions made the columns, cell by cell."""
    made = [value.producer() for value in part.origins]
    return bool(made) and all(isinstance(node, ir.Node) and "Conv" in node.op_type for node in made)
