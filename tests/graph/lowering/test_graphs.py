"""Small graphs with operators of com.microsoft, of old opsets and of the user's own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from lowering_check import run_ort

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.roads.engines import gradient_model

RNG = np.random.default_rng(7)


def pooled(x: np.ndarray) -> np.ndarray:
    """The maximum of windows of 2 × 2, in steps of 2, of (N, H, W, C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def test_a_quantized_pool_of_channels_last() -> None:
    """The gradient goes to the first maximum of each window, read from the integers."""
    q = RNG.integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    text = """<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>
        g (float[2,4,6,3] x) => (float[2,2,3,3] y)
        <float s = {0.5}, uint8 z = {10}> {
            q = QuantizeLinear(x, s, z)
            p = com.microsoft.NhwcMaxPool<kernel_shape = [2, 2], strides = [2, 2]>(q)
            y = DequantizeLinear(p, s, z)
        }"""
    x = (q.astype(np.float32) - 10) / 2
    g = RNG.standard_normal((2, 2, 3, 3)).astype(np.float32)
    y, found = gradient(text, "q", x, g)
    np.testing.assert_array_equal(y, pooled(x))
    expected = np.zeros_like(x)
    for n, h, w, c in np.ndindex(g.shape):
        window = x[n, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, c]
        i, j = np.unravel_index(window.argmax(), (2, 2))
        expected[n, 2 * h + i, 2 * w + j, c] = g[n, h, w, c]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op_type", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_matmul_of_numbers_quantized_on_the_way(op_type: str, bias: bool) -> None:
    """ā = g · Bᵀ, B as its integers mean it; the kernel's y is that of the standard form."""
    integers = op_type == "MatMulIntegerToFloat"
    b, scale = RNG.integers(-127, 128, (4, 5)).astype(np.int8), RNG.uniform(0.01, 0.02, 5).astype(np.float32)
    quantized = "q, scale, zero = DynamicQuantizeLinear(a)" if integers else ""
    inputs = (
        f"q, b, scale, b_scale, zero, b_zero{', c' if bias else ''}"
        if integers
        else (f"a, b, b_scale, b_zero{', c' if bias else ''}")
    )
    text = f"""<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>
        g (float[2,3,4] a) => (float[2,3,5] y)
        <int8[4,5] b = {{{", ".join(map(str, b.ravel()))}}}, float[5] b_scale = {{{", ".join(map(str, scale))}}},
         int8[5] b_zero = {{0, 0, 0, 0, 0}}, float[5] c = {{1, 2, 3, 4, 5}}>
        {{ {quantized}
           y = com.microsoft.{op_type}({inputs}) }}"""
    a, g = (RNG.standard_normal(shape).astype(np.float32) for shape in [(2, 3, 4), (2, 3, 5)])
    y, found = gradient(text, "a", a, g)
    real = b * scale
    step = (max(a.max(), 0) - min(a.min(), 0)) / 255
    assert np.abs(y - a @ real - (np.arange(1, 6) if bias else 0)).max() <= step / 2 * np.abs(real).sum(0).max()
    np.testing.assert_allclose(found, g @ real.T, rtol=1e-5, atol=1e-6)


def gradient(text: str, wrt: str, x: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """y and the cotangent of ``wrt`` on ONNX Runtime, given the cotangent of y."""
    model = prepare(ir.from_proto(onnx.parser.parse_model(text)))
    values = ir.convenience.create_value_mapping(model.graph)
    seed = ir.val("g", dtype=ir.DataType.FLOAT, shape=g.shape)
    nodes, y = list(model.graph), values["y"]
    (found,) = pull_back(Builder(model.graph), nodes, {y: seed}, [values[wrt]])
    fed = {model.graph.inputs[0].name or "": x, "g": g}
    model.graph.inputs.append(seed)
    model.graph.outputs[:] = [y, found]
    return run_ort(model, fed)


@pytest.mark.parametrize("op_type", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_normalisations_before_they_were_standard(op_type: str) -> None:
    """onnxruntime has them at any opset; x̄ by differences in NumPy."""
    rows = RNG.standard_normal((6, 3))
    text = f"""<ir_version: 8, opset_import: ["": 13]> g (float[N,6] x) => (float[N,3] y)
        <float[6] s = {{1, 2, 3, 4, 5, 6}}, float[6,3] w = {{{", ".join(map(str, rows.ravel()))}}}>
        {{ h = {op_type}<axis = -1, epsilon = 0.125>(x, s)  y = MatMul(h, w) }}"""
    x, g = RNG.standard_normal((2, 6)), RNG.standard_normal((2, 3))

    def f(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True) if op_type == "LayerNormalization" else x
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.125) * np.arange(1, 7) @ rows

    y, found = gradient(text, "x", x.astype(np.float32), g.astype(np.float32))
    np.testing.assert_allclose(y, f(x), rtol=1e-4, atol=1e-4)
    for _ in range(3):
        v = RNG.standard_normal(x.shape)
        numeric = np.vdot(g, f(x + 1e-6 * v) - f(x - 1e-6 * v)) / 2e-6
        assert np.vdot(found, v) == pytest.approx(numeric, rel=1e-4, abs=1e-5 * float(np.linalg.norm(found)))


def test_a_custom_operator_without_a_body_is_refused_by_name() -> None:
    text = """<ir_version: 8, opset_import: ["": 18, "my.domain": 1]>
        g (float[N,6] x) => (float[N,6] y) { h = my.domain.Secret(x)  y = Mul(h, h) }"""
    with pytest.raises(UnsupportedGradient, match=r"no VJP rule for my\.domain::Secret, input 0") as caught:
        gradient_model(onnx.parser.parse_model(text), ["x"])
    assert "--layer" in caught.value.hint


def test_a_custom_operator_with_a_body_is_differentiated_through_it() -> None:
    text = """<ir_version: 8, opset_import: ["": 18, "my.domain": 1]>
        g (float[2,3] x) => (float[2,3] y) { h = my.domain.Square(x)  y = Mul(h, h) }
        <domain: "my.domain", opset_import: ["": 18]> Square (a) => (b) { b = Mul(a, a) }"""
    x, g = (RNG.standard_normal((2, 3)).astype(np.float32) for _ in range(2))
    _, found = gradient(text, "x", x, g)
    np.testing.assert_allclose(found, 4 * x**3 * g, rtol=1e-5)
