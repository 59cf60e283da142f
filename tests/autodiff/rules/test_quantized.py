"""The straight-through gradient of quantization, exactly, and against differences of the clip that it stands for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from vjp_check import Case

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder

SCALE, X = np.float32(0.1), np.array([-30.0, -12.8, -12.72, -1.0, 0.0, 0.26, 12.6, 12.7, 99.0], np.float32)

CASES = [
    Case("QuantizeLinear", [X, SCALE, np.int8(0)], constants=(1, 2)),
    Case("DequantizeLinear", [X.astype(np.int8), SCALE, np.int8(0)], constants=(1, 2)),
    Case("DynamicQuantizeLinear", [X], outputs=3),
]


def gradient_of(model: onnx.ModelProto, y: str, x: str, g: np.ndarray, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """∂⟨g, y⟩/∂x on ONNX Runtime."""
    copy = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    values = ir.convenience.create_value_mapping(copy.graph)
    nodes = list(copy.graph)
    op = Builder(copy.graph)
    seed = ir.val("g", dtype=ir.DataType.FLOAT, shape=values[y].shape)
    copy.graph.inputs.append(seed)
    (found,) = pull_back(op, nodes, {values[y]: seed}, [values[x]])
    output = op.Identity(found)
    output.name = "gradient"
    copy.graph.outputs.append(output)
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["gradient"], {**feeds, "g": g})[0])


def quantizing(dtype: onnx.TensorProto.DataType, zero_point: int) -> onnx.ModelProto:
    """x → QuantizeLinear → q → DequantizeLinear → y."""
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]>
        quantizing (float[9] x) => (float[9] y)
        <float scale = {{0.1}}, {onnx.TensorProto.DataType.Name(dtype).lower()} zero = {{{zero_point}}}>
        {{ q = QuantizeLinear(x, scale, zero)  y = DequantizeLinear(q, scale, zero) }}"""
    )


@pytest.mark.parametrize(
    ("dtype", "zero_point", "low", "high"),
    [
        (onnx.TensorProto.INT8, 0, -128, 127),
        (onnx.TensorProto.UINT8, 128, 0, 255),
        (onnx.TensorProto.UINT8, 0, 0, 255),
        (onnx.TensorProto.INT8, -128, -128, 127),
        (onnx.TensorProto.UINT16, 7, 0, 65535),
        (onnx.TensorProto.INT16, 0, -32768, 32767),
    ],
)
def test_gradient_is_one_strictly_between_the_bounds(
    dtype: onnx.TensorProto.DataType, zero_point: int, low: int, high: int
) -> None:
    g = np.arange(1, 10, dtype=np.float32)
    q = np.clip(np.rint(X / SCALE) + zero_point, low, high)
    expected = np.where((q > low) & (q < high), g, 0)
    found = gradient_of(quantizing(dtype, zero_point), "y", "x", g, {"x": X})
    np.testing.assert_array_equal(found, expected)


def test_a_folded_relu_has_no_gradient_at_zero() -> None:
    x = np.array([-1, 0, 0.04, 0.06, 1, 2, 3, 25.4, 26], np.float32)  # 0.04 rounds to qmin
    g = np.ones(9, np.float32)
    found = gradient_of(quantizing(onnx.TensorProto.UINT8, 0), "y", "x", g, {"x": x})
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 1, 1, 1, 0])


def test_movement_of_integers_moves_the_gradient() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        moved (float[1, 2, 4] x) => (float[1, 2, 2] y)
        <float scale = {0.1}, uint8 zero = {128}>
        {
            q = QuantizeLinear(x, scale, zero)
            p = MaxPool <kernel_shape = [2], strides = [2]> (q)
            t = Transpose <perm = [0, 2, 1]> (p)
            y = DequantizeLinear(t, scale, zero)
        }"""
    )
    x = np.array([[[1, 2, 4, 3], [-9, -9, 5, 6]]], np.float32)
    g = np.array([[[1, 2], [3, 4]]], np.float32)
    # windows: 2 and 4 in the first row; −9, −9 (a tie: the first takes it) and 6 in the second
    np.testing.assert_array_equal(gradient_of(model, "y", "x", g, {"x": x}), [[[0, 1, 3, 0], [2, 0, 0, 4]]])


def test_integers_cast_to_floats_count_steps() -> None:
    """(q − z) · s written by hand, after a Cast."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        cast (float[3] x) => (float[3] y)
        <float scale = {0.5}, uint8 zero = {10}, float offset = {10}>
        {
            q = QuantizeLinear(x, scale, zero)
            f = Cast <to = 1> (q)
            c = Sub(f, offset)
            y = Mul(c, scale)
        }"""
    )
    g = np.array([1, 2, 3], np.float32)
    found = gradient_of(model, "y", "x", g, {"x": np.array([0, 5, -100], np.float32)})
    np.testing.assert_allclose(found, [1, 2, 0])


def test_dynamic_quantization_passes_the_gradient_in_real_units() -> None:
    """y = Wᵀx through DynamicQuantizeLinear and MatMulInteger: x̄ = W g, with the quantized W."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        dynamic (float[1, 3] x) => (float[1, 2] y)
        <int8[3, 2] w = {1, 2, -3, 4, 5, -6}, float[2] w_scale = {0.5, 0.25}, int8[2] w_zero = {0, 1}>
        {
            q, s, z = DynamicQuantizeLinear(x)
            n = MatMulInteger(q, w, z, w_zero)
            f = Cast <to = 1> (n)
            both = Mul(s, w_scale)
            y = Mul(f, both)
        }"""
    )
    w = (np.array([[1, 2], [-3, 4], [5, -6]], np.float64) - [0, 1]) * [0.5, 0.25]
    g = np.array([[2, -1]], np.float32)
    found = gradient_of(model, "y", "x", g, {"x": np.array([[0.3, -1, 2]], np.float32)})
    np.testing.assert_allclose(found, g @ w.T, rtol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(1, [1, 0, 2, 0]), (2, [0, 0, 2, 0])])
def test_quantizing_again_with_the_same_parameters_clips_nothing(scale: int, expected: list[float]) -> None:
    """As around a MaxPool, whose zeros are at qmin; with a scale of its own they count as clipped."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 18]>
        pooled (float[1, 1, 4] x) => (float[1, 1, 2] y)
        <float one = {{1}}, uint8 zero = {{0}}, float scale = {{{scale}}}>
        {{
            q = QuantizeLinear(x, one, zero)
            d = DequantizeLinear(q, one, zero)
            p = MaxPool <kernel_shape = [2], strides = [2]> (d)
            r = QuantizeLinear(p, scale, zero)
            y = DequantizeLinear(r, scale, zero)
        }}"""
    )
    x = np.array([[[0, 0, 4, 3]]], np.float32)
    found = gradient_of(model, "y", "d", np.array([[[1, 2]]], np.float32), {"x": x})
    np.testing.assert_array_equal(found.ravel(), expected)
