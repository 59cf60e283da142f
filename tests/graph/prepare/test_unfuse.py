from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.graph.prepare.prepare import prepare

TEXT = """<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>
    g (float[N,2,4] x) => (float[N,3] y)
    <float[4] scale = {1, 2, 3, 4}, float[4] shift = {0, 1, 0, 1}, float[4,4] w = {
        0.5, -1, 2, 0.25, 1, 1, -0.5, 2, 0.1, 0.3, 0.7, -0.9, 1, 0, -1, 0.5},
     float[8,3] head = {1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, 1, 0, 1, 0, 1, 0, 2, 2, 2, 3, -3, 1},
     int64[2] flat = {0, 8}> {
        a = MatMul(x, w)
        n, , , stream = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(a, x, scale, shift)
        b = MatMul(n, w)
        m = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(b, stream, scale, shift)
        f = Reshape(m, flat)
        y = MatMul(f, head)
    }"""


def run(model: onnx.ModelProto, names: list[str], x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {"x": x, "target_index": np.array([2, 0])}
    return [np.asarray(a) for a in session.run(names, {i.name: fed[i.name] for i in session.get_inputs()})]


def test_a_sum_that_is_handed_on_is_written_out() -> None:
    """The other SkipLayerNormalization stays."""
    found = [(node.op_type, [v.name for v in node.outputs]) for node in prepare(model()).graph]
    assert found[1:3] == [("Add", ["stream"]), ("LayerNormalization", ["n"])]
    assert ("SkipLayerNormalization", ["m"]) in found


def test_nothing_else_changes() -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 4)).astype(np.float32)
    (expected,) = run(ir.to_proto(model()), ["y"], x)
    (found,) = run(ir.to_proto(prepare(model())), ["y"], x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_at_the_sum_is_the_whole_one() -> None:
    """∂y/∂stream through the normalisation and around it: by differences of what follows the sum, in NumPy."""
    x = np.random.default_rng(0).standard_normal((2, 2, 4)).astype(np.float32)
    written = ogc.gradient_model(ir.to_proto(model()), ["stream"])
    stream, gradient = run(written, ["stream", "grad/stream"], x)
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype(float) for t in ir.to_proto(model()).graph.initializer}

    def normalized(a: np.ndarray) -> np.ndarray:
        centred = a - a.mean(-1, keepdims=True)
        return centred / np.sqrt(a.var(-1, keepdims=True) + 0.001) * arrays["scale"] + arrays["shift"]

    def score(a: np.ndarray) -> float:
        m = normalized(normalized(a) @ arrays["w"] + a)
        return float((m.reshape(2, 8) @ arrays["head"])[[0, 1], [2, 0]].sum())

    rng = np.random.default_rng(1)
    for _ in range(5):
        v = rng.standard_normal(stream.shape)
        numeric = (score(stream + 1e-6 * v) - score(stream - 1e-6 * v)) / 2e-6
        assert np.vdot(gradient, v) == pytest.approx(numeric, rel=1e-4, abs=1e-4 * float(np.linalg.norm(gradient)))


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(TEXT))
