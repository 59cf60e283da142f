"""The values that the differentiable paths of a network go through."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import onnx_ir as ir

from onnx_gradcam.graph.flow import carriers, downstream, steps_of, upstream


def upstream_of_any(nodes: Sequence[ir.Node], sinks: Iterable[ir.Value]) -> set[ir.Value]:
    """Return all values on which one of ``sinks`` depends differentiably, these included."""
    return upstream(nodes, *sinks)


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


End = tuple[ir.Value, bool]
"""The beginning (False) or the end (True) of a value: what may be cut lies between the two."""


@dataclass
class _Flow:
    """A flow of units from the inputs to the sinks; one unit at most goes through a value that may be cut.

    Attributes:
        after: for each value those that are computed of it.
        before: for each value those that it is computed of.
        cuttable: the values that may be cut.
        used: the pairs of ends that a unit of the flow goes along, with their number.
    """

    after: Mapping[ir.Value, Sequence[ir.Value]]
    before: Mapping[ir.Value, Sequence[ir.Value]]
    cuttable: Collection[ir.Value]
    used: dict[tuple[End, End], int] = field(default_factory=dict)

    def forward(self, end: End) -> Iterator[End]:
        """Yield the ends that one more unit can go to from ``end``: along the graph, or back along another unit."""
        value, is_end = end
        if is_end:
            yield from ((v, False) for v in self.after.get(value, ()))
            if self.used.get(((value, False), end)):
                yield value, False
        else:
            if value not in self.cuttable or not self.used.get((end, (value, True))):
                yield value, True
            yield from ((v, True) for v in self.before.get(value, ()) if self.used.get(((v, True), end)))

    def add(self, path: Sequence[End]) -> None:
        """Let one more unit go along a path."""
        for a, b in pairwise(path):
            if self.used.get((b, a)):
                self.used[b, a] -= 1
            else:
                self.used[a, b] = self.used.get((a, b), 0) + 1


def smallest_cut(
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    sinks: Collection[ir.Value],
    cuttable: Collection[ir.Value],
) -> list[ir.Value]:
    """Return the smallest set of ``cuttable`` values that cuts all differentiable paths from the inputs to the sinks.

    Of several such sets it is the one nearest to the sinks (a minimum cut, by augmenting paths). In graph order; empty
    where a path goes around all of them.
    """
    path = downstream(nodes, inputs) & upstream_of_any(nodes, sinks)
    within = steps_of(nodes, path)
    flow = _Flow(within.after, within.before, set(cuttable))
    begin = [(v, False) for v in inputs if v in path]
    while True:
        came = _reached(flow, begin)
        ends = [(v, True) for v in sinks if (v, True) in came]
        if not ends:
            break
        steps = [ends[0]]
        while (previous := came[steps[-1]]) is not None:
            steps.append(previous)
        unit = steps[::-1]
        if not any(a[0] is b[0] and a[0] in flow.cuttable for a, b in pairwise(unit)):
            return []
        flow.add(unit)
    leading = _leading(flow, [(v, True) for v in sinks if v in path])
    return [
        v for n in nodes for v in n.outputs if v in flow.cuttable and (v, True) in leading and (v, False) not in leading
    ]


def _reached(flow: _Flow, begin: Iterable[End]) -> dict[End, End | None]:
    """Return the ends that one more unit can reach, each with the one that it comes from."""
    came: dict[End, End | None] = dict.fromkeys(begin)
    pending = deque(came)
    while pending:
        end = pending.popleft()
        for other in flow.forward(end):
            if other not in came:
                came[other] = end
                pending.append(other)
    return came


def _leading(flow: _Flow, sinks: Iterable[End]) -> set[End]:
    """Return the ends from which one more unit could reach a sink."""
    back: dict[End, list[End]] = {}
    for value in {*flow.after, *flow.before}:
        for end in ((value, False), (value, True)):
            for other in flow.forward(end):
                back.setdefault(other, []).append(end)
    leading = set(sinks)
    pending = deque(leading)
    while pending:
        for other in back.get(pending.popleft(), ()):
            if other not in leading:
                leading.add(other)
                pending.append(other)
    return leading
