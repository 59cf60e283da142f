"""Nodes and bodies that compute in float64, for onnx's reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def widen_node(node: onnx.NodeProto) -> None:
    """Let ``node`` and all nodes in its bodies compute in float64."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i in FLOATS:
            attribute.i = onnx.TensorProto.DOUBLE
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)
        if attribute.HasField("g"):
            widen_body(attribute.g)


def widen_body(body: onnx.GraphProto) -> None:
    """Let all nodes of ``body`` compute in float64."""
    for tensor in body.initializer:
        _widen_tensor(tensor)
    for node in body.node:
        widen_node(node)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
