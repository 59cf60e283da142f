"""A model whose Grad-CAM is known: the brightness of its input."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

CELL, SIDE = 16, 96
PREPROCESS = {
    "size": [SIDE, SIDE + CELL],
    "scale": 1 / 255,
    "mean": 0,
    "std": 1,
    "channels": "RGB",
    "layout": "NCHW",
    "pad": 0,
    "dtype": "float32",
}


def brightness_model() -> onnx.ModelProto:
    """Mean brightness of CELL × CELL cells → Relu → global average → class 0: the average, class 1: its negative."""
    weights = {
        "w": np.full((1, 3, CELL, CELL), 1 / (3 * CELL * CELL), np.float32),
        "head": np.array([[1], [-1]], np.float32),
        "bias": np.zeros(2, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], strides=[CELL, CELL]),
        helper.make_node("Relu", ["conv"], ["cells"]),
        helper.make_node("GlobalAveragePool", ["cells"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", 1, ["batch", 3, SIDE, SIDE + CELL])],
        [helper.make_tensor_value_info("logits", 1, ["batch", 2])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


# What tests of the command line start with, in the folder of the fixture ``folder``.
EXPLAIN = ("explain", "model.onnx", "photos", "--preprocess", "good.json")
