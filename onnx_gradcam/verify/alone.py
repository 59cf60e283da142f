"""One node as a model of its own, with the nodes that its VJP rules write."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Key, Rule
from onnx_gradcam.autodiff.walk import pull_through
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.graph.names import claim, names_in
from onnx_gradcam.verify.float64 import Arrays
from onnx_gradcam.verify.path import CheckedNode


def array_of(value: ir.Value, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what a value holds: its constant, or what a run gave."""
    array = constant(value)
    return known[value.name or ""] if array is None else array


def alone(site: CheckedNode, arrays: Arrays, table: Mapping[Key, Rule]) -> ir.Model:
    """Return a node as a model: inputs x<i> and cotangents g<k> → outputs y<k> and grad<i>, by the rules of ``table``.

    What is known of shapes before the run is known here, no more: the rules write the nodes that they wrote in the
    whole graph.
    """
    node, graph = site.node, site.node.graph
    assert graph is not None
    theirs = operands(node)
    inputs = [None if a is None else _like(v, f"x{i}", a) for i, (v, a) in enumerate(zip(theirs, arrays, strict=True))]
    own = {f"{kind}{k}" for kind in ("x", "y", "g", "grad") for k in range(len(theirs) + len(node.outputs))}
    attributes = _rebound(node, {old: new for old, new in zip(theirs, inputs, strict=True) if old and new}, own)
    count = len(node.inputs)
    copy = ir.Node(node.domain, node.op_type, inputs[:count], attributes, num_outputs=len(node.outputs), name=node.name)
    for k, (mine, output) in enumerate(zip(copy.outputs, node.outputs, strict=True)):
        mine.name = f"y{k}" if output.name else ""
        mine.type, mine.shape = output.type, output.shape
    given = [v for v in inputs if v is not None]
    part = ir.Graph(
        [v for v in given if v.const_value is None],
        [copy.outputs[k] for k in site.outputs],
        nodes=[copy],
        initializers=[v for v in given if v.const_value is not None],
        opset_imports=graph.opset_imports,
        name="node",
    )
    op = Builder(part)
    gs = [_cotangent(y, k) if k in site.outputs else None for k, y in enumerate(copy.outputs)]
    part.inputs.extend(g for g in gs if g is not None)
    for i in site.wrt:
        x = inputs[i]
        assert x is not None
        ((_, share),) = pull_through(op, copy, [i], gs, table)
        gradient = op.Identity(op.expand(share, x))
        gradient.name = f"grad{i}"
        part.outputs.append(gradient)
    return ir.Model(part, ir_version=10)


def _rebound(node: ir.Node, inputs: Mapping[ir.Value, ir.Value], own: Set[str]) -> list[ir.Attr]:
    """Return the attributes of ``node``; its bodies, copied, read ``inputs[v]`` in place of each outer value v.

    The names ``own`` are left to the values around the bodies.
    """
    attributes = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph().clone(allow_outer_scope_values=True)
            for inner in ir.traversal.RecursiveGraphIterator(body):
                for k, value in enumerate(inner.inputs):
                    if value is not None and value in inputs:
                        inner.replace_input_with(k, inputs[value])
            body.outputs[:] = [inputs.get(v, v) for v in body.outputs]
            _make_room(body, own)
            attribute = ir.AttrGraph(attribute.name, body)
        attributes.append(attribute)
    return attributes


def _make_room(body: ir.Graph, own: Set[str]) -> None:
    """Rename the values in a body that have one of the names ``own``."""
    taken = names_in(body) | own
    for part in [body, *body.subgraphs()]:
        held = [*part.inputs, *part.initializers.values(), *(v for node in part for v in node.outputs)]
        for value in held:
            if value.name and value.name in own:
                value.name = claim(value.name, taken)


def _cotangent(y: ir.Value, k: int) -> ir.Value:
    return ir.val(f"g{k}", dtype=y.dtype, shape=y.shape)


def _like(value: ir.Value | None, name: str, array: np.ndarray) -> ir.Value:
    """Return a value of the same type and shape; an initializer where ``value`` is constant."""
    assert value is not None
    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=value.const_value)
