"""Smoothed cams, against copies that are explained one by one."""

from __future__ import annotations

from typing import Any

import brightness
import builders
import nets
import numpy as np
import onnx
import oracles
import pytest
from onnx import numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.methods.copies import Noise, noisy_copies

FACTORS = (0.9, 1.0, 1.1)


def classifier(batch: int | str = nets.BATCH, channels_last: bool = False) -> onnx.ModelProto:
    """Two convolutions with bias, so that factors matter; its layer "a" is not symmetric."""
    net = nets.Net(seed=3)
    x = net.input("image", [batch, 6, 8, 3] if channels_last else [batch, 3, 6, 8])
    if channels_last:
        x = net.op("Transpose", x, perm=[0, 3, 1, 2])
    x = net.op("Relu", net.conv(x, (3, 6)))
    net.op("Relu", net.conv(x, (6, 5), stride=2), out="a")
    net.head("a", 5)
    return net.model({"logits": [batch, 5]})


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(classifier(), providers=["cpu"]) as found:
        yield found


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 3, 6, 8)).astype(np.float32)


def mirrored(array: np.ndarray) -> np.ndarray:
    return array[..., ::-1]


def naive_aug(explainer: Any, image: np.ndarray, c: int, **options: Any) -> np.ndarray:
    """One image (3, H, W) and one class: six explanations."""
    total = 0.0
    for factor in FACTORS:
        total = total + explainer.explain((image * factor)[None].astype(np.float32), c, **options).cam[0]
        turned = (mirrored(image) * factor)[None].astype(np.float32)
        total = total + mirrored(explainer.explain(turned, c, **options).cam[0])
    return np.asarray(total / 6)


def naive_noise(explainer: Any, image: np.ndarray, c: int, noise: Noise, **options: Any) -> np.ndarray:
    copies = noisy_copies(image[None], noise)
    return np.mean([explainer.explain(copy, c, **options).cam[0] for copy in copies], axis=0)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "layercam", "eigencam", "hirescam"])
def test_aug(explainer: Any, x: np.ndarray, method: str) -> None:
    found = explainer.explain(x, target=2, method=method, smooth="aug")
    assert found.method == f"{method} aug"
    plain = explainer.explain(x, target=2, method=method)
    for row in range(3):
        expected = naive_aug(explainer, x[row], 2, method=method)
        np.testing.assert_allclose(found.cam[row], expected, rtol=1e-4, atol=1e-6)
        assert np.abs(found.cam[row] - plain.cam[row]).max() > 1e-3
    np.testing.assert_array_equal(found.activation, plain.activation)
    np.testing.assert_array_equal(found.score, plain.score)
    np.testing.assert_array_equal(found.outputs["logits"], plain.outputs["logits"])


@pytest.mark.parametrize("options", [{"signed": True}, {"counterfactual": True}], ids=str)
def test_aug_of_variants(explainer: Any, x: np.ndarray, options: dict[str, bool]) -> None:
    found = explainer.explain(x[:1], target=2, smooth="aug", **options)
    np.testing.assert_allclose(found.cam[0], naive_aug(explainer, x[0], 2, **options), rtol=1e-4, atol=1e-6)


def test_mirrored_maps_are_put_back() -> None:
    """A bright cell at the left: Grad-CAM of the brightness model is the brightness, mean over factors 1."""
    cell, side = brightness.CELL, brightness.SIDE
    image = np.full((1, 3, side, side + cell), 0.1, np.float32)
    image[..., :cell, :cell] = 1
    with ogc.Explainer(brightness.brightness_model(), providers=["cpu"]) as explainer:
        found = explainer.explain(image, target=0, smooth="aug")
        plain = explainer.explain(image, target=0)
    np.testing.assert_allclose(found.cam, plain.cam, rtol=1e-5)
    assert np.unravel_index(found.cam[0].argmax(), found.cam[0].shape) == (0, 0)


