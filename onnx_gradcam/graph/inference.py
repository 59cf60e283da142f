"""Shape inference, with what onnx's own gets wrong or leaves out."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common.shape_inference import infer_shapes

from onnx_gradcam.graph.constants import forget
from onnx_gradcam.graph.pools import make_explicit


def infer(model: ir.Model) -> None:
    """Infer shapes; forgiving first, because declared shapes of deployed models are often slightly wrong."""
    _name_batch(model.graph)
    for node in model.graph:
        for value in node.outputs:
            forget(value)
    log = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = log.level
    log.setLevel(logging.ERROR)
    declared = {v: v.shape for v in model.graph.outputs}
    try:
        _infer_once(model)
        while _type_group_norms(model.graph) | _correct_pools(model.graph):
            _infer_once(model)
    finally:
        log.setLevel(level)
    for value in model.graph.outputs:
        value.shape = declared[value] if value.shape is None else value.shape


def _infer_once(model: ir.Model) -> None:
    infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)


def _correct_pools(graph: ir.Graph) -> bool:
    """Where a pool has another shape than was found or declared, forget the shapes of all that follows it."""
    wrong = [node for node in ir.traversal.RecursiveGraphIterator(graph) if make_explicit(node)]
    reached = {v for node in wrong for v in node.outputs}
    for node in graph:
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
    for value in reached:
        value.shape = None
    return bool(wrong)


def _type_group_norms(graph: ir.Graph) -> bool:
    """onnx does not infer what GroupNormalization returns, which is like its input, nor anything after it."""
    changed = False
    for node in graph:
        x, y = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type == "GroupNormalization" and x is not None and y.shape is None and x.shape is not None:
            y.type, y.shape = x.type, x.shape
            changed = True
    return changed


def _name_batch(graph: ir.Graph) -> None:
    """A nameless first dimension of the inputs gets a name, so that shape inference can follow it."""
    for value in graph.inputs:
        if value.shape is not None:
            dims = list(value.shape)
            for axis, dim in enumerate(dims):
                if not isinstance(dim, int) and not dim.value:
                    dims[axis] = ir.SymbolicDim("batch" if axis == 0 else f"{value.name}_{axis}")
            value.shape = ir.Shape(dims)
