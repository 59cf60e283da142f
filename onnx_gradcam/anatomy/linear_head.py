"""Whether global average pooling and one linear layer are all that lies between a layer and the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.grids import Axes, grids
from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.flow import downstream, upstream
from onnx_gradcam.graph.operators import COPIES, REORDERS

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
