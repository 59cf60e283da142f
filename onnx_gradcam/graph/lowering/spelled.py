"""A model in which some operators are written out as the standard operators that compute the same."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import lower
from onnx_gradcam.graph.names import WRITTEN_OUT

FUSED_BLOCKS = frozenset(("Attention", "MultiHeadAttention", "SkipLayerNormalization"))
"""The operators that hide an attention map, or the sum of tokens with what a block makes of them."""


def spell_out(model: ir.Model, op_types: Collection[str] = FUSED_BLOCKS) -> ir.Model:
    """Return a copy of a model in which nodes of these operators are written out; the model itself where it has none.

    Nodes of a form that no lowering was written for stay as they are. The outputs keep their names.
    """
    if not any(node.op_type in op_types for node in model.graph):
        return model
    copy = model.clone()
    op = Builder(copy.graph, WRITTEN_OUT)
    for node in [n for n in copy.graph if n.op_type in op_types]:
        try:
            results = lower(op, node)
        except Unlowered:
            continue
        for value, result in zip(node.outputs, results or (), strict=False):
            if result is not None:
                _take_place(copy.graph, value, result)
    copy.graph.sort()
    RemoveUnusedNodesPass()(copy)
    return copy


def _take_place(graph: ir.Graph, value: ir.Value, other: ir.Value) -> None:
    """Let ``other`` be read where ``value`` was, under its name."""
    other.type, other.shape = value.type or other.type, value.shape or other.shape
    ir.convenience.replace_all_uses_with(value, other, replace_graph_outputs=True)
    name, value.name = value.name, f"{value.name}:{WRITTEN_OUT}"
    other.name = name
