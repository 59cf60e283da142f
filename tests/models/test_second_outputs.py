"""Operators with several outputs: those that nothing reads do no harm, and those that something reads are followed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

import onnx_gradcam as ogc

ROW = "f = ReduceMean <keepdims = 0> (t, axis)"
UNREAD = {
    "LayerNormalization": (18, f"t, mean, inverse = LayerNormalization(r, s)\n {ROW}"),
    "Attention": (
        23,
        f"q = Unsqueeze(r, one)\n y, key, value, scores = Attention(q, q, q)\n t = Squeeze(y, one)\n {ROW}",
    ),
    "MultiHeadAttention": (
        18,
        f"q = Identity(r)\n t, key, value = com.microsoft.MultiHeadAttention <num_heads = 2> (q, q, q)\n {ROW}",
    ),
    "SkipLayerNormalization": (18, f"t, m, i, u = com.microsoft.SkipLayerNormalization(r, r, s)\n {ROW}"),
    "Dropout": (18, f"t, mask = Dropout(r)\n {ROW}"),
    "MaxPool": (18, f"t, places = MaxPool <kernel_shape = [2], pads = [0, 1]> (r)\n {ROW}"),
}
READ = {
    "LayerNormalization": (
        18,
        "t, mean = LayerNormalization(r, s)\n g = ReduceMean <keepdims = 0> (t, axis)\n q = Squeeze(mean, axis)\n"
        "f = Add(g, q)",
    ),
    "Attention": (
        23,
        "q = Unsqueeze(r, one)\n y, key = Attention(q, q, q)\n u = Add(y, key)\n t = Squeeze(u, one)\n" + ROW,
    ),
}


def model(opset: int, text: str) -> onnx.ModelProto:
    """Return Conv, Relu, tokens of 64 numbers, what the text says, and a head."""
    made = parser.parse_model(f"""<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>
    g (float[N, 3, 8, 8] x) => (float[N, 5] logits)
    <int64[3] size = {{0, 4, 64}}, int64[1] axis = {{2}}, int64[1] one = {{1}}>
    {{ c = Conv <pads = [1, 1, 1, 1]> (x, w)\n a = Relu(c)\n r = Reshape(a, size)\n {text}\n logits = Gemm(f, h) }}""")
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("s", (64,)), ("h", (4, 5))):
        array = (rng.standard_normal(shape) / 3).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return made


@pytest.mark.parametrize(
    "made",
    [*UNREAD.values(), *READ.values()],
    ids=[*(f"{name}, unread" for name in UNREAD), *(f"{name}, read" for name in READ)],
)
def test_verified(made: tuple[int, str]) -> None:
    report = ogc.verify(model(*made), target_layer="a")
    assert [check for check in report.checks if check.status != "pass"] == []


def test_a_second_output_without_a_formula_is_refused_by_name() -> None:
    text = "t, m, inverse, u = com.microsoft.SkipLayerNormalization(r, r, s)\n f = Squeeze(inverse, axis)"
    with pytest.raises(ogc.OnnxGradcamError, match="inverse"):
        ogc.gradient_model(model(18, text), ["a"])