def threshold() -> onnx.ModelProto:
    """Two classes by the mean brightness m: 4 − 4m and 8m − 3.9, so that top-1 is the second from m = 0.66 on."""
    net = nets.Net()
    x = net.input("image", [nets.BATCH, 1, 4, 6])
    a = net.op("Conv", x, net.array(np.ones((1, 1, 2, 2), np.float32) / 4), strides=[2, 2], out="a")
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    w, b = np.array([[-4], [8]], np.float32), np.array([4, -3.9], np.float32)
    net.op("Gemm", flat, net.array(w), net.array(b), transB=1, out="logits")
    return net.model({"logits": [nets.BATCH, 2]})


@pytest.mark.parametrize("smooth", ["aug", "noise"])
def test_the_class_is_chosen_once(smooth: str) -> None:
    """Copies above m = 0.66 have another top-1, for which brightness speaks; for the first it never does."""
    rng = np.random.default_rng(0)
    image = (0.65 + 0.02 * rng.standard_normal((1, 1, 4, 6))).astype(np.float32)
    image *= 0.65 / image.mean()
    with ogc.Explainer(threshold(), target_layer="a", providers=["cpu"]) as explainer:
        brighter = explainer.explain(1.1 * image)
        assert brighter.class_index.tolist() == [1]
        found = explainer.explain(image, smooth=smooth, signed=True)
        assert found.class_index.tolist() == [0]
        assert found.cam.max() < 0
        given = explainer.explain(image, target=0, smooth=smooth, signed=True)
    np.testing.assert_array_equal(found.cam, given.cam)


