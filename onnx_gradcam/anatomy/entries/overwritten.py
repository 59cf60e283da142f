"""Operators that write columns over those of another value: an assignment to a slice, as exporters write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.dense.tensors import Columns, Joined, Tensor, dims_of
from onnx_gradcam.anatomy.entries.columns import Column, Entries, columns_in, kept
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.quantization import real_form

Known = Mapping[ir.Value, Entries]
Source = tuple[bool, int]
"""Where a column comes from: whether it is written, and its number in what is written or in what was there."""


def overwritten(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a ScatterND that writes whole columns; None where it writes single cells."""
    data, indices, updates = node.inputs[:3]
    assert data is not None
    assert updates is not None
    places = constant(indices)
    axis = known[updates].axis if updates in known else known[data].axis
    count = columns_in(data, axis)
    if places is None or count is None or node.attributes.get_string("reduction", "none") != "none":
        return [None]
    written = _written_columns(places, data, axis)
    if written is None or columns_in(updates, axis) != len(written):
        return [None]
    taken: list[Source] = [(True, written.index(k)) if k in written else (False, k) for k in range(count)]
    before, after = _columns(known, data, axis, count), _columns(known, updates, axis, len(written))
    if before is None or after is None:
        return [None]
    columns = tuple((after if is_written else before)[k] for is_written, k in taken)
    parts = {True: _logits(known, updates), False: _logits(known, data)}
    runs = groupby(enumerate(taken), key=lambda each: (each[1][0], each[1][1] - each[0]))
    pieces = [list(each) for _, each in runs]
    cut = [_part(parts[run[0][1][0]], axis, run[0][1][1], len(run)) for run in pieces]
    is_squashed = any(column.is_probability for column in columns)
    value = real_form(node.outputs[0])
    return [Entries(Joined(tuple(cut), axis) if is_squashed else value, axis, columns)]


def gathered_rows(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a GatherND that takes whole columns, along the first axis."""
    source, indices = node.inputs[:2]
    assert source is not None
    entries, places = known[source], constant(indices)
    is_by_rows = entries.axis == 0 and places is not None and places.ndim == 2 and places.shape[1] == 1
    if places is None or not is_by_rows or node.attributes.get_int("batch_dims", 0) != 0:
        return [None]
    return [kept(entries, node, node.outputs[0], 0, [entries.columns[int(k)] for k in places[:, 0]])]


def _written_columns(places: np.ndarray, data: ir.Value, axis: int) -> list[int] | None:
    """Return the numbers of the columns that are written, in all cells in their order; None where only some cells are.

    Args:
        places: the indices of a ScatterND: of rows of the first axis (n, 1), or of single entries (…, rank).
        data: what is written over.
        axis: the axis of the columns.
    """
    rank = 0 if data.shape is None else len(data.shape)
    if places.ndim == 2 and places.shape[1] == 1 and axis == 0:
        return [int(k) for k in places[:, 0]]
    if places.ndim != rank + 1 or places.shape[-1] != rank or data.shape is None:
        return None
    sizes = places.shape[:-1]
    if any(size != dim for k, (size, dim) in enumerate(zip(sizes, data.shape, strict=True)) if k != axis):
        return None
    here = np.moveaxis(np.indices(sizes, dtype=places.dtype), 0, -1)
    numbers = np.moveaxis(places[..., axis], axis, 0).reshape(sizes[axis], -1)
    others = [k for k in range(rank) if k != axis]
    if not np.array_equal(places[..., others], here[..., others]) or (numbers != numbers[:, :1]).any():
        return None
    return [int(k) for k in numbers[:, 0]]


def _columns(known: Known, value: ir.Value, axis: int, count: int) -> Sequence[Column] | None:
    """Return the columns of ``value``, without a history where it has none; None where they lie along another axis."""
    if value not in known:
        return (Column(),) * count
    return known[value].columns if known[value].axis == axis else None


def _logits(known: Known, value: ir.Value) -> Tensor:
    return known[value].logits if value in known else real_form(value)


def _part(tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """Return columns of ``tensor``; of joined parts only those that hold them."""
    if isinstance(tensor, Joined) and tensor.axis == axis:
        skipped = 0
        for part in tensor.parts:
            width = dims_of(part)[axis]
            if not isinstance(width, int):
                break
            if skipped <= start and start + count <= skipped + width:
                return _part(part, axis, start - skipped, count)
            skipped += width
    whole = dims_of(tensor)[axis]
    return tensor if whole == count and start == 0 else Columns(tensor, axis, start, count)
