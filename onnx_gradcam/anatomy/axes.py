"""How output axes come from input axes, operator by operator; all finders share it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import ints_of, rank
from onnx_gradcam.graph.operators import CHANNELS_LAST, REORDERS

Dim = int | ir.SymbolicDim
MOST_ANCHORS = 12  # in one cell, of one class


def permutation(node: ir.Node, count: int) -> list[int]:
    """Return for each of the ``count`` output axes of a Transpose the input axis that it is."""
    return list(node.attributes.get_ints("perm", None) or reversed(range(count)))


def listed_axes(node: ir.Node, value: ir.Value) -> set[int] | None:
    """Return the axes of ``value`` that a Squeeze removes or an Unsqueeze adds; None where they are not constant."""
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None or value.shape is None else {k % len(value.shape) for k in axes}


def turned_axes(node: ir.Node) -> list[int]:
    """Return the axes along which a Slice takes everything from the last to the first: it mirrors them."""
    starts, ends, axes, steps = [ints_of(node.inputs[k]) if len(node.inputs) > k else None for k in (1, 2, 3, 4)]
    source = node.inputs[0]
    if starts is None or ends is None or steps is None or source is None or source.shape is None:
        return []
    each = zip(axes or range(len(starts)), starts, steps, strict=True)
    return [axis % len(source.shape) for axis, start, step in each if step == -1 and start == -1]


def convolution_axes(node: ir.Node, count: int) -> tuple[int, ...]:
    """Return the ``count`` axes of what a convolution or pooling reads and makes, as (N, C, *space)."""
    last = node.op_type in CHANNELS_LAST or node.attributes.get_int("channels_last", 0) == 1
    return (0, count - 1, *range(1, count - 1)) if last else tuple(range(count))


def joined_axis(node: ir.Node) -> int:
    """Return the axis along which a Concat joins, counted from the first."""
    return node.attributes["axis"].as_int() % rank(node.outputs[0])


def axis_after(node: ir.Node, axis: int) -> int | None:
    """Return where a Transpose or a reshape puts ``axis`` of its input, or the minor part of it; None: not known."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if source.shape is None or value.shape is None:
        return None
    if node.op_type == "Transpose":
        return permutation(node, len(source.shape)).index(axis)
    if node.op_type == "Squeeze" and len(source.shape) > len(value.shape) and (axes := listed_axes(node, source)):
        return None if axis in axes else axis - sum(k < axis for k in axes)
    return reshaped_axis(list(source.shape), list(value.shape), axis)


def axis_before(node: ir.Node, source: ir.Value, axis: int) -> int | None:
    """Return the axis of ``source``, an input of ``node``, that ``axis`` of its output comes from; None: not known."""
    value = node.outputs[0]
    if source.shape is None or value.shape is None:
        return None
    if node.op_type in REORDERS:
        candidates = [k for k in range(len(source.shape)) if axis_after(node, k) == axis]
        return candidates[0] if len(candidates) == 1 else None
    return axis if len(source.shape) == len(value.shape) else None


def reshaped_axis(before: Sequence[Dim], after: Sequence[Dim], axis: int) -> int | None:
    """Return the axis of the dimensions ``after`` a reshape that ``axis`` of those ``before`` becomes.

    Where the reshape takes the axis apart, it is the minor part: exporters write anchors × classes. None: not known.
    """
    count = before[axis]
    if before[: axis + 1] == after[: axis + 1] and same_product(before[axis + 1 :], after[axis + 1 :]):
        return axis
    for k, dim in enumerate(after):
        if len(before) == 2 and dim != count:
            continue  # features of the whole image: which part is classes is not known
        if not isinstance(dim, int) or not isinstance(count, int) or dim < 1 or count % dim:
            continue
        if same_product(before[axis + 1 :], after[k + 1 :]) and (dim != 1 or count <= MOST_ANCHORS):
            return k
    same = all(a == b for a, b in zip(before[1 : axis + 1], after[1 : axis + 1], strict=False))
    return axis if axis < len(after) and isinstance(count, int) and after[axis] == count and same else None


def same_product(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Tell whether the products of two lists of dimensions are known to be equal."""
    product_a, product_b = _product(a), _product(b)
    return product_a is not None and product_a == product_b


def _product(dims: Sequence[Dim]) -> tuple[int, list[str]] | None:
    """Return the product of the known dimensions and the names of the others; None where one has no name."""
    number, names = 1, []
    for dim in dims:
        if isinstance(dim, int):
            number *= dim
        elif dim.value is None:
            return None
        else:
            names.append(dim.value)
    return number, sorted(names)
