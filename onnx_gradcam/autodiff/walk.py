"""The backward walk: it carries cotangents from outputs back to values, node by node."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence, Set

import onnx_ir as ir

from onnx_gradcam.autodiff import guard, registry
from onnx_gradcam.autodiff.rectifiers.composites import Composite, composites
from onnx_gradcam.autodiff.rectifiers.operators import STANDS_FOR
from onnx_gradcam.autodiff.registry import COMPOSITE, Key, Rule
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.errors import NoGradientPath
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import unknown
from onnx_gradcam.graph.flow import carriers, downstream
from onnx_gradcam.graph.lowering.bodies import is_function
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import dequantize, is_lowered, lower, works_on_quantized
from onnx_gradcam.graph.lowering.trial import objection
from onnx_gradcam.graph.quantization import only_requantizes

Gs = Sequence[Value | None]
NO_VALUES: Set[Value] = frozenset()
GOES_BACK_OVER = "onnx_gradcam.goes_back_over"
"""Key in the ``meta`` of a node that was written: which forward node it carries the cotangent over, for messages."""


def pull_back(
    op: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[Value, Value],
    wrt: Sequence[Value],
    table: Mapping[Key, Rule] = RULES,
    unsaturated: Set[Value] = NO_VALUES,
) -> list[Value]:
    """Append the nodes that carry cotangents of outputs back to every value of ``wrt``.

    Args:
        op: writes the nodes.
        nodes: the forward nodes in topological order.
        seeds: output → its cotangent.
        wrt: the values whose cotangents are returned.
        table: the VJP rules.
        unsaturated: quantized values whose saturation is passed over.

    Returns:
        Σ ∂⟨cotangent, output⟩/∂v for each v of ``wrt``, in v's full shape. For a quantized v the derivative is with
        respect to the real numbers that it stands for.

    Raises:
        NoGradientPath: no output depends on a value of ``wrt``.
        UnsupportedGradient: a node on the path has no rule.
    """
    for value in wrt:
        if seeds.keys().isdisjoint(downstream(nodes, [value])):
            raise _no_path(op, seeds, value)
    _refuse_missing(nodes, seeds, wrt, table)
    cotangents = _walk(op, nodes, seeds, wrt, table, unsaturated)
    for value in wrt:
        if value not in cotangents:
            raise _no_path(op, seeds, value)
    return [op.expand(cotangents[value], value) for value in wrt]


def _no_path(op: Builder, seeds: Mapping[Value, Value], value: Value) -> NoGradientPath:
    """Return the error for a value that no seed depends on; it names values of the model, not those that we wrote."""
    ours = {y for node in op.written for y in node.outputs}
    reached, pending = set(seeds), list(seeds)
    while pending:
        last = pending.pop()
        node = last.producer()
        if last in ours and node is not None:
            new = {v for _, v in carriers(node)} - reached
            reached |= new
            pending.extend(new)
    names = sorted(v.name or "" for v in reached - ours if v.const_value is None)
    return NoGradientPath(
        f"{', '.join(map(repr, names))} does not depend on {value.name!r} through differentiable operators",
        hint="another target layer: `onnx-gradcam inspect MODEL` lists the candidates; or a method that runs what is "
        "behind the layer and needs no gradient (reciprocam, ablationcam)",
        outputs=tuple(names),
        value=value.name,
    )


def _refuse_missing(
    nodes: Sequence[ir.Node], seeds: Mapping[Value, Value], wrt: Sequence[Value], table: Mapping[Key, Rule]
) -> None:
    """Raise ``UnsupportedGradient`` for the first operator without a rule.

    This comes before the walk, in which other rules would stumble over the shapes that such an operator hides.
    """
    path = downstream(nodes, wrt)
    needed = set(seeds)
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs):
            continue
        inputs = _inputs(node, path, table)
        needed.update(value for i, value in carriers(node) if i in inputs)
        if missing := [i for i in inputs if registry.find(table, node, i) is None]:
            reason = objection(node) if is_lowered(node) else "no VJP rule"
            if reason:
                raise registry.refusal(node, missing[0], reason)


def _walk(
    op: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[Value, Value],
    wrt: Sequence[Value],
    table: Mapping[Key, Rule],
    unsaturated: Set[Value],
) -> dict[Value, Value]:
    """Return the cotangents of all values between ``wrt`` and the outputs that have seeds."""
    path = downstream(nodes, wrt)
    guard.mark_replaced(nodes, path)
    by_last_node = _composites(nodes, wrt) if (COMPOSITE, 0) in table else {}
    cotangents = dict(seeds)
    for node in reversed(nodes):
        gs = [cotangents.get(y) for y in node.outputs]
        inputs = _inputs(node, path, table)
        if inputs and any(g is not None for g in gs):
            composite = by_last_node.get(node)
            if composite is None:
                shares = pull_through(op, node, inputs, gs, table, unsaturated)
            else:
                shares = _through_composite(op, composite, gs, table)
            start = len(op.written)
            for value, share in shares:
                _take_ones(share, value)
                cotangents[value] = op.Add(cotangents[value], share) if value in cotangents else share
            for written in op.written[start:]:
                written.meta[GOES_BACK_OVER] = f"{node.name!r} ({node.op_type})"
    return cotangents


def _inputs(node: ir.Node, path: Set[Value], table: Mapping[Key, Rule]) -> list[int]:
    """Return the positions of the inputs of ``node`` on a path through which the table carries something back."""
    return [i for i, value in carriers(node) if value in path and not registry.stops(table, node, i)]


def _take_ones(share: Value, value: Value) -> None:
    """Tell of each axis of a share that it has one element where the value has: it cannot be longer."""
    theirs, own = value.shape, share.shape
    if theirs is None or own is None or len(theirs) != len(own):
        return
    dims = [1 if n == 1 and not isinstance(m, int) else m for n, m in zip(theirs, own, strict=True)]
    if dims != list(own):
        share.shape = ir.Shape(dims)


def _composites(nodes: Sequence[ir.Node], wrt: Sequence[Value]) -> dict[ir.Node, Composite]:
    """Return the activations that are written as several nodes, by their last node.

    One whose inner values are asked for is left out: it is taken node by node.
    """
    return {node: c for node, c in composites(nodes).items() if c.inner.isdisjoint(wrt)}


def _through_composite(
    op: Builder, composite: Composite, gs: Gs, table: Mapping[Key, Rule]
) -> Iterator[tuple[Value, Value]]:
    """Yield the input of an activation that is written as several nodes, with its share of the cotangent.

    The table has one rule for all such activations.
    """
    x, y, rule = composite.x, composite.y, table[COMPOSITE, 0]
    walk = {"pull_back": pull_back} if rule.nested else {}  # by the ordinary rules, whatever the table
    yield x, rule.function(op, gs[0], y, x, composite=composite, **walk)


def pull_through(
    op: Builder,
    node: ir.Node,
    inputs: Sequence[int],
    gs: Gs,
    table: Mapping[Key, Rule] = RULES,
    unsaturated: Set[Value] = NO_VALUES,
) -> Iterator[tuple[Value, Value]]:
    """Yield the shares that inputs of one node get of the cotangents of its outputs.

    They come from the node's rules, or from those of the standard operators that compute the same.

    Args:
        op: writes the nodes.
        node: the forward node.
        inputs: the positions of the inputs that get a share.
        gs: the cotangents of the outputs, None where none arrives.
        table: the VJP rules.
        unsaturated: quantized values whose saturation is passed over.

    Yields:
        Pairs (input, share).

    Raises:
        UnsupportedGradient: the node has no rule.
    """
    values = dict(carriers(node))
    if node.op_type == "QuantizeLinear" and (node.outputs[0] in unsaturated or only_requantizes(node)):
        assert gs[0] is not None
        yield values[0], gs[0]
    elif works_on_quantized(node) or not _has_rules(table, node, inputs, gs):
        yield from _through_lowered(op, node, inputs, gs, table, unsaturated).items()
    else:
        for i in inputs:
            yield values[i], registry.apply(table, op, node, i, gs, functools.partial(pull_back, table=table))


def _has_rules(table: Mapping[Key, Rule], node: ir.Node, inputs: Sequence[int], gs: Gs) -> bool:
    """Tell whether rules are there for these inputs, and know the outputs from which a cotangent comes.

    A function body knows all outputs.
    """
    matches = [registry.find(table, node, i) for i in inputs]
    later = any(g is not None for g in gs[1:]) and is_function(node)
    return all(match is not None and (match[0].multi or not later) for match in matches)


def _through_lowered(
    op: Builder,
    node: ir.Node,
    inputs: Sequence[int],
    gs: Gs,
    table: Mapping[Key, Rule],
    unsaturated: Set[Value],
) -> dict[Value, Value]:
    """Return the shares of ``pull_through`` by the standard operators that compute the same as ``node``.

    These are written too, as rules may read their inner values. The outputs are read from the deployed node.
    """
    start = len(op.written)
    wrt = [value for i, value in carriers(node) if i in inputs]
    try:
        with unknown(wrt):
            lowered = lower(op, node)
    except Unlowered as reason:
        raise registry.refusal(node, inputs[0], str(reason)) from None
    if lowered is None:
        raise registry.refusal(node, inputs[0], "no VJP rule")
    if any(g is not None and y is None for y, g in zip(lowered, gs, strict=True)):
        raise registry.refusal(node, inputs[0], "no VJP rule for an output other than the first")
    deployed = {y: output for y, output in zip(lowered, node.outputs, strict=True) if y is not None}
    for y, output in deployed.items():
        y.shape = output.shape or y.shape
        y.meta[STANDS_FOR] = output
        y.meta.update({key: mark for key, mark in output.meta.items() if key == guard.REPLACED})
    same_dtype = {y: v if y.dtype == v.dtype else dequantize(op, v) for y, v in deployed.items()}
    seeds = {y: g for y, g in zip(lowered, gs, strict=True) if y is not None and g is not None}
    also_unsaturated = {y for y, output in deployed.items() if output in unsaturated}
    cotangents = _walk(op, op.written[start:], seeds, wrt, table, also_unsaturated)
    for y, output in same_dtype.items():
        if output.name and y.producer() in op.written[start:]:
            y.replace_all_uses_with(output)  # rules read what was deployed; what nothing reads is pruned
    return {value: cotangents[value] for value in wrt if value in cotangents}
