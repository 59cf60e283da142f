"""The values on the grid of a convolution, and the meaning of their axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import convolution_axes, joined_axis, listed_axes, permutation
from onnx_gradcam.graph.flow import results
from onnx_gradcam.graph.operators import CONVOLUTIONS, IN_PLACE, JOINS, AxisEffect, operators

Axes = tuple[int, ...]

# Operators that leave every axis where it is, whatever becomes of its length.
AXES_STAY = IN_PLACE | operators(AxisEffect.POOLED, AxisEffect.SELECTED, AxisEffect.RESIZED, AxisEffect.PADDED)


def input_axes(nodes: Sequence[ir.Node], value: ir.Value) -> Axes | None:
    """Return for each of (N, C, *space) the axis of the graph input ``value`` that holds it, by the first convolution.

    None where only reshapes, or nothing, lead to one.
    """
    if value.shape is None:
        return None
    held: dict[ir.Value, tuple[int | None, ...]] = {value: tuple(range(len(value.shape)))}  # axis → that of the input
    for node in nodes:
        source = next((v for v in node.inputs if v in held), None)
        if source is None:
            continue
        axes = held[source]
        if node.op_type in CONVOLUTIONS:
            own = [axes[k] for k in convolution_axes(node, len(axes))]
            return tuple(k for k in own if k is not None)
        held.update(_input_axes_after(node, axes))
    return None


def _input_axes_after(node: ir.Node, axes: tuple[int | None, ...]) -> dict[ir.Value, tuple[int | None, ...]]:
    """Return for the outputs of ``node`` the axes of the graph input, where what it reads has those in ``axes``."""
    if node.op_type == "Transpose":
        return {node.outputs[0]: tuple(axes[k] for k in permutation(node, len(axes)))}
    if node.op_type == "Unsqueeze" and (added := listed_axes(node, node.outputs[0])) is not None:
        old = iter(axes)
        return {node.outputs[0]: tuple(None if k in added else next(old) for k in range(len(axes) + len(added)))}
    if node.op_type in AXES_STAY:
        return {v: axes for v in node.outputs if v.shape is not None and len(v.shape) == len(axes)}
    return {}


def grids(
    nodes: Sequence[ir.Node], begin: Set[str] = CONVOLUTIONS, without: Collection[ir.Node] = ()
) -> dict[ir.Value, Axes]:
    """Return the values on a convolution's grid, with their axes in the order (N, C, *space).

    An operator of ``begin`` begins a grid, if it is not one of ``without``. Operators that keep every element in its
    place, Transpose and pointwise MatMul carry it on, and so do those between a Reshape and the one that undoes it (a
    group norm as exporters write it).
    """
    on_grid: dict[ir.Value, Axes] = {}
    reshaped: dict[ir.Value, ir.Value] = {}  # → the value on the grid that holds the same elements in the same order
    for node in nodes:
        value = node.outputs[0]
        if value.shape is None:
            continue
        if node.op_type in begin and node not in without:
            on_grid[value] = convolution_axes(node, len(value.shape))
        else:
            on_grid.update(_carried_on(node, on_grid))
        if value not in on_grid:
            _follow_reshape(node, on_grid, reshaped)
    return on_grid


def _carried_on(node: ir.Node, on_grid: Mapping[ir.Value, Axes]) -> dict[ir.Value, Axes]:
    """Return the outputs of ``node`` that are on the grid of what it reads, with their axes."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type == "Transpose" and source is not None and source in on_grid:
        order = permutation(node, len(on_grid[source]))
        return {node.outputs[0]: tuple(order.index(k) for k in on_grid[source])}
    if node.op_type == "Squeeze" and source is not None and source in on_grid:
        removed = listed_axes(node, source)
        if removed == _added_for_convolution(source):
            kept = [k for k in range(len(on_grid[source])) if k not in (removed or ())]
            return {node.outputs[0]: tuple(kept.index(k) for k in on_grid[source] if k in kept)}
    if node.op_type in IN_PLACE or _is_pointwise_matmul(node, on_grid):
        on_same = [v for v in node.inputs if v is not None and v in on_grid and _keeps(node, v, on_grid[v])]
        return dict.fromkeys(results(node), on_grid[on_same[0]]) if on_same else {}
    return {}


def _follow_reshape(node: ir.Node, on_grid: dict[ir.Value, Axes], reshaped: dict[ir.Value, ir.Value]) -> None:
    """Note what a Reshape made of a value on the grid, and put what another one makes of that back on the grid."""
    source, value = node.inputs[0] if node.inputs else None, node.outputs[0]
    origin = None if source is None else reshaped.get(source, source)
    if origin is None or origin not in on_grid:
        return
    if node.op_type == "Reshape" and _same_shape(value, origin):
        on_grid[value] = on_grid[origin]
    elif node.op_type == "Reshape" or (source in reshaped and node.op_type in IN_PLACE):
        reshaped[value] = origin


def _added_for_convolution(value: ir.Value) -> set[int]:
    """Return the axes that an Unsqueeze added for the convolution that made ``value``, as exporters do for 1-D ones."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type in CONVOLUTIONS else None
    before = source.producer() if source is not None else None
    if source is None or before is None or before.op_type != "Unsqueeze":
        return set()
    return listed_axes(before, source) or set()


def _is_pointwise_matmul(node: ir.Node, on_grid: Mapping[ir.Value, Axes]) -> bool:
    """Tell whether it is x · W with channels last and a plain weight matrix: a 1×1 convolution."""
    if node.op_type != "MatMul" or node.inputs[0] not in on_grid or node.inputs[0] is None:
        return False
    weight = node.inputs[1]
    axes = on_grid[node.inputs[0]]
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and axes[1] == len(axes) - 1


def _keeps(node: ir.Node, source: ir.Value, axes: Axes) -> bool:
    """Tell whether what ``node`` makes has the grid of ``source``: a gate is broadcast, a Concat may enlarge it."""
    value = node.outputs[0]
    assert source.shape is not None
    if value.shape is None or len(source.shape) != len(value.shape):
        return False
    if node.op_type in JOINS and joined_axis(node) in axes[2:]:
        return False
    return all(_may_equal(source.shape[k], value.shape[k]) for k in axes[2:])


def has_space(value: ir.Value, axes: Axes) -> bool:
    """Tell whether ``value`` has more than one spatial position, as far as is known; ``axes`` are (N, C, *space)."""
    assert value.shape is not None
    return any(value.shape[k] != 1 for k in axes[2:])


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    assert a.shape is not None
    assert b.shape is not None
    return len(a.shape) == len(b.shape) and all(map(_may_equal, a.shape, b.shape))


def _may_equal(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Tell whether two sizes are equal; one that is not known before the run equals all but 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a != 1 and b != 1
