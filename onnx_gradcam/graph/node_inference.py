"""Types and shapes of what one node makes, from those of what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import onnx
import onnx_ir as ir

SMALL = 1024  # elements; larger constants are no shapes


class Inferred(NamedTuple):
    """What is inferred of a value: its type and its shape, each None where it is open."""

    type: ir.TypeProtocol | None
    shape: ir.Shape | None


def infer_outputs(node: ir.Node, schema: onnx.defs.OpSchema, opset: int) -> Mapping[str | None, Inferred]:
    """Return what onnx infers of the outputs of ``node``, by name; nothing where a body or an operand has no type.

    Constant operands of at most ``SMALL`` elements are looked at, as far as they are initializers or folded.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the node does not fit its operands.
    """
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return {}
    known = {v.name: v for v in node.inputs if v is not None and v.name is not None}
    types = {n: ir.serde.serialize_value(v).type for n, v in known.items() if v.type is not None}
    if len(types) < len(known):
        return {}
    small = {n: v.const_value for n, v in known.items() if v.const_value is not None and v.const_value.size <= SMALL}
    data = {n: ir.serde.serialize_tensor(tensor) for n, tensor in small.items()}
    imports = [onnx.helper.make_opsetid("", opset)]
    proto = ir.serde.serialize_node(node)
    inferred = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
    return {
        name: Inferred(ir.serde.deserialize_type_proto_for_type(t), ir.serde.deserialize_type_proto_for_shape(t))
        for name, t in inferred.items()
    }
