"""Inputs that are no images, and the input itself as the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc

CLASSES = 4


def pooled() -> tuple[onnx.ModelProto, np.ndarray]:
    """y = W · (mean of each channel of x), and W (classes, channels)."""
    net = Net()
    weight = net.random(CLASSES, 3)
    mean = net.op("ReduceMean", net.input("x", ["N", 3, 4, 5]), net.ints(2, 3), keepdims=0)
    net.op("MatMul", mean, net.op("Transpose", weight), out="logits")
    return net.model({"logits": ["N", CLASSES]}), net.weights[weight]


@pytest.mark.parametrize("target", [None, 2, ogc.TopK(2), ogc.Finer(1)], ids=str)
def test_the_input_is_a_layer(target: Any, rng: np.random.Generator) -> None:
    """∂y_k/∂x_c is W_kc / 20 everywhere: the cam is relu(Σ W_kc x_c) / 20."""
    model, weight = pooled()
    x = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    with ogc.Explainer(model, "x", providers=["cpu"]) as explainer:
        explanation = explainer.explain(x, target=target)
    np.testing.assert_array_equal(explanation.activation, x[explanation.image_index])
    if not isinstance(target, ogc.Finer):
        expected = np.einsum("rc,rchw->rhw", weight[explanation.class_index] / 20, x[explanation.image_index])
        np.testing.assert_allclose(explanation.cam, expected.clip(0), rtol=1e-4, atol=1e-6)
    assert explanation.heatmap.shape == (len(explanation), 4, 5)


def test_the_input_beside_another_layer(rng: np.random.Generator) -> None:
    net = Net()
    net.head(net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu"), 4)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), ["x", "relu"], providers=["cpu"]) as explainer:
        explanation = explainer.explain(x, method="eigencam")
    np.testing.assert_array_equal(explanation.layers[0].activation, x)
    assert explanation.heatmap.shape == (2, 8, 8)


def by_number() -> tuple[onnx.ModelProto, np.ndarray]:
    """y_k = w_k · x² of one number x for each image, and w."""
    net = Net()
    weight = net.random(1, CLASSES)
    square = net.op("Mul", net.input("x", ["N"]), "x")
    net.op("MatMul", net.op("Unsqueeze", square, net.ints(1)), weight, out="logits")
    return net.model({"logits": ["N", CLASSES]}), net.weights[weight][0]


def test_one_number_for_each_image(tmp_path: Path) -> None:
    """The gradient is 2 w x; a map of no axes is one number."""
    model, weight = by_number()
    x = np.array([0.5, -2.0], np.float32)
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        saliency = explainer.explain(x, 1, "saliency")
        integral = explainer.explain(x, 1, "integrated-gradients", steps=20)
    assert saliency.attribution is not None
    assert integral.attribution is not None
    np.testing.assert_allclose(np.abs(saliency.attribution), np.abs(2 * weight[1] * x), rtol=1e-5)
    np.testing.assert_allclose(integral.attribution, weight[1] * x**2, rtol=1e-2)
    assert saliency.heatmap.shape == (2,)
    np.testing.assert_array_equal(saliency.seen, [[0, 0, 1, 1]] * 2)
    saliency.save(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "explanation-1.saliency.1.npy"), saliency.heatmap[1])


def test_a_single_number_is_refused() -> None:
    net = Net()
    net.linear(net.op("Reshape", net.input("x", []), net.ints(1, 1)), 1, CLASSES, out="logits")
    with pytest.raises(ogc.InputError, match="is a single number") as caught:
        ogc.Explainer(net.model({"logits": [1, CLASSES]}))
    assert caught.value.name == "x"


def test_a_model_without_inputs_is_refused() -> None:
    net = Net()
    net.op("Relu", net.random(1, CLASSES), out="logits")
    with pytest.raises(ogc.InputError, match="has no inputs"):
        ogc.Explainer(net.model({"logits": [1, CLASSES]}))
