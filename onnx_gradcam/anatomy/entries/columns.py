"""The entries of a value, column by column: what made them, and what has been done to them since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.tensors import Repeated, Tensor
from onnx_gradcam.graph.quantization import real_form


@dataclass(frozen=True)
class Column:
    """The history of one column: the entries that one output of a convolution or linear layer makes in all cells.

    Attributes:
        origins: what convolutions and linear layers made of it, one value for each level.
        squashed_by: the last Sigmoid or Softmax that it passed through; None where it passed through none.
        changed_by: the first operator that did arithmetic with the entries after that, "" where none has. Moving,
            joining, storing (Cast, quantization) and, before a Sigmoid or Softmax, adding a bias change nothing.
    """

    origins: frozenset[ir.Value] = frozenset()
    squashed_by: ir.Node | None = None
    changed_by: str = ""

    @property
    def is_probability(self) -> bool:
        """Return whether it holds probabilities that nothing has changed since."""
        return self.squashed_by is not None and not self.changed_by

    @property
    def is_raw(self) -> bool:
        """Return whether it holds what a convolution or linear layer made, and nothing has changed it since."""
        return self.squashed_by is None and not self.changed_by and bool(self.origins)

    @property
    def kind(self) -> tuple[str, str]:
        """Return what was done to it, by the names of the operators."""
        squash = self.squashed_by.op_type.removeprefix("QLinear") if self.squashed_by is not None else ""
        return squash, self.changed_by


@dataclass(frozen=True)
class Entries:
    """The entries of a value.

    Attributes:
        logits: what they were before they were squashed, of the same shape; the value itself where none was, and
            anything in columns that were changed since.
        axis: the axis of the columns.
        columns: the history of each.
        objectness: logits of one column, by whose probabilities they were multiplied; None where they were not.
    """

    logits: Tensor
    axis: int
    columns: tuple[Column, ...]
    objectness: Tensor | None = None

    @cached_property
    def distinct(self) -> tuple[Column, ...]:
        """Return each column object once, which thousands of places may share."""
        return tuple(dict(zip(map(id, self.columns), self.columns, strict=True)).values())

    @cached_property
    def are_squashed(self) -> bool:
        """Return whether any column holds probabilities."""
        return any(column.is_probability for column in self.distinct)

    @property
    def squashed_by(self) -> tuple[ir.Node | None, ...]:
        """Return for each column of probabilities the Sigmoid or Softmax that made them, None for the others."""
        return tuple(c.squashed_by if c.is_probability else None for c in self.columns)


def made_by(value: ir.Value, axis: int) -> Entries | None:
    """Return the entries of what a convolution or linear layer makes; None where the number of columns is open."""
    count = columns_in(value, axis)
    return None if count is None else Entries(real_form(value), axis, (Column(frozenset([value])),) * count)


def changed(entries: Entries, value: ir.Value, op_type: str) -> Entries | None:
    """Return the entries of ``value``, which arithmetic made of those; None where the columns do not stay."""
    if columns_in(value, entries.axis) != len(entries.columns):
        return None
    return Entries(real_form(value), entries.axis, each(lambda c: after(c, op_type), entries.columns))


def after(column: Column, op_type: str) -> Column:
    """Return a column after arithmetic; what changed it first stays."""
    return column if column.changed_by else replace(column, changed_by=op_type)


def each(make: Callable[..., Column], *columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return what ``make`` makes of each column, or of those in the same place of several sequences.

    Of the same objects, which thousands of places may share, it is made once.
    """
    keys = list(zip(*(map(id, row) for row in columns), strict=True))
    distinct = dict(zip(keys, zip(*columns, strict=True), strict=True))
    made = {key: make(*row) for key, row in distinct.items()}
    return tuple(map(made.__getitem__, keys))


def kept(entries: Entries, node: ir.Node, value: ir.Value, axis: int, columns: Sequence[Column]) -> Entries | None:
    """Return the entries of ``value``, an output of a ``node`` that moves entries or takes some of them.

    Args:
        entries: those that the node reads.
        node: the node.
        value: its output.
        axis: the axis of the columns in the output.
        columns: the columns that are left.
    """
    if columns_in(value, axis) != len(columns):
        return None
    logits: Tensor = Repeated(node, value, entries.logits) if entries.are_squashed else real_form(value)
    objectness = entries.objectness
    if objectness is not None:
        if node.op_type != "Transpose":
            return None
        objectness = Repeated(node, value, objectness)
    return Entries(logits, axis, tuple(columns), objectness)


def columns_in(value: ir.Value, axis: int) -> int | None:
    """Return how many columns ``value`` has along ``axis``; None where that is open, or there is no such axis."""
    if value.shape is None or not 0 <= axis < len(value.shape):
        return None
    count = value.shape[axis]
    return count if isinstance(count, int) else None
