"""What is known of a value before the run, without changing the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

UNKNOWN = "onnx_gradcam.not_constant"
NEVER = frozenset("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli".split())


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a value that does not depend on the model's inputs, or None.

    Initializers are read; what constant operators make of them (Identity, ConstantOfShape, DequantizeLinear, the Shape
    of a static value …) is computed once with the reference evaluator. The graph itself stays as deployed.
    """
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    if UNKNOWN in value.meta:
        return None
    array = _compute(value)
    if array is None:
        value.meta[UNKNOWN] = True
    else:
        value.const_value = ir.tensor(array, name=value.name)
    return array


def _compute(value: ir.Value) -> np.ndarray | None:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type in NEVER:
        return None
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return None
    if node.op_type in ("Shape", "Size"):
        return _static_shape(node)
    arrays = {}
    for given in node.inputs:
        if given is not None:
            array = constant(given)
            if array is None:
                return None
            arrays[given.name or ""] = array
    return _evaluate(node, arrays)[value.index() or 0]


def _static_shape(node: ir.Node) -> np.ndarray | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or not shape.is_static():
        return None
    dims = np.array(shape.numpy(), np.int64)
    if node.op_type == "Size":
        return np.array(dims.prod(), np.int64)
    ends = {name: node.attributes[name].as_int() for name in ("start", "end") if name in node.attributes}
    return dims[ends.get("start", 0) : ends.get("end")]


def _evaluate(node: ir.Node, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run one node alone on the reference evaluator."""
    graph = node.graph
    assert graph is not None
    opset = graph.opset_imports.get("", onnx.defs.onnx_opset_version())
    inputs = [onnx.ValueInfoProto(name=name) for name in arrays]
    outputs = [onnx.ValueInfoProto(name=v.name or "") for v in node.outputs]
    alone = onnx.helper.make_graph([ir.to_proto(node)], "constant", inputs, outputs)
    model = onnx.helper.make_model(alone, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, arrays)
    return [np.asarray(r) for r in results]
