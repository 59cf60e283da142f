"""Tensors that the model does not hold, described by how they are made of its values, and followed back to these.

What a detector computes of its logits (it joins, cuts and reorders probabilities) has to be computed of the logits
themselves. Here it is described; ``targets`` writes it into a graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim, axis_before, joined_axis, permutation, reshaped_axis
from onnx_gradcam.graph.builder import HALF_PRECISION, rank
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import JOINS, REORDERS, STORES
from onnx_gradcam.graph.quantization import real_form


@dataclass(frozen=True, eq=False)
class Repeated:
    """What a node of the model makes of another first input, of the same shape; ``output``: which of its outputs."""

    node: ir.Node
    output: ir.Value
    first: Tensor


@dataclass(frozen=True, eq=False)
class Joined:
    """Some tensors, one behind the other along an axis."""

    parts: tuple[Tensor, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Columns:
    """``count`` columns of a tensor along an axis, from ``start`` on."""

    source: Tensor
    axis: int
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class Arranged:
    """A tensor with its axes in another order, in float32 if it has 16 bits."""

    source: Tensor
    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Flattened:
    """A tensor (N, K, *cells) as (N, K, P)."""

    source: Tensor


@dataclass(frozen=True, eq=False)
class Batched:
    """A tensor of one image without an axis for the batch, with one: (…) as (1, …)."""

    source: Tensor


@dataclass(frozen=True, eq=False)
class Apart:
    """A tensor (N, A·C, …) as (N, A, C, …): the axis ``axis`` taken apart into ``count`` and the rest."""

    source: Tensor
    axis: int
    count: int


Tensor = ir.Value | Repeated | Joined | Columns | Arranged | Flattened | Batched | Apart


def arranged(source: Tensor, order: Sequence[int]) -> Tensor:
    """Return ``source`` with its axes in that order, in float32 if it has 16 bits; itself where it is so already."""
    is_so = list(order) == sorted(order) and dtype_of(source) not in HALF_PRECISION
    return source if is_so else Arranged(source, tuple(order))


def columns(source: Tensor, axis: int, start: int, count: int, total: int) -> Tensor:
    """Return ``count`` of the ``total`` columns of ``source`` from ``start`` on; itself where these are all."""
    return source if count == total else Columns(source, axis, start, count)


def sources(tensor: Tensor) -> list[ir.Value]:
    """Return the values of the model that a tensor is made of, each once."""
    if isinstance(tensor, ir.Value):
        return [tensor]
    return list(dict.fromkeys(v for part in _read_by(tensor) for v in sources(part)))


def column_sources(tensor: Tensor) -> list[ir.Value]:
    """Return the same without values whose columns are cut off again, such as boxes beside classes."""
    if isinstance(tensor, ir.Value):
        return [tensor]
    read = _read_by(tensor)
    if isinstance(tensor, Columns) and isinstance(tensor.source, Joined) and tensor.source.axis == tensor.axis:
        read = _parts_with(tensor.source.parts, tensor)
    return list(dict.fromkeys(v for part in read for v in column_sources(part)))


def _read_by(tensor: Repeated | Joined | Columns | Arranged | Flattened | Batched | Apart) -> tuple[Tensor, ...]:
    if isinstance(tensor, Joined):
        return tensor.parts
    return (tensor.first if isinstance(tensor, Repeated) else tensor.source,)


def _parts_with(parts: Sequence[Tensor], taken: Columns) -> tuple[Tensor, ...]:
    """Return those of the joined parts that hold the taken columns; all where it is not known which do."""
    holding, start = [], 0
    for part in parts:
        count = dims_of(part)[taken.axis]
        if not isinstance(count, int):
            return tuple(parts)
        if start < taken.start + taken.count and taken.start < start + count:
            holding.append(part)
        start += count
    return tuple(holding)


def dtype_of(tensor: Tensor) -> ir.DataType | None:
    """Return the dtype of a tensor, as far as it is known."""
    if isinstance(tensor, ir.Value):
        return tensor.dtype
    inner = dtype_of(_read_by(tensor)[0])
    return ir.DataType.FLOAT if isinstance(tensor, Arranged) and inner in HALF_PRECISION else inner


def dims_of(tensor: Tensor) -> list[Dim]:
    """Return the shape of a tensor. Raises ``ModelError`` where not even the rank is known."""
    if isinstance(tensor, ir.Value):
        rank(tensor)
        return list(tensor.shape or ())
    if isinstance(tensor, Repeated):
        return _dims_of_repeated(tensor)
    if isinstance(tensor, Joined):
        return _dims_of_joined([dims_of(part) for part in tensor.parts], tensor.axis)
    dims = dims_of(tensor.source)
    if isinstance(tensor, Columns):
        return [tensor.count if k == tensor.axis else d for k, d in enumerate(dims)]
    if isinstance(tensor, Arranged):
        return [dims[k] for k in tensor.order]
    if isinstance(tensor, Batched):
        return [1, *dims]
    if isinstance(tensor, Apart):
        whole = dims[tensor.axis]
        rest: Dim = whole // tensor.count if isinstance(whole, int) else ir.SymbolicDim(None)
        return [*dims[: tensor.axis], tensor.count, rest, *dims[tensor.axis + 1 :]]
    known = [d for d in dims[2:] if isinstance(d, int)]
    return [*dims[:2], math.prod(known) if len(known) == len(dims) - 2 else ir.SymbolicDim(None)]


def _dims_of_repeated(tensor: Repeated) -> list[Dim]:
    if tensor.node.op_type != "Transpose":
        return dims_of(tensor.output)
    dims = dims_of(tensor.first)
    return [dims[k] for k in permutation(tensor.node, len(dims))]


def _dims_of_joined(parts: Sequence[Sequence[Dim]], axis: int) -> list[Dim]:
    dims: list[Dim] = []
    for k, along in enumerate(zip(*parts, strict=True)):
        known = [d for d in along if isinstance(d, int)]
        if k == axis:
            dims.append(sum(known) if len(known) == len(parts) else ir.SymbolicDim(None))
        else:
            dims.append(known[0] if known else along[0])
    return dims


# --- followed back ----------------------------------------------------------------------------------------------


def step_back(tensor: Tensor, axis: int, column: int) -> tuple[Tensor, int, int] | None:
    """Return what a column was before the last operator, where that only moves entries; None where it computes.

    Args:
        tensor: the tensor.
        axis: the axis of the columns.
        column: the number of the column.

    Returns:
        The tensor before, its axis of the columns, and the number of the column there.
    """
    if isinstance(tensor, ir.Value):
        node = tensor.producer()
        first = node.inputs[0] if node is not None and node.inputs else None
        return None if node is None or first is None else _step_over(node, tensor, first, axis, column)
    if isinstance(tensor, Repeated):
        return _step_over(tensor.node, tensor.output, tensor.first, axis, column)
    if isinstance(tensor, Joined):
        return _part_with(tensor.parts, axis, column) if axis == tensor.axis else None
    before = source_axis(tensor, tensor.source, axis)
    skipped = tensor.start if isinstance(tensor, Columns) and axis == tensor.axis else 0
    return None if before is None else (tensor.source, before, column + skipped)


def _step_over(node: ir.Node, value: ir.Value, first: Tensor, axis: int, column: int) -> tuple[Tensor, int, int] | None:
    """Return what a column of ``value``, an output of ``node``, was in ``first``, which the node reads."""
    if value.shape is None:
        return None
    if node.op_type in JOINS and joined_axis(node) == axis:
        return _part_with(joined_values(node), axis, column)
    source = node.inputs[0]
    if node.op_type in STORES and source is not None:
        return first, axis, column
    if node.op_type in REORDERS and source is not None:
        before = axis_before(node, source, axis)
        return None if before is None else (first, before, column)
    if node.op_type in ("Slice", "Split"):
        kept = columns_of(node, value, axis)
        return None if kept is None else (first, axis, column + (kept.start or 0))
    return None


def joined_values(node: ir.Node) -> list[ir.Value]:
    """Return what a Concat joins, in the form of real numbers."""
    data = node.inputs[2::3] if node.op_type == "QLinearConcat" else node.inputs
    return [real_form(v) for v in data if v is not None]


def _part_with(parts: Sequence[Tensor], axis: int, column: int) -> tuple[Tensor, int, int] | None:
    """Return the part that holds a column of what they are joined to along ``axis``."""
    for part in parts:
        if isinstance(part, ir.Value) and part.shape is None:
            return None
        count = dims_of(part)[axis]
        if not isinstance(count, int):
            return None
        if column < count:
            return part, axis, column
        column -= count
    return None


def source_axis(tensor: Tensor, source: Tensor, axis: int) -> int | None:
    """Return the axis of ``source``, to which ``step_back`` went, that ``axis`` of the tensor comes from."""
    if isinstance(tensor, Arranged):
        return tensor.order[axis]
    if isinstance(tensor, Flattened):
        before, after = dims_of(tensor.source), dims_of(tensor)
        candidates = [k for k in range(len(before)) if reshaped_axis(before, after, k) == axis]
        return candidates[0] if len(candidates) == 1 else None
    if isinstance(tensor, Batched):
        return axis - 1 if axis else None
    if isinstance(tensor, Apart):
        return axis if axis < tensor.axis else None if axis == tensor.axis else axis - 1
    if isinstance(tensor, Joined | Columns):
        return axis
    if isinstance(tensor, Repeated):
        first = tensor.node.inputs[0]
        return None if first is None else axis_before(tensor.node, first, axis)
    node = tensor.producer()
    return axis_before(node, source, axis) if node is not None and isinstance(source, ir.Value) else None


def columns_of(node: ir.Node, value: ir.Value, axis: int) -> slice | None:
    """Return which columns of its source along ``axis`` a Slice or Split leaves in ``value``; None: not known.

    Of every other operator all of them.
    """
    if node.op_type == "Split" and node.attributes.get_int("axis", 0) % rank(value) == axis:
        return _part_of_split(node, value, axis)
    if node.op_type == "Slice":
        starts, ends, axes, steps = [_numbers(node, i) for i in (1, 2, 3, 4)]
        if starts is None or ends is None:
            return None
        for k, sliced in enumerate(axes or range(len(starts))):
            if sliced % rank(value) == axis:
                return slice(starts[k], ends[k], steps[k] if steps else 1)
    return slice(None)


def _part_of_split(node: ir.Node, value: ir.Value, axis: int) -> slice | None:
    start = 0
    for output in node.outputs:
        size = output.shape[axis] if output.shape is not None else None
        if not isinstance(size, int):
            return None
        if output is value:
            return slice(start, start + size)
        start += size
    return None


def _numbers(node: ir.Node, i: int) -> list[int] | None:
    array = constant(node.inputs[i]) if i < len(node.inputs) else None
    return None if array is None else [int(n) for n in array.ravel()]
