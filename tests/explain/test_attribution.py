"""Input-space methods of the Explainer, against a network whose derivatives are written by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import builders
import naive_net
import numpy as np
import pytest
from brightness import CELL, SIDE, brightness_model
from measures import close, scaled
from nets import Net
from onnx import TensorProto, helper

import onnx_gradcam as ogc
from onnx_gradcam.methods.attribution import ATTRIBUTIONS, options_of
from onnx_gradcam.methods.copies import Noise, noisy_copies
from onnx_gradcam.results.picture.overlay import scale_colours

W = naive_net.weights()
X = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)
TARGETS = [2, 0, 3]
CLASSES = np.array(TARGETS)


def test_the_derivatives_by_hand_are_those_by_differences() -> None:
    found = naive_net.backward(W, X, CLASSES).x
    np.testing.assert_allclose(found, naive_net.differences(W, X, CLASSES), atol=1e-8)


def test_saliency(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "saliency")
    gradient = naive_net.backward(W, X, CLASSES).x
    close(found.attribution, gradient)
    magnitude = np.abs(gradient).max(axis=1)
    close(found.heatmap, scaled(magnitude))
    assert found.attribution.dtype == found.heatmap.dtype == np.float32
    assert found.layers == ()
    np.testing.assert_array_equal(found.class_index, TARGETS)
    close(found.score, naive_net.forward(W, X).scores[range(3), CLASSES])


def test_signed(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "saliency", signed=True)
    total = naive_net.backward(W, X, CLASSES).x.sum(axis=1)
    close(found.heatmap, scaled(total))
    assert found.heatmap.min() < 0
    assert found.method == "saliency signed"


def test_input_x_gradient(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "input-x-gradient")
    close(found.attribution, X * naive_net.backward(W, X, CLASSES).x)


@pytest.mark.parametrize(("steps", "baseline"), [(1, 0.0), (7, 0.0), (20, -0.5), (5, X[::-1])])
def test_integrated_gradients(explainer: Any, steps: int, baseline: Any) -> None:
    found = explainer.explain(X, TARGETS, "integrated-gradients", steps=steps, baseline=baseline)
    wide, start = X.astype(np.float64), np.broadcast_to(baseline, X.shape).astype(np.float64)
    total = np.zeros(X.shape)
    for k in range(steps):
        total += naive_net.backward(W, start + (k + 0.5) / steps * (wide - start), CLASSES).x
    close(found.attribution, (wide - start) * total / steps)


def test_integrated_gradients_add_up_to_the_difference_of_scores(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "integrated-gradients", steps=400).attribution.sum(axis=(1, 2, 3))
    scores = [naive_net.forward(W, x).scores[range(3), CLASSES] for x in (X, 0 * X)]
    np.testing.assert_allclose(found, scores[0] - scores[1], atol=1e-4)


def test_too_few_steps_are_noticed(explainer: Any) -> None:
    """A shift of the baseline by 5 makes the path cross many kinks."""
    few = explainer.explain(X, TARGETS, "integrated-gradients", steps=1, baseline=5)
    many = explainer.explain(X, TARGETS, "integrated-gradients", steps=200, baseline=5)
    difference = np.subtract(*(naive_net.forward(W, x).scores[range(3), CLASSES] for x in (X, 0 * X + 5)))
    found = few.attribution.sum(axis=(1, 2, 3))
    worst = np.abs((found - difference) / difference).argmax()
    assert (
        f"add up to {found[worst]:.3g}, but the score is {difference[worst]:.3g} above that of the baseline"
        in few.warnings[0]
    )
    assert many.warnings == ()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("smoothgrad", lambda g: g.mean(axis=0)),
        ("squaregrad", lambda g: (g**2).mean(axis=0)),
        ("vargrad", lambda g: ((g - g.mean(axis=0)) ** 2).mean(axis=0)),
    ],
)
def test_gradients_at_noisy_copies(explainer: Any, method: str, expected: Any) -> None:
    found = explainer.explain(X, TARGETS, method, samples=7, noise=0.3, seed=5)
    copies = list(noisy_copies(X, Noise(7, 0.3, 5)))
    close(found.attribution, expected(np.stack([naive_net.backward(W, copy, CLASSES).x for copy in copies])))


@pytest.mark.parametrize("method", ["smoothgrad", "squaregrad", "vargrad"])
def test_noise_gives_an_image_what_it_gets_alone(explainer: Any, method: str) -> None:
    together = explainer.explain(X, TARGETS, method, samples=5)
    alone = explainer.explain(X[1:2], TARGETS[1], method, samples=5)
    close(together.attribution[1:2], alone.attribution)
    other = explainer.explain(X[1:2], TARGETS[1], method, samples=5, seed=1)
    assert np.abs(other.attribution - alone.attribution).max() > 0.01 * np.abs(alone.attribution).max()


def test_the_class_is_chosen_before_the_noise(explainer: Any) -> None:
    """With noise of ten times the range the copies have all kinds of top-1."""
    found = explainer.explain(X, None, "smoothgrad", samples=6, noise=10)
    top = naive_net.forward(W, X).scores.argmax(axis=1)
    copies = list(noisy_copies(X, Noise(6, 10, 0)))
    assert any((naive_net.forward(W, copy).scores.argmax(axis=1) != top).any() for copy in copies)
    np.testing.assert_array_equal(found.class_index, top)
    close(found.attribution, np.mean([naive_net.backward(W, copy, top).x for copy in copies], axis=0))


def test_fullgrad(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "fullgrad")
    g = naive_net.backward(W, X, CLASSES)
    expected = np.abs(X * g.x).sum(axis=1)
    for bias, gradient in ((W.b1, g.a1), (W.b2, g.a2)):
        expected += np.abs(bias[:, None, None] * gradient).sum(axis=1)  # of the input's size: nothing to enlarge
    close(found.attribution.sum(axis=1), expected)
    close(found.heatmap, scaled(expected))
    assert found.warnings == ()


def test_input_and_biases_add_up_to_the_score() -> None:
    """What fullgrad is built on, at every kind of bias; the last one has no place in the image."""
    net = Net()
    x = net.batch_norm(net.conv(net.input("x", ["N", 3, 6, 6]), (3, 4)), 4)
    x = net.op("Add", net.op("Relu", x, out="relu"), net.random(4, 1, 1), out="shifted")
    x = net.op("Relu", net.op("Sub", net.random(4, 6, 6), x), out="last")
    net.head(x, 4)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        subject = explainer.network
        assert [(bias.name, axes is not None) for bias, axes in subject.biases] == [
            ("v0", True), ("v1", True), ("shifted", True), ("v4", True), ("logits", False)
        ]  # fmt: skip
        assert not any("add up" in warning for warning in explainer.explain(X, TARGETS, "fullgrad").warnings)


def test_fullgrad_says_where_it_is_not_everything() -> None:
    net = Net()
    net.head(net.op("Tanh", net.conv(net.input("x", ["N", 3, 6, 6]), (3, 4)), out="last"), 4)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        (warning,) = explainer.explain(X, TARGETS, "fullgrad").warnings
    assert "add up to" in warning


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_several_classes_of_an_image(explainer: Any, method: str) -> None:
    both = explainer.explain(X, ogc.Classes([1, 3]), method)
    np.testing.assert_array_equal(both.image_index, [0, 0, 1, 1, 2, 2])
    for row, index in enumerate([1, 3]):
        close(both.attribution[row::2], explainer.explain(X, index, method).attribution)
    top = explainer.explain(X, ogc.TopK(2), method)
    close(top.attribution[::2], explainer.explain(X, None, method).attribution)


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch(explainer: Any, method: str, batch: int) -> None:
    with ogc.Explainer(naive_net.model(W, batch), providers=["cpu"]) as fixed:
        close(fixed.explain(X, TARGETS, method).attribution, explainer.explain(X, TARGETS, method).attribution)


@pytest.mark.parametrize("method", sorted(name for name in ATTRIBUTIONS if "noise" not in options_of(name)))
def test_channels_last(explainer: Any, method: str) -> None:
    """Noise lies otherwise in a tensor of another layout."""
    x = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    expected = explainer.explain(X, TARGETS, method)
    with ogc.Explainer(naive_net.model(W, channels_last=True), providers=["cpu"]) as last:
        found = last.explain(x, TARGETS, method)
    close(found.attribution, expected.attribution.transpose(0, 2, 3, 1))
    close(found.heatmap, expected.heatmap)


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_half_precision(explainer: Any, method: str) -> None:
    """Gradients of 1e-9 underflow to 0 in float16: they are scaled on their way, and unscaled in float32.

    Rounding to 16 bits flips some rectifiers, which here changes a gradient's length by some percent, its square twice.
    """
    faint = dataclasses.replace(W, w3=W.w3 * np.float32(2.0**-20), b3=W.b3 * 0)
    options = {"epsilon": 0} if "epsilon" in options_of(method) else {}  # it is in the unit of the score
    with ogc.Explainer(naive_net.model(faint, dtype=np.float16), providers=["cpu"]) as half:
        found = half.explain(X.astype(np.float16), TARGETS, method, **options)
    expected = explainer.explain(X.astype(np.float16).astype(np.float32), TARGETS, method, **options).attribution
    power = 2 if method in ("squaregrad", "vargrad") else 1
    factor = 2.0 ** (-20 * power)
    assert found.attribution.dtype == np.float32
    assert found.provenance.gradient_scale > 1
    flat = [v.reshape(3, -1) / np.linalg.norm(v.reshape(3, -1)) for v in (found.attribution / factor, expected)]
    assert (flat[0] * flat[1]).sum() > 0.99
    np.testing.assert_allclose(
        np.linalg.norm(found.attribution.astype(np.float64)) / factor, np.linalg.norm(expected), rtol=0.05 * power
    )


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_targets_that_are_no_class(explainer: Any, method: str) -> None:
    """The gradient of a difference is the difference of the gradients; through gates it is not."""
    found = explainer.explain(X, ogc.Difference(2, 0), method)
    a, b = (explainer.explain(X, index, method).attribution for index in (2, 0))
    assert found.attribution.shape == X.shape
    linear = ("saliency", "input-x-gradient", "integrated-gradients", "gradient-shap", "deeplift", "smoothgrad")
    if method in linear:
        np.testing.assert_allclose(found.attribution, a - b, atol=1e-5 * np.abs(a).max())
    elif method != "vargrad":
        assert np.abs(found.attribution - (a - b)).max() > 0.01 * np.abs(a).max()


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
@pytest.mark.parametrize("space", [(9,), (3, 4, 5)])
def test_one_and_three_dimensions(method: str, space: tuple[int, ...]) -> None:
    net = Net()
    weight = net.random(4, 2, *[3] * len(space))
    x = net.op("Conv", net.input("x", ["N", 2, *space]), weight, net.random(4), pads=[1] * (2 * len(space)))
    net.head(net.op("Relu", x, out="relu"), 4)
    x = np.random.default_rng(0).standard_normal((2, 2, *space)).astype(np.float32)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        found = explainer.explain(x, 1, method)
    assert found.attribution.shape == x.shape
    assert found.heatmap.shape == (2, *space)
    np.testing.assert_allclose(found.heatmap.reshape(2, -1).max(axis=1), 1)


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients", "smoothgrad"])
@pytest.mark.parametrize("target", [1, ogc.TopK(2)])
def test_other_inputs_keep_their_row(method: str, target: Any) -> None:
    """The scores are ± weight · mean of the image: ∂/∂pixel is ± weight / 108.

    On the way from 0 the weight grows with the image: the integral ∫ α · weight dα is half of it.
    """
    net = Net()
    x = net.op("Conv", net.input("image", ["N", 3, 6, 6]), net.array(np.full((1, 3, 1, 1), 1 / 3, np.float32)))
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Identity", x, out="map")))
    x = net.op("Mul", x, net.input("weight", ["N", 1]))
    net.op("Gemm", x, net.array(np.array([[1, -1]], np.float32)), out="scores")
    weight = np.array([[1], [-2], [4]], np.float32)
    with ogc.Explainer(net.model({"scores": ["N", 2]}), providers=["cpu"]) as explainer:
        found = explainer.explain({"image": X, "weight": weight}, target, method)
    slope = (1 - 2 * found.class_index) * weight[found.image_index, 0] / 108
    expected = slope[:, None, None, None] * (X[found.image_index] / 2 if method == "integrated-gradients" else 1)
    close(found.attribution, np.broadcast_to(expected, found.attribution.shape))


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_a_network_without_layers(method: str) -> None:
    """Rows of numbers: no layer to draw, but each number has its share. Only fullgrad's biases have no place."""
    net = Net()
    hidden = net.op("Relu", net.linear(net.input("x", ["N", 7]), 7, 5), out="hidden")
    net.linear(hidden, 5, 3, out="scores")
    x = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    with ogc.Explainer(net.model({"scores": ["N", 3]}), providers=["cpu"]) as explainer:
        found = explainer.explain(x, 1, method)
        with pytest.raises(ogc.LayerError, match="no convolutional stage") as error:
            explainer.explain(x, 1, "gradcam")
    assert "saliency" in error.value.hint
    assert found.attribution.shape == found.heatmap.shape == (4, 7)
    expected = found.attribution if method == "fullgrad" else np.abs(found.attribution)
    peak = expected.max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.heatmap, expected / np.where(peak == 0, 1, peak), rtol=1e-6)
    if method == "input-x-gradient":
        gradient = explainer.explain(x, 1, "saliency").attribution
        np.testing.assert_allclose(found.attribution, x * gradient, rtol=1e-6)


