"""Types and ranks that shape inference loses: of sequences, of optional values, of what a Loop carries."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

SEQUENCES = frozenset(
    "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceMap SplitToSequence".split()
)


def contain(node: ir.Node) -> None:
    """Give sequences and optional values their own types again; onnx_ir takes all that is inferred for tensors."""
    if node.domain not in ("", "ai.onnx"):
        return
    for value, kind in zip(node.outputs, _kinds(node), strict=False):
        if kind is not None:
            value.type = kind


def _kinds(node: ir.Node) -> Sequence[ir.TypeProtocol | None]:
    """Return the types of the outputs where they are, or hold, sequences or optional values."""
    first = node.inputs[0] if node.inputs else None
    inner = None if first is None else first.type
    if node.op_type in SEQUENCES:
        dtypes = [v.dtype for v in node.outputs]
        return [None if dtype is None else ir.SequenceType(ir.TensorType(dtype)) for dtype in dtypes]
    if node.op_type == "Optional":
        return [None if inner is None else ir.OptionalType(inner)]
    if node.op_type == "OptionalGetElement":
        return [inner.elem_type if isinstance(inner, ir.OptionalType) else inner]
    if node.op_type == "Identity":
        return [inner]
    if node.op_type == "If":
        return [v.type for v in node.attributes["then_branch"].as_graph().outputs]
    if node.op_type == "Loop":
        return [None if v is None else v.type for v in node.inputs[2:]]
    return []


def carry_ranks(graph: ir.Graph) -> bool:
    """Let a value that a Loop carries keep its rank if the body, given that rank, returns it: then it does so every
    time.

    Whether more is known than before.
    """
    changed = False
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
            continue
        body = node.attributes["body"].as_graph()
        for start, given, made, output in zip(
            node.inputs[2:], body.inputs[2:], body.outputs[1:], node.outputs, strict=False
        ):
            if start is None or start.shape is None or output.shape is not None:
                continue
            unknown = ir.Shape([None] * len(start.shape))
            if given.shape is None:
                given.shape, changed = unknown, True
            elif made.shape is not None and len(given.shape) == len(made.shape) == len(start.shape):
                output.shape, changed = unknown, True
    return changed
