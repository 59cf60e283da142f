"""Fold what computes shapes, pads and axes, so that shape inference can follow it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from onnx_gradcam.graph.constants import constant, forget
from onnx_gradcam.graph.names import claim, folded, names_in
from onnx_gradcam.graph.node_inference import Inferred, infer_outputs


def fold_integers(graph: ir.Graph) -> bool:
    """Make initializers of integers that do not depend on the inputs (shapes, pads, axes), and tell whether any.

    What follows from one, a shape and the integers that are computed of it, is looked at in the same walk: a network
    of many stages, each of which reshapes to sizes that it computes, would else be inferred once for each stage.
    """
    changed, taken, clearer = False, names_in(graph), set[ir.Value]()
    for node in list(graph):
        if not clearer.isdisjoint(node.inputs):
            clearer.update(_made_clearer(node))
        for value in node.outputs:
            known = value.dtype is not None and not value.dtype.is_floating_point()
            if not known or not value.uses() or value.is_graph_output() or (array := constant(value)) is None:
                continue
            name = claim(folded(value.name or ""), taken)
            initializer = ir.val(name, const_value=ir.tensor(array, name=name))
            graph.register_initializer(initializer)
            value.replace_all_uses_with(initializer)
            clearer.add(initializer)
            changed = True
    return changed


def _made_clearer(node: ir.Node) -> list[ir.Value]:
    """Infer the outputs of a node of which more is known now, and return those that something was found of.

    Sizes that are known stay: what a model declares is weighed against what is inferred when all of it is.
    """
    for value in node.outputs:
        forget(value)
    inferred = _inferred(node)
    return [v for v in node.outputs if v.name in inferred and _take(v, inferred[v.name])]


def _inferred(node: ir.Node) -> Mapping[str | None, Inferred]:
    """Return what is inferred of the outputs of a standard operator; nothing where it does not fit its operands."""
    assert node.graph is not None
    opset = node.graph.opset_imports[""]
    if node.domain != "" or not onnx.defs.has(node.op_type, opset):
        return {}
    try:
        return infer_outputs(node, onnx.defs.get_schema(node.op_type, opset), opset)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return {}  # declared shapes of deployed models are often slightly wrong


def _take(value: ir.Value, found: Inferred) -> bool:
    """Fill what is open of ``value``; tell whether something was found that does not contradict what is known."""
    if found.shape is None or (value.shape is not None and len(value.shape) != len(found.shape)):
        return False
    value.type = value.type or found.type
    known = found.shape if value.shape is None else value.shape
    value.shape = ir.Shape([d if isinstance(d, int) else n for d, n in zip(known, found.shape, strict=True)])
    return True
