"""What a rule compares in a float16 model: values of one rounding, whatever the runtime keeps in 32 bits.

On a CPU onnxruntime computes 16-bit operators in float32 and drops the casts between two of them, so that one reader of
a value may get it rounded and another unrounded: equal numbers are not equal then, and a gradient would be lost without
a word.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

import onnx_gradcam as ogc

Piece = Callable[[Net, str], str]

PIECES: dict[str, Piece] = {
    "MaxPool": lambda net, x: net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]),
    "MaxPool, stride 1": lambda net, x: net.op("MaxPool", x, kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    "MaxPool, rows": lambda net, x: net.op("MaxPool", x, kernel_shape=[1, 3], strides=[1, 3]),
    "GlobalMaxPool": lambda net, x: net.op("GlobalMaxPool", x),
    "ReduceMax": lambda net, x: net.op("ReduceMax", x, net.ints(2, 3)),
    "ReduceMin": lambda net, x: net.op("ReduceMin", x, net.ints(3)),
    "Clip": lambda net, x: net.op("Clip", x, net.array(np.float32(-0.2)), net.array(np.float32(0.6))),
    "Max": lambda net, x: net.op("Max", x, net.conv(x, (6, 6), kernel=1)),
    "Min": lambda net, x: net.op("Min", x, net.conv(x, (6, 6), kernel=1), net.array(np.float32(0.3))),
}


def network(piece: Piece, before: str) -> onnx.ModelProto:
    net = Net()
    x = net.op(before, net.conv(net.input("x", ["N", 3, 14, 14]), (3, 6), out="conv"), out="before")
    net.head(net.conv(piece(net, x), (6, 5), kernel=1, out="after"), 5)
    return net.model({"logits": ["N", 5]})


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """In float32, with the weights that float16 has."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            weights = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


CASES = [
    (name, before)
    for name in PIECES
    for before in ("Relu", "Sigmoid")
    if name.startswith("MaxPool") or before == "Relu"
]


@pytest.mark.parametrize(("name", "before"), CASES)
def test_no_share_of_the_gradient_is_lost(name: str, before: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 14, 14)).astype(np.float16)
    half = convert_float_to_float16(network(PIECES[name], before))
    with ogc.Explainer(half, providers=["cpu"]) as narrow:
        found = narrow.explain(x, 2, "saliency").attribution
    with ogc.Explainer(rounded(network(PIECES[name], before)), providers=["cpu"]) as wide:
        expected = wide.explain(x.astype(np.float32), 2, "saliency").attribution
    # Rounding decides a few near ties otherwise.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(expected), rtol=0.02)
