"""A network so small that its maps are computed by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

HEAD = np.array([[4, -4], [-8, 8], [4, 4]], np.float32)  # class, channel


def model() -> onnx.ModelProto:
    """Relu (2 channels) → GAP → Gemm: ∂y_c/∂A_k = HEAD[c, k] / 4 at each of the four pixels."""
    nodes = [
        helper.make_node("Relu", ["image"], ["cells"]),
        helper.make_node("GlobalAveragePool", ["cells"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "side by side",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 2, "h", "w"])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(HEAD, "head")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
