"""Operators that a graph uses and that neither ONNX nor onnxruntime defines: what they give is not known."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable

import onnx
import onnx_ir as ir

from onnx_gradcam.errors import UnknownOperator
from onnx_gradcam.graph.flow import upstream

STANDARD = ("", "ai.onnx")
KNOWN_DOMAINS = ("ai.onnx.", "com.microsoft", "onnx_gradcam")
"""How the domains begin whose operators onnxruntime brings, or that only stand for a part of a prepared graph."""
FORMER = frozenset(
    "ATen Affine Crop DynamicSlice GivenTensorFill ImageScaler ParametricSoftplus Scale ScaledTanh".split()
)
"""Operators of ONNX's first days that it has dropped and onnxruntime has kept."""
SOURCES = {"FC": "Gemm", "LegacyPadding": "Pad", "SpatialBN": "BatchNormalization", "LegacyConv": "Conv"}
"""Operators of Caffe2 that converters left in their files → what ONNX has in their place."""


def is_unknown(node: ir.Node) -> bool:
    """Tell whether neither ONNX nor onnxruntime defines the operator of a node."""
    if node.domain in STANDARD:
        return node.op_type not in FORMER and node.op_type not in standard_operators()
    return not node.domain.startswith(KNOWN_DOMAINS)


@functools.cache
def standard_operators() -> frozenset[str]:
    """Return the operators of ONNX's own domain, of all versions."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == "")


def unknown_before(graph: ir.Graph, ends: Collection[ir.Value]) -> tuple[ir.Node, ...]:
    """Return the nodes with unknown operators that values are made by, in the order of the graph."""
    suspects = [node for node in graph if is_unknown(node)]
    if not suspects:
        return ()
    made = {v for end in ends for v in upstream(graph, end)}.union(ends)
    return tuple(node for node in suspects if any(v in made for v in node.outputs))


def full_name(node: ir.Node) -> str:
    """Return an operator's name with its domain, where that is not ONNX's own."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"


def accusation(node: ir.Node) -> str:
    """Return a sentence that says what is wrong with a node of an unknown operator."""
    if node.domain in STANDARD:
        return f"ONNX has no operator {node.op_type!r}, and so no runtime has it"
    return f"{full_name(node)!r} is an operator of nobody but the library that brings the domain {node.domain!r}"


def way_out(node: ir.Node) -> str:
    """Return what can be done about a node of an unknown operator."""
    if node.domain not in STANDARD:
        return (
            "--custom-ops LIBRARY where you have it, and --score NAME of a value before it; else another export, with "
            "operators of ONNX"
        )
    instead = f" ({SOURCES[node.op_type]} is ONNX's)" if node.op_type in SOURCES else ""
    return f"another export of the model, with operators of ONNX{instead}"


def refuse_unknown(nodes: Iterable[ir.Node], score: ir.Value) -> None:
    """Raise ``UnknownOperator`` for the first node that no runtime has, or where nothing is known of the score.

    Operators of a library of their own may run, and the model may declare what they give.

    Args:
        nodes: the nodes before the score whose operators are unknown.
        score: the value that holds the score.
    """
    for node in (n for n in nodes if n.domain in STANDARD or score.dtype is None):
        raise UnknownOperator(
            accusation(node),
            where=f"node {node.name!r}, before the score",
            hint=way_out(node),
            op_type=node.op_type,
            domain=node.domain,
            node=node.name,
        )
