"""One table: operators without a VJP rule → the standard operators that compute the same.

Only the derivative is taken from these: the node itself and its outputs stay as deployed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx.inliner
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
    """Raised inside a lowering for a form of the operator that it was not written for."""


def lowering(op_type: str, *, domain: str = "") -> Callable[[F], F]:
    """Register the standard form of an operator: a function of the Builder, the inputs and, by keyword, the attributes.

    It returns what stands for the outputs, None for one that no gradient comes from; for a quantized one, integers or
    the real numbers that they mean.
    """

    def register(function: F) -> F:
        if (domain, op_type) in LOWERINGS:
            raise ValueError(f"two lowerings of {domain}::{op_type}")
        LOWERINGS[domain, op_type] = function
        return function

    return register


def is_lowered(node: ir.Node) -> bool:
    """Whether ``node`` can be differentiated through standard operators that compute the same."""
    return _written(node) is not None or is_moved(node) or is_body(node)


def lower(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """Write the standard operators for ``node``, from its own inputs: what stands for its outputs, None if unknown.

    Raises ``Unlowered`` for a form of the operator that the lowering was not written for.
    """
    if (function := _written(node)) is not None:
        try:
            return _by(function, op, node)
        except Unlowered:
            if not _has_body(node):
                raise
            return _expand(op, node)
    if is_moved(node):
        attributes = {a.name: a.value for a in node.attributes.values()}
        inputs = [None if v is None else real(op, v) for v in node.inputs]
        return op.node(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
    return _expand(op, node) if is_body(node) else None


def _by(function: Lowering, op: Builder, node: ir.Node) -> tuple[Value | None, ...]:
    signature = signature_of(function)
    try:
        attributes = keyword_arguments(signature, {a.name: a.value for a in node.attributes.values()})
        bound = signature.bind(op, *node.inputs, **attributes)
    except TypeError as error:
        raise Unlowered(f"no VJP rule for this form ({error})") from None
    made = function(*bound.args, **bound.kwargs)
    found = made if isinstance(made, tuple) else (made,)
    if len(found) < len(node.outputs):
        raise Unlowered("no VJP rule for so many outputs")
    return found[: len(node.outputs)]


def real(op: Builder, value: Value) -> Value:
    """The real numbers that a quantized ``value`` stands for; any other value as it is."""
    q = quantization(value)
    if q is None:
        return value
    if q.scale is None:
        return op.Cast(value, to=ir.DataType.FLOAT)
    if value.dtype in WIDE and op.opset < 21:
        centred = op.Cast(value, to=q.scale.dtype)
        return op.Mul(_minus(op, centred, q.zero_point), q.scale)
    return op.DequantizeLinear(value, q.scale, q.zero_point, axis=q.axis)


def _minus(op: Builder, x: Value, zero_point: Value | None) -> Value:
    return x if zero_point is None else op.Sub(x, op.Cast(zero_point, to=x.dtype))


def _written(node: ir.Node) -> Lowering | None:
    return LOWERINGS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def is_moved(node: ir.Node) -> bool:
    """Whether an ordinary operator works on quantized numbers: it does the same on the real ones."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ADDING:
        return False
    return any(quantization(v) is not None for v in node.inputs)


def is_body(node: ir.Node) -> bool:
    """Whether ``node`` is lowered to the function body of simpler operators by which ONNX defines it."""
    return _written(node) is None and not is_moved(node) and _has_body(node)


def _has_body(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.graph is None:
        return False
    return has_body(node.op_type, node.graph.opset_imports.get("", 1))


def has_body(op_type: str, opset: int) -> bool:
    """Whether ONNX defines the operator by a function body of simpler ones."""
    if not onnx.defs.has(op_type, opset):
        return False
    schema = onnx.defs.get_schema(op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _expand(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """The function body of ``node``, written out; small values that do not depend on its inputs are constants."""
    body = _body(op.opset, node)
    if any(proto.op_type == node.op_type or _has_graphs(proto) for proto in body):
        return None
    known: dict[str, Value | None] = {v.name or "": v for v in node.inputs if v is not None} | {"": None}
    for proto in body:
        attributes = {a.name: ir.serde.deserialize_attribute(a).value for a in proto.attribute}
        if proto.op_type == "Constant":
            known[proto.output[0]] = op.array(_constant(attributes))
            continue
        inputs = [known[name] for name in proto.input]
        made = op.node(proto.op_type, *inputs, outputs=len(proto.output), **attributes)
        known.update(zip(proto.output, (_folded(op, value) for value in made), strict=True))
    return tuple(known[v.name or ""] for v in node.outputs)


def _constant(attributes: Mapping[str, Any]) -> np.ndarray:
    """What a Constant node with these attributes makes."""
    ((name, value),) = attributes.items()
    return value.numpy() if name == "value" else np.array(value, np.int64 if "int" in name else np.float32)


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(a.HasField("g") or a.graphs for a in node.attribute)


def _folded(op: Builder, value: Value) -> Value:
    dims = static_dims(value)
    array = constant(value) if dims is not None and math.prod(dims) <= SMALL else None
    return value if array is None else op.array(array)


def _body(opset: int, node: ir.Node) -> list[onnx.NodeProto]:
    """What the function body of ``node`` consists of.

    The model to inline has this node only, so its types are known; the outermost body is expanded, not those in it.
    """
    values = [ir.serde.serialize_value(v) for v in dict.fromkeys(node.inputs) if v is not None]
    alone = ir.serde.serialize_node(node)
    given = {a.name for a in alone.attribute}
    defaults = onnx.defs.get_schema(node.op_type, opset).attributes.values()  # the inliner leaves them out
    alone.attribute.extend(a.default_value for a in defaults if a.default_value.name and a.name not in given)
    outputs = [onnx.ValueInfoProto(name=v.name) for v in node.outputs if v.name]
    graph = onnx.helper.make_graph([alone], "body", values, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    inlined = onnx.inliner.inline_selected_functions(
        model, [(alone.domain, alone.op_type)], exclude=False, inline_schema_functions=True
    )
    return list(inlined.graph.node)
