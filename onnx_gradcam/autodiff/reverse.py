"""The backward walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.autodiff import registry, rules  # noqa: F401 (importing the rules registers them)
from onnx_gradcam.autodiff.registry import RULES, Key, Rule
from onnx_gradcam.errors import NoGradientPath
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import carriers, downstream


def pull_back(
    op: Builder,
    nodes: Sequence[ir.Node],
    seeds: Mapping[Value, Value],
    wrt: Sequence[Value],
    table: Mapping[Key, Rule] = RULES,
) -> list[Value]:
    """Append the nodes that carry the cotangents ``seeds`` (output → cotangent) back to every value of ``wrt``.

    ``nodes``: the forward nodes in topological order. Returns Σ ∂⟨cotangent, output⟩/∂v for each v of ``wrt``, in v's
    full shape.

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
    path = downstream(nodes, wrt)
    cotangents = dict(seeds)
    for node in reversed(nodes):
        gs = [cotangents.get(y) for y in node.outputs]
        if all(g is None for g in gs):
            continue
        for i, value in carriers(node):
            if value in path:
                share = registry.apply(table, op, node, i, gs)
                cotangents[value] = op.Add(cotangents[value], share) if value in cotangents else share
    return [op.expand(cotangents[value], value) for value in wrt]
