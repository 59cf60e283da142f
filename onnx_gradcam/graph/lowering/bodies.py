"""The function bodies of simpler operators by which ONNX defines an operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.replay import Known, distinct, replay


def is_function(node: ir.Node) -> bool:
    """Tell whether ``node`` is of an operator that ONNX defines by a function body of simpler ones."""
    if node.domain not in ("", "ai.onnx") or node.graph is None:
        return False
    return has_body(node.op_type, node.graph.opset_imports.get("", 1))


def has_body(op_type: str, opset: int) -> bool:
    """Tell whether ONNX defines the operator by a function body of simpler ones."""
    if not onnx.defs.has(op_type, opset):
        return False
    schema = onnx.defs.get_schema(op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]  # not in onnx's stubs


def expand(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """Write the function body of ``node``; return None where that is not possible.

    Small values that do not depend on the inputs of the node become constants. Loops in it are unrolled.

    Raises:
        Unlowered: onnx has no body for this form of the operator, or the run decides how often a part of it repeats.
    """
    alone = _with_defaults(node, op.opset)
    body = _body(op.opset, alone, node.inputs)
    if any(proto.op_type == node.op_type for proto in body.node):
        return None
    _resolve(body.node, {a.name: a for a in alone.attribute})
    names = list(body.output)
    written = {name for proto in body.node for name in proto.output} | set(body.input)
    del body.output[:]
    body.output.extend(name for name in names if name in written)  # others are left out by the caller
    function = ir.serde.deserialize_function(body)
    inputs = [*node.inputs, *[None] * (len(function.inputs) - len(node.inputs))]
    known: Known = dict(zip(function.inputs, inputs, strict=True))
    start = len(op.written)
    replay(op, function, known)
    results = {v.name: known.get(v) for v in function.outputs}
    terms = [results.get(name) if v.name else None for v, name in zip(node.outputs, names, strict=False)]
    return distinct(op, terms, start)


def _with_defaults(node: ir.Node, opset: int) -> onnx.NodeProto:
    """Return a node with the defaults of the attributes that it leaves out: bodies refer to them."""
    alone = ir.serde.serialize_node(node)
    names = {a.name for a in alone.attribute}
    defaults = onnx.defs.get_schema(node.op_type, opset).attributes.values()
    alone.attribute.extend(a.default_value for a in defaults if a.default_value.name and a.name not in names)
    return alone


def _resolve(nodes: Iterable[onnx.NodeProto], given: Mapping[str, onnx.AttributeProto]) -> None:
    """Give the nodes of a body the attributes of its caller that they refer to; those that it has not are left out."""
    for proto in nodes:
        own = [a for a in proto.attribute if not a.ref_attr_name]
        for a in proto.attribute:
            if a.ref_attr_name in given:
                own.append(onnx.AttributeProto())
                own[-1].CopyFrom(given[a.ref_attr_name])
                own[-1].name = a.name
        del proto.attribute[:]
        proto.attribute.extend(own)
        for a in proto.attribute:
            if a.HasField("g"):
                _resolve(a.g.node, given)


def _body(opset: int, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> onnx.FunctionProto:
    """Return the function body by which ONNX defines ``node``, in the newest form up to ``opset``.

    Some bodies depend on which inputs there are and on their types; one that is left out has an empty type.
    """
    schema = onnx.defs.get_schema(node.op_type, opset)
    types = [_type_of(value).SerializeToString() for value in inputs]
    try:
        if schema.has_function:  # type: ignore[attr-defined]  # not in onnx's stubs
            versions = schema.function_opset_versions  # type: ignore[attr-defined]
            body = schema.get_function_with_opset_version(_newest(versions, opset))  # type: ignore[attr-defined]
        else:
            versions = schema.context_dependent_function_opset_versions  # type: ignore[attr-defined]
            body = schema.get_context_dependent_function_with_opset_version(  # type: ignore[attr-defined]
                _newest(versions, opset), node.SerializeToString(), types
            )
    except (RuntimeError, ValueError, onnx.defs.SchemaError) as error:
        raise Unlowered(f"no VJP rule, and onnx fails to write its function body ({_line(error)})") from None
    if not body:
        raise Unlowered("no VJP rule, and no function body in onnx for these inputs,")
    proto: onnx.FunctionProto = onnx.FunctionProto.FromString(body)
    return proto


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _newest(versions: Sequence[int], opset: int) -> int:
    return max((v for v in versions if v <= opset), default=opset)


def _type_of(value: Value | None) -> onnx.TypeProto:
    if value is None or value.type is None:
        return onnx.TypeProto()
    return ir.serde.serialize_value(value).type