@pytest.mark.parametrize("target", [ogc.TopK(2), ogc.Classes([4, 1])], ids=str)
@pytest.mark.parametrize("smooth", ["aug", "noise"])
def test_rows_of_several_classes(explainer: Any, x: np.ndarray, target: Any, smooth: str) -> None:
    options = {"samples": 4, "noise": 0.1} if smooth == "noise" else {}
    found = explainer.explain(x, target, smooth=smooth, **options)
    assert len(found) == 6
    for row in range(6):
        image, c = x[int(found.image_index[row])], int(found.class_index[row])
        if smooth == "aug":
            expected = naive_aug(explainer, image, c)
        else:
            expected = naive_noise(explainer, image, c, Noise(4, 0.1))
        np.testing.assert_allclose(found.cam[row], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("smooth", ["aug", "noise"])
def test_a_fixed_batch_gives_the_same_maps(explainer: Any, x: np.ndarray, batch: int, smooth: str) -> None:
    options = {"samples": 3} if smooth == "noise" else {}
    expected = explainer.explain(x, smooth=smooth, **options)
    with ogc.Explainer(classifier(batch), providers=["cpu"]) as fixed:
        found = fixed.explain(x, smooth=smooth, **options)
    np.testing.assert_allclose(found.cam, expected.cam, rtol=1e-4, atol=1e-6)


def test_channels_last_are_mirrored_along_the_width(explainer: Any, x: np.ndarray) -> None:
    with ogc.Explainer(classifier(channels_last=True), providers=["cpu"]) as other:
        found = other.explain(np.moveaxis(x, 1, -1).copy(), smooth="aug")
    np.testing.assert_allclose(found.cam, explainer.explain(x, smooth="aug").cam, rtol=1e-4, atol=1e-6)


def test_several_layers_and_their_fusion(x: np.ndarray) -> None:
    """Each layer's cams are averaged; the fusion takes the means."""
    with ogc.Explainer(classifier(), target_layer=["v1", "a"], providers=["cpu"]) as explainer:
        found = explainer.explain(x[:1], target=2, smooth="aug", fusion="product")
    for layer in found.layers:
        with ogc.Explainer(classifier(), target_layer=layer.name, providers=["cpu"]) as alone:
            np.testing.assert_allclose(layer.cam[0], naive_aug(alone, x[0], 2), rtol=1e-4, atol=1e-6)
    fused = oracles.fuse([layer.cam[0].astype(float) for layer in found.layers], (6, 8), "product")
    np.testing.assert_allclose(found.heatmap[0], oracles.normalise(fused), atol=1e-5)


def test_noise(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=2, smooth="noise", samples=5, noise=0.2, seed=7)
    assert found.method == "gradcam noise"
    for row in range(3):
        expected = naive_noise(explainer, x[row], 2, Noise(5, 0.2, 7))
        np.testing.assert_allclose(found.cam[row], expected, rtol=1e-4, atol=1e-6)
    again = explainer.explain(x, target=2, smooth="noise", samples=5, noise=0.2, seed=7)
    np.testing.assert_array_equal(again.cam, found.cam)
    other = explainer.explain(x, target=2, smooth="noise", samples=5, noise=0.2, seed=8)
    assert np.abs(other.cam - found.cam).max() > 1e-3


@pytest.mark.parametrize("counterfactual", [False, True])
def test_smooth_gradcam_plus_plus(x: np.ndarray, counterfactual: bool) -> None:
    """Gradients of the noisy copies, explained one by one, with the activation of the image itself."""
    with ogc.Explainer(bent(), target_layer="a", providers=["cpu"]) as explainer:
        found = explainer.explain(
            x, ogc.Classes([2, 0]), "smooth-gradcam++", counterfactual=counterfactual, samples=6, noise=0.2, seed=1
        )
        for row in range(len(found)):
            image, c = x[int(found.image_index[row])][None], int(found.class_index[row])
            clean = explainer.explain(image, c)
            gradients = [
                explainer.explain(copy, c).gradient[0].astype(float) for copy in noisy_copies(image, Noise(6, 0.2, 1))
            ]
            sign = -1 if counterfactual else 1
            expected = oracles.smooth_gradcam_plus_plus(
                clean.activation[0].astype(float), [sign * g for g in gradients]
            )
            np.testing.assert_allclose(found.cam[row], np.maximum(expected, 0), rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(found.gradient[row], np.mean(gradients, axis=0), rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(found.activation[row], clean.activation[0], rtol=1e-5)
        spread = np.ptp([explainer.explain(copy, 2).gradient for copy in noisy_copies(x, Noise(6, 0.2, 1))], axis=0)
        assert spread.max() > 0.01 * np.abs(found.gradient).max()


def bent(last: str = "Sigmoid") -> onnx.ModelProto:
    """The gradient at "a" depends on the image."""
    net = nets.Net(seed=3)
    x = net.input("image", [nets.BATCH, 3, 6, 8])
    net.op("Relu", net.conv(x, (3, 5)), out="a")
    net.head(net.op(last, net.conv("a", (5, 5))), 5)
    return net.model({"logits": [nets.BATCH, 5]})


def test_shapleycam_is_gradcam_where_the_score_is_linear_in_pieces(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=2, method="shapleycam")
    np.testing.assert_allclose(found.cam, explainer.explain(x, target=2).cam, rtol=1e-6)
    assert [w for w in found.warnings if "Grad-CAM" in w] != []


def test_shapleycam(x: np.ndarray) -> None:
    """G − ½ H·A with H·A by differences of gradients along A: from a network that begins at the layer."""
    model = bent()
    with ogc.Explainer(model, target_layer="a", providers=["cpu"]) as explainer:
        found = explainer.explain(x, ogc.Classes([2, 0]), "shapleycam")
        counter = explainer.explain(x, ogc.Classes([2, 0]), "shapleycam", counterfactual=True, signed=True)
        signed = explainer.explain(x, ogc.Classes([2, 0]), "shapleycam", signed=True)
    weights = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    w, b, head = (weights[name] for name in ("w2", "w3", "w4"))
    for row in range(len(found)):
        a, c = found.activation[row].astype(float), int(found.class_index[row])

        def gradient(a: np.ndarray, c: int = c) -> np.ndarray:
            padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
            z = sum(
                np.einsum("oc,chw->ohw", w[:, :, i, j], padded[:, i : i + 6, j : j + 8])
                for i in range(3)
                for j in range(3)
            )
            s = 1 / (1 + np.exp(-(z + b[:, None, None])))
            g = np.pad(head[c][:, None, None] / 48 * s * (1 - s), ((0, 0), (1, 1), (1, 1)))
            return np.asarray(
                sum(
                    np.einsum("oc,ohw->chw", w[:, :, 2 - i, 2 - j], g[:, i : i + 6, j : j + 8])
                    for i in range(3)
                    for j in range(3)
                )
            )

        np.testing.assert_allclose(found.gradient[row], gradient(a), rtol=1e-4, atol=1e-7)
        h = 1e-6
        product = (gradient(a * (1 + h)) - gradient(a * (1 - h))) / (2 * h)
        alpha = (gradient(a) - product / 2).mean(axis=(1, 2))
        np.testing.assert_allclose(found.weights[row].ravel(), alpha, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(
            found.cam[row], np.maximum(np.einsum("c,chw->hw", alpha, a), 0), rtol=1e-3, atol=1e-6
        )
    np.testing.assert_allclose(counter.cam, -signed.cam, rtol=1e-5, atol=1e-7)


def test_eigen(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=2, smooth="eigen")
    for row in range(3):
        expected = oracles.principal_component((found.weights[row] * found.activation[row]).astype(float))
        np.testing.assert_allclose(found.cam[row], np.maximum(expected, 0), atol=1e-4 * np.abs(expected).max())


def test_eigen_and_aug_together(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x[:1], target=2, smooth=["aug", "eigen"])
    assert found.method == "gradcam aug eigen"
    np.testing.assert_allclose(found.cam[0], naive_aug(explainer, x[0], 2, smooth="eigen"), rtol=1e-3, atol=1e-5)


def test_a_guided_product_takes_the_smoothed_map(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=2, method="guided-gradcam", smooth="aug")
    smooth = explainer.explain(x, target=2, smooth="aug")
    edges = explainer.explain(x, target=2, method="guided-backprop").attribution
    np.testing.assert_allclose(found.attribution, smooth.heatmap[:, None] * edges, rtol=1e-4, atol=1e-6)


def test_inputs_that_are_the_same_for_every_image(rng: np.random.Generator) -> None:
    with ogc.Explainer(builders.scaled_by_an_input(), providers=["cpu"]) as explainer:
        feeds = {
            s.name: rng.standard_normal([1 if d is None else d for d in s.shape]).astype(np.float32)
            for s in explainer.inputs.values()
        }
        image = explainer.image_input.name
        found = explainer.explain(feeds, target=1, smooth="noise", samples=3)
        copies = noisy_copies(feeds[image], Noise(3))
        expected = np.mean([explainer.explain({**feeds, image: copy}, target=1).cam for copy in copies], axis=0)
    np.testing.assert_allclose(found.cam, expected, rtol=1e-4, atol=1e-6)


class TestErrors:
    def test_one_spatial_axis_has_no_left_and_right(self) -> None:
        net = nets.Net()
        x = net.input("signal", [nets.BATCH, 2, 16])
        net.op("Conv", x, net.random(3, 2, 3), out="a")
        flat = net.op("Flatten", net.op("GlobalAveragePool", "a"))
        net.linear(flat, 3, 4, out="logits")
        model = net.model({"logits": [nets.BATCH, 4]})
        signal = np.ones((1, 2, 16), np.float32)
        with ogc.Explainer(model, providers=["cpu"]) as explainer:
            with pytest.raises(
                ogc.MethodError, match="'aug' mirrors images left to right, but the input has only one"
            ) as caught:
                explainer.explain(signal, smooth="aug")
            assert "'noise'" in caught.value.hint
            assert explainer.explain(signal, smooth="noise").cam.shape == (1, 14)

    def test_unknown(self, explainer: Any, x: np.ndarray) -> None:
        with pytest.raises(ogc.MethodError, match="unknown smoothing 'augment'") as caught:
            explainer.explain(x, smooth="augment")
        assert "'aug'" in caught.value.hint

    @pytest.mark.parametrize(
        ("method", "smooth"),
        [("gradcam", ["aug", "noise"]), ("smooth-gradcam++", "aug"), ("smooth-gradcam++", "noise")],
    )
    def test_copies_of_copies(self, explainer: Any, x: np.ndarray, method: str, smooth: Any) -> None:
        with pytest.raises(ogc.MethodError, match="each averages over copies of the input"):
            explainer.explain(x, method=method, smooth=smooth)

    @pytest.mark.parametrize("options", [{"signed": True}, {"counterfactual": True}], ids=str)
    def test_a_principal_component_has_no_sides(self, explainer: Any, x: np.ndarray, options: dict[str, bool]) -> None:
        with pytest.raises(ogc.MethodError, match=f"no {next(iter(options))} variant"):
            explainer.explain(x, smooth="eigen", **options)


class TestTwoSides:
    @pytest.mark.parametrize(
        "options", [{"smooth": "aug"}, {"method": "shapleycam"}, {"method": "smooth-gradcam++", "samples": 2}], ids=str
    )
    def test_need_the_other_one(self, explainer: Any, x: np.ndarray, options: dict[str, Any]) -> None:
        found = explainer.explain(x, **options)
        with pytest.raises(ogc.MethodError, match="cannot be made from its activations and gradients alone"):
            ogc.both(found)
        against = explainer.explain(x, counterfactual=True, **options)
        np.testing.assert_array_equal(ogc.both(found, against).parts["net"].cam, found.cam - against.cam)


class TestTargets:
    """Of a segmenter: its class at a place, and its class wherever it is most probable."""

    def test_a_place_moves_with_the_image(self, rng: np.random.Generator) -> None:
        net = nets.Net()
        x = net.input("image", [nets.BATCH, 3, 8, 8])
        net.op("Relu", net.conv(x, (3, 4), stride=2), out="a")
        net.op("Resize", net.conv("a", (4, 5), 1), "", net.array(np.array([1, 1, 2, 2], np.float32)), out="logits")
        model = net.model({"logits": [nets.BATCH, 5, 8, 8]})
        image = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
        box = ogc.Region(2, box=(0, 0, 4, 4))
        with ogc.Explainer(model, target_layer="a", providers=["cpu"]) as explainer:
            with pytest.raises(ogc.MethodError, match=r"the place in 'box:2@.*' is another one"):
                explainer.explain(image, box, smooth="aug")
            found = explainer.explain(image, box, smooth="noise", samples=3, signed=True)
            copies = [explainer.explain(copy, box, signed=True).cam for copy in noisy_copies(image, Noise(3))]
            np.testing.assert_allclose(found.cam, np.mean(copies, axis=0), rtol=1e-4, atol=1e-6)
            probable = explainer.explain(image, 2, smooth="aug", signed=True)
            np.testing.assert_allclose(probable.cam[0], naive_aug(explainer, image[0], 2, signed=True), atol=1e-6)

    def test_a_class_of_a_target_is_frozen_too(self) -> None:
        rng = np.random.default_rng(0)
        image = (0.65 + 0.02 * rng.standard_normal((1, 1, 4, 6))).astype(np.float32)
        image *= 0.65 / image.mean()
        with ogc.Explainer(threshold(), target_layer="a", providers=["cpu"]) as explainer:
            found = explainer.explain(image, ogc.Probability(), smooth="aug", signed=True)
            given = explainer.explain(image, ogc.Probability(0), smooth="aug", signed=True)
        np.testing.assert_array_equal(found.cam, given.cam)
        assert found.cam.max() < 0
