"""Try a lowering without leaving a trace: for the shapes of what it returns, or to learn whether it works."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import bodies_of
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import lower
from onnx_gradcam.graph.names import STANDARD

LOWEST_OPSET = 18  # of what rules and lowerings write


def trial(node: ir.Node) -> Sequence[Value | None]:
    """Return what the standard operators for ``node`` return; they are written into a graph that is thrown away.

    Args:
        node: a node of a graph. Nothing is found where the type of an input is not known, nor for one with a body whose
            nodes are those of an older opset than lowerings write.

    Raises:
        Unlowered: see ``lower``.
        ModelError: an operator does not take what it is given.
    """
    given = {v: _alike(v) for v in node.inputs if v is not None}
    if any(v.shape is None or v.dtype is None for v in given):
        return ()
    assert node.graph is not None
    opset = node.graph.opset_imports.get("", LOWEST_OPSET)
    if opset < LOWEST_OPSET and bodies_of(node):
        return ()
    imports = node.graph.opset_imports | {"": max(opset, LOWEST_OPSET)}
    scratch = ir.Graph(list(given.values()), [], nodes=[], opset_imports=imports)
    inputs = [None if v is None else given[v] for v in node.inputs]
    outputs = [ir.val(v.name) for v in node.outputs]
    alone = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, graph=scratch)
    pairs = zip(outputs, node.outputs, strict=True)
    scratch.outputs.extend(mine for mine, theirs in pairs if theirs.uses() or theirs.is_graph_output())
    op = Builder(scratch, STANDARD)
    try:
        return lower(op, alone) or ()
    finally:
        detach(op.written)


def objection(node: ir.Node) -> str:
    """Return why a node with a body cannot be written otherwise: how often it runs is not known, say; else nothing."""
    if bodies_of(node):
        try:
            trial(node)
        except Unlowered as reason:
            return str(reason)
    return ""


def detach(nodes: Sequence[ir.Node]) -> None:
    """Take the inputs off nodes that are thrown away, in their bodies too, so that no value has them as readers."""
    for node in nodes:
        for k in range(len(node.inputs)):
            node.replace_input_with(k, None)
        for body in bodies_of(node):
            detach(list(body))


def _alike(value: Value) -> Value:
    return ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