def test_integers_are_explained_as_the_floats_made_of_them() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    with ogc.Explainer(builders.uint8_input(), providers=["cpu"]) as explainer:
        saliency = explainer.explain(x, 1, "saliency")
        product = explainer.explain(x, 1, "input-x-gradient")
        smooth = explainer.explain(x, 1, "smoothgrad", samples=3)
        with pytest.raises(ogc.MethodError, match="needs a floating-point input") as error:
            explainer.explain(x, 1, "integrated-gradients")
    assert "'saliency'" in error.value.hint
    assert "'floats'" in saliency.warnings[0]
    assert saliency.attribution.shape == smooth.attribution.shape == x.shape
    np.testing.assert_allclose(product.attribution, x * saliency.attribution, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "salience"}, "'saliency'"),
        ({"method": "guided-gradcma"}, "'guided-gradcam'"),
        ({"method": "guided-saliency"}, "'guided-"),
        ({"method": "guided-eigencam", "counterfactual": True}, "'gradcam'"),
        ({"method": "squaregrad", "signed": True}, "'saliency'"),
        ({"method": "saliency", "counterfactual": True}, "signed"),
        ({"method": "smoothgrad", "sample": 3}, "samples, noise, seed"),
        ({"method": "saliency", "steps": 3}, "'saliency' has no options"),
        ({"method": "gradcam", "steps": 3}, "'gradcam' has no options"),
        ({"method": "integrated-gradients", "steps": 0}, "from 1"),
        ({"method": "integrated-gradients", "steps": 2.5}, "from 1"),
        ({"method": "integrated-gradients", "baseline": np.zeros((2, 2))}, "broadcasts"),
        ({"method": "integrated-gradients", "baseline": "black"}, "a number"),
        ({"method": "integrated-gradients", "baseline": np.nan}, "finite"),
    ],
)
def test_what_cannot_be_asked(explainer: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ogc.MethodError) as error:
        explainer.explain(X, 1, **arguments)
    assert said in error.value.hint


