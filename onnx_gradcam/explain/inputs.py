"""What a graph declares of its inputs and outputs, as the data that the rooms of arrays and photos understand."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.grids import input_axes
from onnx_gradcam.photos.preprocess.choice import InputSpec


def input_specs(graph: ir.Graph) -> dict[str, InputSpec]:
    """Return the inputs of the model by name, with their spatial axes where its convolutions tell them."""
    nodes = list(graph)
    return {v.name or "": replace(spec_of(v), axes=input_axes(nodes, v)) for v in graph.inputs}


def spec_of(value: ir.Value) -> InputSpec:
    """Return name, shape and NumPy dtype of a graph input or output; "unknown" where it is no tensor."""
    dims = () if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
    dtype = "unknown" if value.dtype is None else value.dtype.numpy().name
    return InputSpec(value.name or "", dims, dtype, is_open=value.shape is None)
