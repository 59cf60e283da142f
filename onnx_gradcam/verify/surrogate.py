"""A quantized model without its rounding: what its gradient is the gradient of.

Differences of a rounded model prove nothing. In the surrogate QuantizeLinear only clips, and every quantized tensor
holds the real numbers that it stands for:  Q → clip(x, (qmin − z)·s, (qmax − z)·s),  DQ → identity.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.autodiff.registry import RULES, find
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import bodies_of, carriers
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import is_lowered, lower, works_on_quantized
from onnx_gradcam.graph.names import SURROGATE, real, replaced
from onnx_gradcam.graph.prepare.inference import infer
from onnx_gradcam.graph.quantization import BOUNDS, only_requantizes, quantization

Bounds = tuple[np.ndarray, np.ndarray]
REAL = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


class NoSurrogate(Exception):
    """A node cannot be written without rounding."""


def clip_bounds(node: ir.Node) -> Bounds:
    """Return the least and the largest number that a QuantizeLinear can stand for, in float64.

    Raises ``NoSurrogate`` where scale or zero point are not constant, or differ along an axis.
    """
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.array(0)
    dtype = node.outputs[0].dtype
    if scale is None or zero is None or scale.size != 1 or dtype not in BOUNDS:
        raise NoSurrogate(f"{node.op_type} {node.name!r} has no constant scale for the whole tensor")
    low, high = ((bound - np.float64(zero.item())) * np.float64(scale.item()) for bound in BOUNDS[dtype])
    return np.asarray(low), np.asarray(high)


def surrogate(prepared: ir.Model, unsaturated: Set[str] = frozenset(), kept: Set[str] = frozenset()) -> ir.Model:
    """Return a model without rounding; the values keep their names.

    Args:
        prepared: the model.
        unsaturated: the names of values that are not clipped.
        kept: the names of values that stay though no output needs them, such as the tensors of a score.

    Raises ``NoSurrogate``.
    """
    model = prepared.clone()
    graph = model.graph
    for node in reversed(list(graph)):  # readers first: what a sum of integers stands for is told by who makes it
        has_no_rule = any(find(RULES, node, i) is None for i, _ in carriers(node))
        if works_on_quantized(node) or (is_lowered(node) and has_no_rule and not bodies_of(node)):
            _write_out(graph, node)
    settled = [_settled(node, unsaturated) for node in graph if node.op_type in REAL]
    reading = {id(node) for node, _ in settled if quantization(node.inputs[0]) is not None}
    op = Builder(graph, SURROGATE)
    for node, bounds in settled:
        if node.op_type != "DequantizeLinear" or id(node) in reading:
            _replace(op, node, node.outputs[0], bounds)
    for node in list(graph):  # else onnxruntime rounds what is multiplied with a DequantizeLinear
        for k, value in enumerate(node.inputs):
            if (exact := op.exact(value)) is not value:
                node.replace_input_with(k, exact)
    _remove_unused(model, kept)
    infer(model)
    return model


def _remove_unused(model: ir.Model, kept: Set[str]) -> None:
    """Remove the nodes that neither an output nor a value called in ``kept`` needs."""
    graph = model.graph
    count = len(graph.outputs)
    graph.outputs.extend(v for node in graph for v in node.outputs if v.name in kept and not v.is_graph_output())
    RemoveUnusedNodesPass()(model)
    del graph.outputs[count:]


def _settled(node: ir.Node, unsaturated: Set[str]) -> tuple[ir.Node, Bounds | None]:
    """Return how a node clips, looked up before the graph changes."""
    clips = node.op_type == "QuantizeLinear" and (node.outputs[0].name or "") not in unsaturated
    return node, clip_bounds(node) if clips and not only_requantizes(node) else None


def _write_out(graph: ir.Graph, node: ir.Node) -> None:
    """Write the standard operators for a node in its place."""
    op = Builder(graph, f"{SURROGATE}/{node.name}")
    try:
        made = lower(op, node)
    except Unlowered as reason:
        raise NoSurrogate(str(reason)) from None
    pairs = [(theirs, _as_integers(op, mine, theirs)) for theirs, mine in zip(node.outputs, made or (), strict=True)]
    for inner in op.written:
        graph.remove(inner)
        graph.insert_before(node, inner)
    for theirs, mine in pairs:
        if mine is not None:
            theirs.replace_all_uses_with(mine, replace_graph_outputs=True)
            theirs.name, mine.name = op.claim(replaced(theirs.name or "")), theirs.name
    graph.remove(node, safe=True)


def _as_integers(op: Builder, mine: Value | None, theirs: Value) -> Value | None:
    """Return real numbers that stand for quantized ones quantized again, for the nodes that read these."""
    q = quantization(theirs)
    if mine is None or q is None or q.scale is None or mine.dtype == theirs.dtype:
        return mine
    return op.QuantizeLinear(mine, q.scale, q.zero_point)


def _replace(op: Builder, node: ir.Node, value: Value, bounds: Bounds | None) -> None:
    """Put what ``node`` reads in the place of ``value``, clipped where there are bounds."""
    source = node.inputs[0]
    assert source is not None
    limits = [] if bounds is None else [op.array(bound.astype(np.float32)) for bound in bounds]
    mine = ir.val(op.claim(real(value.name or "")), type=source.type, shape=value.shape)
    node_type = "Clip" if limits else "Identity"
    name = op.claim(real(node.name or ""))
    op.graph.insert_before(node, ir.node(node_type, [source, *limits], outputs=[mine], name=name))
    value.replace_all_uses_with(mine, replace_graph_outputs=True)
    value.name, mine.name = mine.name, value.name
