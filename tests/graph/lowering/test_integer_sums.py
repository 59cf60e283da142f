"""Constants that integers are added to or padded with have the unit of these integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import run
from onnx import TensorProto, helper, numpy_helper
from reference.windows import convolution, geometry

import onnx_gradcam as ogc
from onnx_gradcam.verify import verify

RNG = np.random.default_rng(0)
W = RNG.integers(-90, 90, (4, 3, 3, 3)).astype(np.int8)
BIAS = RNG.integers(-3000, 3000, (1, 4, 1, 1)).astype(np.int32)
HEAD = RNG.standard_normal((4, 5)).astype(np.float32)


def dynamic(padded: bool) -> onnx.ModelProto:
    """x → DynamicQuantizeLinear (→ Pad with 128) → ConvInteger → + bias, in integers → real numbers → 5 scores."""
    pad = [helper.make_node("Pad", ["q", "pads", "fill"], ["data"])] if padded else []
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        *pad,
        helper.make_node("ConvInteger", ["data" if padded else "q", "w", "zero"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], ["biased"]),
        helper.make_node("Cast", ["biased"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "unit"], ["step"]),
        helper.make_node("Mul", ["real", "step"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    constants = {"w": W, "bias": BIAS, "unit": np.float32(0.01), "head": HEAD}
    constants |= {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "fill": np.uint8(128)} if padded else {}
    graph = helper.make_graph(
        nodes,
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def scores(x: np.ndarray, scale: float, zero: int, padded: bool) -> np.ndarray:
    """The same in real numbers: what is added and padded with is in units of ``scale``."""
    if padded:
        fill = (128.0 - zero) * scale
        x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=fill)
    weights = W.astype(np.float64) * 0.01
    conv = convolution(x, weights, 1, geometry(x, (3, 3), {})) + BIAS * scale * 0.01
    return np.asarray(np.maximum(conv, 0).mean((2, 3)) @ HEAD.astype(np.float64))


@pytest.mark.parametrize("padded", [False, True])
def test_the_gradient_is_that_of_the_real_numbers(padded: bool) -> None:
    model = dynamic(padded)
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    written = ogc.gradient_model(model, wrt=["x"])
    found = run(written, {"x": x, "target_index": np.array([2])})["grad/x"]
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = float(high - low) / 255
    zero = round(-float(low) / scale)
    exact = x.astype(np.float64)
    for place in [(0, 0, 0, 0), (0, 1, 4, 4), (0, 2, 7, 3)]:
        step = np.zeros_like(exact)
        step[place] = 1e-6
        plus, minus = (scores(exact + sign * step, scale, zero, padded)[0, 2] for sign in (1, -1))
        assert found[place] == pytest.approx((plus - minus) / 2e-6, abs=2e-3 * float(np.abs(found).max()))


def test_verify_agrees() -> None:
    report = verify(dynamic(padded=False), target_layer="relu")
    assert report.ok, str(report)
