"""How a classifier ends: in global average pooling, or in a linear layer with a weight for each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.grids import Axes, grids, has_space
from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.flow import downstream, upstream
from onnx_gradcam.graph.operators import CONVOLUTIONS, COPIES, POOLINGS, PRODUCTS, REORDERS, RESHAPES

CARRYING = COPIES | REORDERS | {"Add"}


def has_linear_head(nodes: Sequence[ir.Node], layer: ir.Value, score: ir.Value) -> bool:
    """Tell whether global average pooling and at most one linear layer are all that lies between layer and score."""
    path = downstream(nodes, [layer]) & upstream(nodes, score)
    between = [n for n in nodes if layer not in n.outputs and any(v in path for v in n.outputs)]
    on_grid = grids(nodes)
    pools = [n for n in between if _is_global_average(n, on_grid)]
    linear = [n for n in between if _is_linear(n)]
    rest = [n for n in between if n not in pools and n not in linear]
    return len(pools) == 1 and len(linear) <= 1 and all(n.op_type in CARRYING for n in rest)


def is_flattened(nodes: Sequence[ir.Node], layer: ir.Value, score: ir.Value) -> bool:
    """Tell whether a linear layer behind ``layer`` reads channels and places in a row, with a weight for each."""
    path = downstream(nodes, [layer]) & upstream(nodes, score)
    on_grid = grids(nodes, CONVOLUTIONS | POOLINGS)
    flat = [n.outputs[0] for n in nodes if n.outputs[0] in path and n.op_type in RESHAPES and _joins_space(n, on_grid)]
    behind = downstream(nodes, flat)
    return any(n.op_type in PRODUCTS and n.outputs[0] in path and n.inputs[0] in behind for n in nodes)


def _joins_space(node: ir.Node, on_grid: Mapping[ir.Value, Axes]) -> bool:
    """Tell whether ``node`` makes (N, C · places) of the channels and places of a grid."""
    x, shape = node.inputs[0], node.outputs[0].shape
    if x is None or x not in on_grid or x.shape is None or shape is None or len(shape) != 2:
        return False
    channels, length = x.shape[on_grid[x][1]], shape[1]
    return isinstance(channels, int) and length != channels and has_space(x, on_grid[x])


def _is_global_average(node: ir.Node, on_grid: Mapping[ir.Value, Axes]) -> bool:
    """Tell whether ``node`` is the mean over all of space, and over nothing else."""
    if node.op_type == "GlobalAveragePool":
        return True
    x = node.inputs[0] if node.inputs else None
    if x is None or x.shape is None or node.op_type not in ("AveragePool", "ReduceMean"):
        return False
    space = on_grid.get(x, tuple(range(len(x.shape))))[2:]
    if node.op_type == "AveragePool":
        return list(node.attributes["kernel_shape"].as_ints()) == [x.shape[k] for k in space]
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return axes is not None and {k % len(x.shape) for k in axes} == set(space)


def _is_linear(node: ir.Node) -> bool:
    if node.op_type == "Conv":
        weight = node.inputs[1]
        pointwise = weight is not None and weight.shape is not None and all(d == 1 for d in weight.shape[2:])
        return pointwise and all(s == 1 for s in node.attributes.get_ints("strides", ()))
    return node.op_type in ("Gemm", "MatMul")
