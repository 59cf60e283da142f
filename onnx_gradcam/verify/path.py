"""Which nodes are on the path from the image to the score, and which of them stand for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import carriers, downstream, operands, upstream

ALIKE_CHECKED = 3  # how many nodes of one signature are checked


@dataclass(frozen=True)
class CheckedNode:
    """A node on the path, with the positions of the inputs and outputs that the gradient flows through."""

    node: ir.Node
    wrt: tuple[int, ...]
    outputs: tuple[int, ...]


def sites(graph: ir.Graph, sources: Sequence[Value], score: Value) -> list[CheckedNode]:
    """Return the nodes on differentiable paths from one of ``sources`` to ``score``, in graph order."""
    nodes = list(graph)
    path = downstream(nodes, sources) & upstream(nodes, score)
    found = []
    for node in nodes:
        outputs = tuple(k for k, y in enumerate(node.outputs) if y in path)
        wrt = tuple(i for i, x in carriers(node) if x in path)
        if wrt and outputs:
            found.append(CheckedNode(node, wrt, outputs))
    return found


def spread(found: Sequence[CheckedNode]) -> list[CheckedNode]:
    """Return at most ``ALIKE_CHECKED`` nodes of each signature, spread evenly over the model."""
    alike: dict[tuple[object, ...], list[CheckedNode]] = {}
    for site in found:
        alike.setdefault(_signature(site), []).append(site)
    picks = [group[round(k)] for group in alike.values() for k in np.linspace(0, len(group) - 1, ALIKE_CHECKED)]
    kept = {site.node for site in picks}
    return [site for site in found if site.node in kept]


def _signature(site: CheckedNode) -> tuple[object, ...]:
    """Return operator, attributes, shapes, and the content of integer constants (axes, pads, indices)."""
    attributes = sorted((a.name, str(a.value)) for a in site.node.attributes.values())
    inputs = [None if v is None else (v.dtype, str(v.shape), _integers(v)) for v in operands(site.node)]
    return site.node.op_type, tuple(attributes), tuple(inputs), site.wrt, site.outputs


def _integers(value: Value) -> bytes | None:
    array = constant(value) if value.dtype is not None and value.dtype.is_integer() else None
    return None if array is None else array.tobytes()


def values_of(found: Sequence[CheckedNode]) -> list[str]:
    """Return the names of the values that a run of the model must give before the nodes can be checked."""
    given = [v for site in found for v in operands(site.node) if v is not None and constant(v) is None]
    made = [site.node.outputs[k] for site in found for k in site.outputs]
    return list(dict.fromkeys(v.name or "" for v in [*given, *made]))
