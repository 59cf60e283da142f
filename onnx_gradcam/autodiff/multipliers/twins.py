"""The values of the second forward pass, by those of the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import carries
from onnx_gradcam.graph.names import values_by_name


class Twins:
    """Finds what stands in the place of a value in the second pass.

    What the walk writes of the first pass, as the standard operators for a fused one, and what is computed of the score
    are written of the second pass when they are asked for; classes and places that the first pass chose are kept.
    """

    def __init__(self, nodes: Sequence[ir.Node], names: Mapping[str, str]) -> None:
        graph = nodes[0].graph
        assert isinstance(graph, ir.Graph)
        values = values_by_name(graph)
        self._known = {values[a]: values[b] for a, b in names.items() if a in values and b in values}

    def of(self, op: Builder, value: Value) -> Value:
        """Return the value of the second pass; ``value`` itself where it does not depend on a moving input."""
        pending = [value]
        while pending:
            last = pending[-1]
            node = last.producer()
            if last in self._known:
                pending.pop()
            elif node is None or not carries(last):
                self._known[last] = last
            elif missing := [v for v in node.inputs if v is not None and v not in self._known]:
                pending.extend(missing)
            else:
                self._write(op, node)
        return self._known[value]

    def _write(self, op: Builder, node: ir.Node) -> None:
        """Write a node of the first pass once more, of what the second pass has for its inputs."""
        inputs = [None if v is None else self._known[v] for v in node.inputs]
        if inputs == list(node.inputs):
            self._known.update({y: y for y in node.outputs})
            return
        attributes = {a.name: a.value for a in node.attributes.values()}
        outputs = op.node(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
        for y, twin in zip(node.outputs, outputs, strict=True):
            twin.shape = y.shape
            self._known[y] = twin
