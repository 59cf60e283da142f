"""One table: operators without a VJP rule → the standard operators that compute the same.

Only the derivative is taken from the standard operators: the node itself and its outputs stay as deployed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from onnx_gradcam.graph.attributes import keyword_arguments, signature_of
from onnx_gradcam.graph.builder import SMALL, Builder, Value, static_dims
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.quantization import ADDING, quantization

Lowering = Callable[..., Value | tuple[Value | None, ...]]
F = TypeVar("F", bound=Lowering)

MICROSOFT = "com.microsoft"
WIDE = frozenset({ir.DataType.INT16, ir.DataType.UINT16})  # for which DequantizeLinear came with opset 21
LOWERINGS: dict[tuple[str, str], Lowering] = {}


class Unlowered(Exception):
    """A lowering was not written for this form of the operator. Raised inside lowerings."""


def lowering(op_type: str, *, domain: str = "") -> Callable[[F], F]:
    """Return a decorator that registers the standard form of an operator.

    The function takes the Builder, the inputs of the node and, by keyword, its attributes. It returns what stands for
    the outputs: one value or a tuple, with None for an output that no gradient comes from. For a quantized output it
    may return the integers or the real numbers that they stand for.

    Args:
        op_type: the operator.
        domain: its domain; "" is ai.onnx.
    """

    def register(function: F) -> F:
        if (domain, op_type) in LOWERINGS:
            raise ValueError(f"two lowerings of {domain}::{op_type}")
        LOWERINGS[domain, op_type] = function
        return function

    return register


def is_lowered(node: ir.Node) -> bool:
    """Tell whether ``node`` can be differentiated through standard operators that compute the same."""
    return _find(node) is not None or works_on_quantized(node) or is_lowered_to_body(node)


def lower(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """Write the standard operators that compute what ``node`` does, from its own inputs.

    Args:
        op: writes the nodes.
        node: a node of any domain, with its inputs.

    Returns:
        What stands for each output, None for one that no gradient comes from; None for an unknown operator.

    Raises:
        Unlowered: the lowering was not written for this form of the operator.
    """
    if (function := _find(node)) is not None:
        try:
            return _call(function, op, node)
        except Unlowered:
            if not _has_body(node) or (body := _expand(op, node)) is None:
                raise
            return body
    if works_on_quantized(node):
        attributes = {a.name: a.value for a in node.attributes.values()}
        inputs = [None if v is None else dequantize(op, v) for v in node.inputs]
        return op.node(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
    return _expand(op, node) if is_lowered_to_body(node) else None


def _call(function: Lowering, op: Builder, node: ir.Node) -> tuple[Value | None, ...]:
    """Return what ``function`` writes for ``node``, one value for each output."""
    signature = signature_of(function)
    try:
        attributes = keyword_arguments(signature, {a.name: a.value for a in node.attributes.values()})
        bound = signature.bind(op, *node.inputs, **attributes)
    except TypeError as error:
        raise Unlowered(f"no VJP rule for this form ({error})") from None
    results = function(*bound.args, **bound.kwargs)
    values = results if isinstance(results, tuple) else (results,)
    if len(values) < len(node.outputs):
        raise Unlowered("no VJP rule for so many outputs")
    return values[: len(node.outputs)]


def dequantize(op: Builder, value: Value) -> Value:
    """Write the real numbers that a quantized ``value`` stands for; return any other value as it is."""
    q = quantization(value)
    if q is None:
        return value
    if q.scale is None:
        return op.Cast(value, to=ir.DataType.FLOAT)
    if value.dtype in WIDE and op.opset < 21:
        integers = op.Cast(value, to=q.scale.dtype)
        return op.Mul(_subtract(op, integers, q.zero_point), q.scale)
    return op.DequantizeLinear(value, q.scale, q.zero_point, axis=q.axis)


def _subtract(op: Builder, x: Value, zero_point: Value | None) -> Value:
    return x if zero_point is None else op.Sub(x, op.Cast(zero_point, to=x.dtype))


def _find(node: ir.Node) -> Lowering | None:
    """Return the lowering of ``node``, or None."""
    return LOWERINGS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def works_on_quantized(node: ir.Node) -> bool:
    """Tell whether a standard operator works on quantized numbers: it does the same on real ones."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ADDING:
        return False
    return any(quantization(v) is not None for v in node.inputs)


def is_lowered_to_body(node: ir.Node) -> bool:
    """Tell whether ``node`` is lowered to the function body of simpler operators by which ONNX defines it."""
    return _find(node) is None and not works_on_quantized(node) and _has_body(node)


def _has_body(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.graph is None:
        return False
    return has_body(node.op_type, node.graph.opset_imports.get("", 1))


def has_body(op_type: str, opset: int) -> bool:
    """Tell whether ONNX defines the operator by a function body of simpler ones."""
    if not onnx.defs.has(op_type, opset):
        return False
    schema = onnx.defs.get_schema(op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]  # not in onnx's stubs


def _expand(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """Write the function body of ``node``; return None where that is not possible.

    Small values that do not depend on the inputs of the node become constants.

    Raises:
        Unlowered: onnx has no body for this form of the operator.
    """
    alone = _with_defaults(node, op.opset)
    body = _body(op.opset, alone, node.inputs)
    if any(proto.op_type == node.op_type or _has_graphs(proto) for proto in body.node):
        return None
    inputs = [*node.inputs, *[None] * (len(body.input) - len(node.inputs))]
    known: dict[str, Value | None] = {"": None, **dict(zip(body.input, inputs, strict=True))}
    for proto in body.node:
        attributes = _attributes(proto, alone)
        if proto.op_type == "Constant":
            known[proto.output[0]] = op.array(_constant(attributes))
            continue
        operands = [known[name] for name in proto.input]
        results = op.node(proto.op_type, *operands, outputs=len(proto.output), **attributes)
        known |= {name: fold(op, value) for name, value in zip(proto.output, results, strict=True) if name}
    return tuple(known[name] if v.name else None for v, name in zip(node.outputs, body.output, strict=False))


def _with_defaults(node: ir.Node, opset: int) -> onnx.NodeProto:
    """Return a node with the defaults of the attributes that it leaves out: bodies refer to them."""
    alone = ir.serde.serialize_node(node)
    names = {a.name for a in alone.attribute}
    defaults = onnx.defs.get_schema(node.op_type, opset).attributes.values()
    alone.attribute.extend(a.default_value for a in defaults if a.default_value.name and a.name not in names)
    return alone


def _attributes(proto: onnx.NodeProto, caller: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node of a body; those that refer to one of ``caller`` have its value, or are left
    out."""
    given = {a.name: a for a in caller.attribute}
    pairs = [(a.name, given.get(a.ref_attr_name) if a.ref_attr_name else a) for a in proto.attribute]
    return {name: ir.serde.deserialize_attribute(a).value for name, a in pairs if a is not None}


def _constant(attributes: Mapping[str, Any]) -> np.ndarray:
    """Return the array of a Constant node with these attributes."""
    ((name, value),) = attributes.items()
    return value.numpy() if name == "value" else np.array(value, np.int64 if "int" in name else np.float32)


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(a.HasField("g") or a.graphs for a in node.attribute)


def fold(op: Builder, value: Value) -> Value:
    """Return ``value``, or a constant in its place where it is small and known."""
    dims = static_dims(value)
    array = constant(value) if dims is not None and math.prod(dims) <= SMALL else None
    return value if array is None else op.array(array)


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