def test_a_model_without_a_gradient_to_its_input_names_the_methods_that_apply() -> None:
    net = Net()
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Tanh", ["v"], ["u"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 3, 6, 6]),
        ],
        [helper.make_empty_tensor_value_info(name) for name in ("more", "u")],
    )
    image = net.input("x", ["N", 3, 6, 6])
    x = net.op("Loop", net.op("Shape", image, out="rows", start=0, end=1), "", image, out="repeated", body=body)
    net.head(net.op("Relu", net.conv(x, (3, 4)), out="relu"), 4)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), target_layer="relu", providers=["cpu"]) as explainer:
        with pytest.raises(ogc.UnsupportedGradient, match="Loop") as error:
            explainer.explain(X, 1, "saliency")
        assert "'gradcam'" in error.value.hint
        assert explainer.explain(X, 1, "gradcam").heatmap.max() == 1


@pytest.mark.parametrize(("method", "brightest"), [("input-x-gradient", 0.1), ("layercam", 1.0)])
def test_maps_of_the_input_are_drawn_up_to_their_brightest_part(method: str, brightest: float) -> None:
    """One pixel of 1 in an image that is 0.1 above and 0 below; cams are drawn as they are."""
    x = np.zeros((1, 3, SIDE, SIDE + CELL), np.float32)
    x[0, :, :40], x[0, :, 50, 60] = 0.1, 1
    with ogc.Explainer(brightness_model()) as bright:
        found = bright.explain(x, 0, method)
    drawn = found.figure(style=ogc.Style(caption=False, alpha=1, photo="grey"))
    assert drawn.shape[1] == 4 * (SIDE + CELL)
    for y, x in [(8, 8), (88, 24)]:
        level = min(float(found.heatmap[0, y, x]) / brightest, 1)
        share, colour = (1 + 3 * level) / 4, scale_colours(256)[round(255 * level)]
        expected = share * colour + (1 - share) * found.picture(0)[y, x]
        np.testing.assert_allclose(drawn[4 * y, 4 * x], expected, atol=5)
