"""Fused operators whose inner sum is read by others, too."""

from __future__ import annotations

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.registry import MICROSOFT
from onnx_gradcam.graph.lowering.table import lower
from onnx_gradcam.graph.names import SUM

SUMMING = {"SkipLayerNormalization": 3, "SkipSimplifiedLayerNormalization": 3, "SkipGroupNorm": 1}  # the sum's output


def write_out_sums(graph: ir.Graph) -> None:
    """Replace each normalisation that hands on the sum inside it by the standard operators.

    The stream of a network of tokens is such a sum. Its gradient is the whole one, and changing it changes all that
    follows, only where the normalisation reads it. onnxruntime fuses the operators again when it loads them.
    """
    op = Builder(graph, SUM)
    for node in list(graph):
        if node.domain != MICROSOFT or not _hands_on_sum(node):
            continue
        start = len(op.written)
        made = lower(op, node) or ()
        for inner in op.written[start:]:
            graph.remove(inner)
            node.prepend(inner)
        for mine, theirs in zip(made, node.outputs, strict=True):
            if mine is not None and theirs.name:
                theirs.replace_all_uses_with(mine, replace_graph_outputs=True)
                mine.name, theirs.name = theirs.name, None
        graph.remove(node, safe=True)


def _hands_on_sum(node: ir.Node) -> bool:
    """Tell whether the sum is read, and nothing beside it that the standard operators do not return."""
    place = SUMMING.get(node.op_type, len(node.outputs))
    read = [bool(v.uses()) or v.is_graph_output() for v in node.outputs]
    return any(read[place:]) and not any(read[1:place])
