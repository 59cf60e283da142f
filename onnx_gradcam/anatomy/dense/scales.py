"""How coarse the values on a grid are, by their sizes or, where these are open, by strides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import constant


def scales(nodes: Sequence[ir.Node], dims: Mapping[Value, Sequence[Dim]]) -> dict[Value, float]:
    """Return how coarse each value is: 1 / the number of its cells; by strides where sizes are not known.

    ``dims``: how many cells a value has along each spatial axis.
    """
    if all(isinstance(d, int) for space in dims.values() for d in space):
        return {v: 1 / math.prod(d for d in space if isinstance(d, int)) for v, space in dims.items()}
    by_strides: dict[Value, float] = {}
    for node in nodes:
        known = [by_strides[v] for v in node.inputs if v in by_strides]
        by_strides.update(dict.fromkeys(node.outputs, (known[0] if known else 1.0) * _stride(node)))
    return {v: by_strides[v] for v in dims}


def _stride(node: ir.Node) -> float:
    """Return by how much what ``node`` makes is coarser than what it reads."""
    strides = math.prod(node.attributes.get_ints("strides", ()))
    if node.op_type == "ConvTranspose":
        return 1 / strides
    if node.op_type == "Resize":
        scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return 1 / float(np.prod(scales)) if scales is not None and scales.size else 1.0
    return float(strides)
