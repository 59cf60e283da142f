"""The backward walk."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence, Set

import onnx_ir as ir

from onnx_gradcam.autodiff import registry
from onnx_gradcam.autodiff.rectifiers.composites import Composite, composites
from onnx_gradcam.autodiff.rectifiers.operators import STANDS_FOR
from onnx_gradcam.autodiff.registry import COMPOSITE, Key, Rule
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.errors import NoGradientPath
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import carriers, downstream
from onnx_gradcam.graph.lowering.table import Unlowered, is_lowered, is_moved, lower, real
from onnx_gradcam.graph.quantization import only_requantizes

Gs = Sequence[Value | None]
NONE: Set[Value] = frozenset()


def pull_back(
    op: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[Value, Value],
    wrt: Sequence[Value],
    table: Mapping[Key, Rule] = RULES,
    unsaturated: Set[Value] = NONE,
) -> list[Value]:
    """Append the nodes that carry the cotangents ``seeds`` (output → cotangent) back to every value of ``wrt``.

    ``nodes``: the forward nodes in topological order. ``unsaturated``: quantized values whose saturation is passed
    over. Returns Σ ∂⟨cotangent, output⟩/∂v for each v of ``wrt``, in v's full shape; that of a quantized v is with
    respect to the real numbers that it stands for.

    Raises ``NoGradientPath`` where no output depends on a v, ``UnsupportedGradient`` for a node on the path without a
    rule.
    """
    for value in wrt:
        if seeds.keys().isdisjoint(downstream(nodes, [value])):
            names = ", ".join(repr(v.name) for v in seeds)
            raise NoGradientPath(
                f"{names} does not depend on {value.name!r} through differentiable operators",
                hint="another target layer: `onnx-gradcam inspect MODEL` lists the candidates",
                outputs=tuple(v.name for v in seeds),
                value=value.name,
            )
    _refuse_missing(nodes, seeds, wrt, table)
    cotangents = _walk(op, nodes, seeds, wrt, table, unsaturated)
    return [op.expand(cotangents[value], value) for value in wrt]


def _refuse_missing(
    nodes: Sequence[ir.Node], seeds: Mapping[Value, Value], wrt: Sequence[Value], table: Mapping[Key, Rule]
) -> None:
    """Raise ``UnsupportedGradient`` for an operator without a rule, before others stumble over shapes that it hides."""
    path = downstream(nodes, wrt)
    needed = set(seeds)
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs):
            continue
        for i, value in carriers(node):
            if value in path:
                needed.add(value)
                if registry.find(table, node, i) is None and not is_lowered(node):
                    raise registry.refusal(node, i, "no VJP rule")


def _walk(
    op: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[Value, Value],
    wrt: Sequence[Value],
    table: Mapping[Key, Rule],
    unsaturated: Set[Value],
) -> dict[Value, Value]:
    """The cotangents of all values between ``wrt`` and the outputs that have seeds."""
    path = downstream(nodes, wrt)
    whole = _composites(nodes, wrt) if (COMPOSITE, 0) in table else {}
    cotangents = dict(seeds)
    for node in reversed(nodes):
        gs = [cotangents.get(y) for y in node.outputs]
        wanted = [i for i, value in carriers(node) if value in path]
        if wanted and any(g is not None for g in gs):
            composite = whole.get(node)
            if composite is None:
                shares = pull_through(op, node, wanted, gs, table, unsaturated)
            else:
                shares = _through_composite(op, composite, gs, table)
            for value, share in shares:
                cotangents[value] = op.Add(cotangents[value], share) if value in cotangents else share
    return cotangents


def _composites(nodes: Sequence[ir.Node], wrt: Sequence[Value]) -> dict[ir.Node, Composite]:
    """Those that a table has one rule for; one whose inner values are asked for is taken node by node."""
    return {node: c for node, c in composites(nodes).items() if c.inner.isdisjoint(wrt)}


def _through_composite(
    op: Builder, composite: Composite, gs: Gs, table: Mapping[Key, Rule]
) -> Iterator[tuple[Value, Value]]:
    """The share that what an activation of several nodes is computed from gets, by the one rule for all of them."""
    x, y, rule = composite.x, composite.y, table[COMPOSITE, 0]
    walk = {"pull_back": pull_back} if rule.nested else {}  # of the nodes, by the ordinary rules
    yield x, rule.function(op, gs[0], y, x, composite=composite, **walk)


def pull_through(
    op: Builder,
    node: ir.Node,
    wanted: Sequence[int],
    gs: Gs,
    table: Mapping[Key, Rule] = RULES,
    unsaturated: Set[Value] = NONE,
) -> Iterator[tuple[Value, Value]]:
    """The shares that the inputs ``wanted`` of one node get of the cotangents ``gs`` of its outputs: (input, share).

    By its rules, or those of the standard operators that compute the same.
    """
    values = dict(carriers(node))
    if node.op_type == "QuantizeLinear" and (node.outputs[0] in unsaturated or only_requantizes(node)):
        assert gs[0] is not None
        yield values[0], gs[0]
    elif is_moved(node) or any(registry.find(table, node, i) is None for i in wanted):
        yield from _through_lowered(op, node, wanted, gs, table, unsaturated).items()
    else:
        for i in wanted:
            yield values[i], registry.apply(table, op, node, i, gs, functools.partial(pull_back, table=table))


def _through_lowered(
    op: Builder,
    node: ir.Node,
    wanted: Sequence[int],
    gs: Gs,
    table: Mapping[Key, Rule],
    unsaturated: Set[Value],
) -> dict[Value, Value]:
    start = len(op.written)
    try:
        made = lower(op, node)
    except Unlowered as reason:
        raise registry.refusal(node, wanted[0], str(reason)) from None
    if made is None:
        raise registry.refusal(node, wanted[0], "no VJP rule")
    if any(g is not None and mine is None for mine, g in zip(made, gs, strict=True)):
        raise registry.refusal(node, wanted[0], "no VJP rule for an output other than the first")
    stands_for = {mine: theirs for mine, theirs in zip(made, node.outputs, strict=True) if mine is not None}
    for mine, theirs in stands_for.items():
        mine.shape = theirs.shape or mine.shape
        mine.meta[STANDS_FOR] = theirs
    deployed = {mine: theirs if mine.dtype == theirs.dtype else real(op, theirs) for mine, theirs in stands_for.items()}
    seeds = {mine: g for mine, g in zip(made, gs, strict=True) if mine is not None and g is not None}
    passed_over = {mine for mine, theirs in stands_for.items() if theirs in unsaturated}
    wrt = [value for i, value in carriers(node) if i in wanted]
    found = _walk(op, op.written[start:], seeds, wrt, table, passed_over)
    for mine, theirs in deployed.items():
        if theirs.name and mine.producer() in op.written[start:]:
            mine.replace_all_uses_with(theirs)  # rules read what was deployed; what nothing reads is pruned
    return {value: found[value] for value in wrt if value in found}
