"""Scores that stand at the end of the range of their integers: explained as if that had no end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from nets import BATCH, Net

import onnx_gradcam as ogc


def stored(net: Net, x: str, top: float) -> str:
    """Return ``x`` as 8-bit integers of which the largest stands for ``top``."""
    scale, zero = net.array(np.float32(top / 127)), net.array(np.uint8(128))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)


def cells(top: float) -> tuple[onnx.ModelProto, np.ndarray]:
    """A map of one class behind a 1×1 convolution, stored before and after its entries are moved."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="layer")
    weight = net.random(1, 6, 1, 1)
    logits = stored(net, net.op("Conv", x, weight), top)
    moved = stored(net, net.op("Transpose", net.op("Reshape", logits, net.ints(0, 1, 64)), perm=[0, 2, 1]), top)
    net.op("Sigmoid", moved, out="p")
    return net.model({"p": [BATCH, 64, 1]}), net.weights[weight][0, :, 0, 0]


def classes(top: float) -> tuple[onnx.ModelProto, np.ndarray]:
    """A classifier whose bias is added behind the integers of its last product."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="layer")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    weight = net.random(6, 2)
    product = stored(net, net.op("MatMul", flat, weight), top)
    net.op("Softmax", stored(net, net.op("Add", product, net.random(2)), 4 * top), axis=1, out="p")
    return net.model({"p": [BATCH, 2]}), net.weights[weight]


X = np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)


def test_a_cell_at_the_end_of_its_range_keeps_its_gradient() -> None:
    model, weight = cells(top=0.05)
    with ogc.Explainer(model, target_layer="layer", providers=["cpu"]) as explainer:
        result = explainer.explain(X, method="gradcam")
    assert result.score[0] == pytest.approx(0.05, rel=1e-5)
    gradient = result.gradient[0].reshape(6, 64)
    (cell,) = np.flatnonzero(gradient.any(axis=0))
    np.testing.assert_allclose(gradient[:, cell], weight, rtol=1e-5)


def test_a_class_whose_product_is_at_the_end_of_its_range_keeps_its_gradient() -> None:
    model, weight = classes(top=0.01)
    with ogc.Explainer(model, target_layer="layer", providers=["cpu"]) as explainer:
        result = explainer.explain(X, 1, method="gradcam")
    expected = np.broadcast_to(weight[:, 1, None, None] / 64, (6, 8, 8))
    np.testing.assert_allclose(result.gradient[0], expected, rtol=1e-5)


@pytest.mark.parametrize("make", [cells, classes])
def test_verify_takes_differences_without_that_end_as_well(
    make: Callable[[float], tuple[onnx.ModelProto, Any]],
) -> None:
    model, _ = make(0.05)
    checks = ogc.verify(model, target_layer="layer", x=X, providers=["cpu"]).checks
    gradients = {check.name: check.status for check in checks if check.name.startswith("gradient")}
    assert set(gradients.values()) == {"pass"}
    assert len(gradients) == 2
