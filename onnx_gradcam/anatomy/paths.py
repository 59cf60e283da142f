"""The values that the differentiable paths of a network go through."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx_ir as ir

from onnx_gradcam.graph.flow import carriers, downstream, upstream


def upstream_of_any(nodes: Sequence[ir.Node], sinks: Iterable[ir.Value]) -> set[ir.Value]:
    """Return all values on which one of ``sinks`` depends differentiably, these included."""
    return set[ir.Value]().union(*(upstream(nodes, sink) for sink in sinks))


def bottlenecks(nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], sinks: Collection[ir.Value]) -> list[ir.Value]:
    """Return the values that every differentiable path from the inputs to the sinks goes through, in graph order.

    Paths are counted: v is one of them when (paths to v) · (paths from v) = all paths.
    """
    path = downstream(nodes, inputs) & upstream_of_any(nodes, sinks)
    to: dict[ir.Value, int] = {v: 1 for v in inputs if v in path}
    for node in nodes:
        arriving = sum(to.get(v, 0) for _, v in carriers(node) if v in path)
        to.update({v: arriving for v in node.outputs if v in path and arriving})
    back: dict[ir.Value, int] = dict.fromkeys(sinks, 1)
    for node in reversed(nodes):
        leaving = sum(back.get(v, 0) for v in node.outputs)
        for _, value in carriers(node):
            if value in path and leaving:
                back[value] = back.get(value, 0) + leaving
    total = sum(to.get(sink, 0) for sink in sinks)
    values = [v for node in nodes for v in node.outputs if v in to and v in back]
    return [v for v in values if to[v] * back[v] == total]
