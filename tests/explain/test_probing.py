"""Copies of an image, channels first, against what the explainer and the runtime give for them."""

from __future__ import annotations

import numpy as np
import pytest
from labelled import LABELS, SIDE, network
from nets import Net, run

import onnx_gradcam as ogc
from onnx_gradcam.explain.probing import ImageProbe

X = np.random.default_rng(0).random((3, 3, SIDE, SIDE)).astype(np.float32)
SPACES = {"NCHW": (2, 3), "NHWC": (1, 2)}


@pytest.mark.parametrize("layout", SPACES)
def test_scores_maps_and_gradients_are_those_of_the_model(layout: str) -> None:
    model = network(layout)
    explainer = ogc.Explainer(model, labels=LABELS, providers=["cpu"])
    probe = ImageProbe(explainer, "gradcam", SPACES[layout])
    fed = X if layout == "NCHW" else X.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(probe.form.arranged(fed), X)
    scores, probabilities = probe.scores(X)
    logits = run(model, {"image": fed})["logits"]
    np.testing.assert_allclose(scores, logits, rtol=1e-5)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-5)
    maps = probe.maps(X, np.array([2, 0, 1]))
    np.testing.assert_array_equal(maps, explainer.explain(fed, [2, 0, 1]).heatmap)
    step = np.zeros_like(X[:1])
    step[0, 1, 4, 6] = 1e-2
    before, after = (run(model, {"image": x if layout == "NCHW" else x.transpose(0, 2, 3, 1)})["logits"] for x in
                     (X[:1] - step, X[:1] + step))  # fmt: skip
    slope = (after[0, 1] - before[0, 1]) / 2e-2
    assert probe.gradients(X[:1], 1)[0, 1, 4, 6] == pytest.approx(slope, rel=0.02, abs=1e-4)


def test_integers_are_rounded_and_other_inputs_are_repeated() -> None:
    net = Net()
    image, gain = net.input("image", ["N", 1, 4, 4], np.uint8), net.input("gain", ["N", 1])
    x = net.op("Relu", net.conv(net.op("Cast", image, to=1), (1, 2)), out="last")
    pooled = net.op("Mul", net.op("Flatten", net.op("GlobalAveragePool", x)), gain)
    model = net.model({net.op("Gemm", pooled, net.random(3, 2), transB=1, out="logits"): ["N", 3]})
    explainer = ogc.Explainer(model, providers=["cpu"])
    given = np.array([[2.5]], np.float32)
    probe = ImageProbe(explainer, "gradcam", (2, 3), inputs={"gain": given})
    copies = np.array([3.6, -7, 300], np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)
    fed = np.array([4, 0, 255], np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    expected = run(model, {"image": fed, "gain": given.repeat(3, axis=0)})["logits"]
    np.testing.assert_allclose(probe.scores(copies)[0], expected, rtol=1e-5)


def test_a_regression_has_its_score_for_a_probability() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("image", ["N", 3, SIDE, SIDE]), (3, 2)), out="last")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    model = net.model({net.op("Gemm", flat, net.random(1, 2), transB=1, out="value"): ["N", 1]})
    probe = ImageProbe(ogc.Explainer(model, score="value", providers=["cpu"]), "gradcam", (2, 3))
    scores, probabilities = probe.scores(X)
    np.testing.assert_array_equal(scores, probabilities)
    np.testing.assert_allclose(scores, run(model, {"image": X})["value"], rtol=1e-5)


def test_the_grid_is_the_finest_of_the_layers_or_that_of_the_input() -> None:
    model = network()
    layers = {"last": (8, 8), "image": (SIDE, SIDE)}
    for layer, grid in layers.items():
        probe = ImageProbe(ogc.Explainer(model, layer, providers=["cpu"]), "gradcam", (2, 3))
        assert probe.maps_and_grid(X[:1], np.array([0]))[1] == grid
    both = ImageProbe(ogc.Explainer(model, list(layers), providers=["cpu"]), "gradcam", (2, 3))
    assert both.maps_and_grid(X[:1], np.array([0]))[1] == (SIDE, SIDE)
    for method in ("saliency", "guided-gradcam"):
        probe = ImageProbe(ogc.Explainer(model, "last", providers=["cpu"]), method, (2, 3))
        assert probe.maps_and_grid(X[:1], np.array([0]))[1] == (SIDE, SIDE)


def test_maps_that_lie_elsewhere_are_refused() -> None:
    """A signal whose layer is a grid of two axes."""
    net = Net()
    x = net.op("Reshape", net.input("signal", ["N", 1, 16]), net.ints(-1, 1, 4, 4))
    x = net.op("Relu", net.conv(x, (1, 2)), out="last")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    model = net.model({net.op("Gemm", flat, net.random(3, 2), transB=1, out="logits"): ["N", 3]})
    probe = ImageProbe(ogc.Explainer(model, "last", providers=["cpu"]), "gradcam", (2,))
    with pytest.raises(ogc.LayerError, match="do not lie on the images"):
        probe.maps(np.random.default_rng(0).random((1, 1, 16)).astype(np.float32), np.array([0]))
