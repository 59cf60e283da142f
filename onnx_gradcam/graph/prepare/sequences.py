"""Sequences and optional values whose elements are known before the run give way to the tensors that they hold."""

from __future__ import annotations

import onnx_ir as ir

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.replay import HOLDING, Known, write
from onnx_gradcam.graph.lowering.trial import detach
from onnx_gradcam.graph.names import UNROLLED


def resolve_sequences(graph: ir.Graph) -> bool:
    """Replace what is taken out of sequences by the tensors that were put in, whether there were any.

    A Loop that carries a sequence is unrolled. What depends on the run (how many repetitions, which place) stays as it
    is.
    """
    op, known, changed = Builder(graph, UNROLLED), Known(), False
    for node in list(graph):
        if not _holds_sequence(node, known):
            continue
        start = len(op.written)
        try:
            terms = write(op, node, known)
        except (Unlowered, ModelError):  # it stays, and the walk names it if it comes by
            for inner in reversed(op.written[start:]):
                graph.remove(inner, safe=True)
            continue
        for inner in op.written[start:]:
            graph.remove(inner)
            node.prepend(inner)
        for output, term in zip(node.outputs, terms, strict=False):
            known[output] = term
            if isinstance(term, ir.Value) and _is_read_tensor(output):
                _replace(op, node, output, term)
                changed = True
    for node in reversed(list(graph)):
        if node.outputs and all(v in known and not v.uses() and not v.is_graph_output() for v in node.outputs):
            detach([node])
            graph.remove(node)
    return changed


def _holds_sequence(node: ir.Node, known: Known) -> bool:
    """Tell whether a sequence or an optional value goes in, comes out, or is used inside of ``node``."""
    if node.domain not in ("", "ai.onnx"):
        return False
    kinds = [v.type for v in [*operands(node), *node.outputs] if v is not None]
    if any(isinstance(kind, (ir.SequenceType, ir.OptionalType)) for kind in kinds) or node.op_type in HOLDING:
        return True
    return any(isinstance(known.get(v), list) for v in operands(node) if v is not None)


def _is_read_tensor(output: ir.Value) -> bool:
    is_read = bool(output.uses()) or output.is_graph_output()
    return is_read and not isinstance(output.type, (ir.SequenceType, ir.OptionalType))


def _replace(op: Builder, node: ir.Node, output: ir.Value, term: ir.Value) -> None:
    """Put a value of its own, with the name of ``output``, in the place of ``output``."""
    own = op.Identity(term)
    inner = own.producer()
    assert inner is not None
    op.graph.remove(inner)
    node.prepend(inner)
    output.replace_all_uses_with(own, replace_graph_outputs=True)
    own.name, output.name = output.name, None
