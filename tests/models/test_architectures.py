"""Parity with torch autograd in float64 on every architecture, through both exporters."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from measures import cosine, relative
from nets import one_thread, session
from reference import evaluator

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
images, truth, ranked, TOP_1 = exports.images, exports.truth, exports.ranked, exports.TOP_1

# Trainable parameters of the published implementations without auxiliary classifiers: torchvision's, but of
# googlenet Caffe's and of mobilenet_v1 Keras'.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "googlenet": 6_998_552,
    "inception_v3": 23_834_568,
    "squeezenet": 1_235_496,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "shufflenet_v2": 2_278_604,
    "regnet_y": 4_344_144,
    "convnext_tiny": 28_589_128,
}

every_small = pytest.mark.parametrize("name", exports.SMALL)
both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


@pytest.mark.parametrize("name", exports.ARCHITECTURES)
def test_full_size_has_the_published_number_of_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.randomise", lambda network: None)
    with torch.device("meta"):
        network = exports.ARCHITECTURES[name]()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@every_small
def test_activations_neither_explode_nor_die(name: str) -> None:
    found = truth(name, TOP_1)
    assert 0.1 < found.activation.std() < 10
    assert 0.1 < found.logits.std(1).mean() < 10
    assert np.linalg.norm(found.input_gradient[0]) > 1e-2


@every_small
@both_exporters
def test_outputs(name: str, exporter: str) -> None:
    (logits,) = session(exports.small_model(name, exporter)).run(None, {"x": images(name)})
    expected = truth(name, TOP_1).logits
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def check_gradcam(model: bytes, x: np.ndarray, expected: exports.TorchGradcam) -> None:
    """The layer that "auto" takes is the one that torch hooked, and so are gradient and map, for every image."""
    with ogc.Explainer(model, session_options=one_thread()) as explainer:
        found = explainer.explain(x)
    np.testing.assert_array_equal(found.class_index, expected.logits.argmax(1))
    assert relative(found.activation, expected.activation).max() <= 1e-5
    assert relative(found.gradient, expected.gradient).max() <= 1e-5
    signed = (expected.gradient.mean((2, 3), keepdims=True) * expected.activation).sum(1)
    cam = np.maximum(signed, 0)
    assert (np.abs(found.cam - cam).max((1, 2)) <= 1e-4 * np.abs(signed).max((1, 2))).all()
    assert (cam.max((1, 2)) > 0).mean() > 0.5


@every_small
@both_exporters
def test_gradcam_at_the_last_stage(name: str, exporter: str) -> None:
    check_gradcam(exports.small_model(name, exporter), images(name), truth(name, TOP_1))


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("name", ["shufflenet_v2", "mobilenet_v3", "convnext_tiny"])
def test_gradcam_of_other_opsets(name: str, opset: int) -> None:
    check_gradcam(exports.small_model(name, "torchscript", opset=opset), images(name), truth(name, TOP_1))


@pytest.mark.parametrize("name", ["shufflenet_v2", "convnext_tiny", "googlenet"])
def test_gradcam_with_a_fixed_batch(name: str) -> None:
    model = exports.small_model(name, "torchscript", dynamic_batch=False)
    expected = exports.TorchGradcam(*(a[:3] for a in truth(name, TOP_1)))
    check_gradcam(model, images(name)[:3], expected)


@every_small
@both_exporters
def test_input_gradient_in_float32(name: str, exporter: str) -> None:
    model = ogc.gradient_model(exports.small_model(name, exporter), ["x"])
    feeds = {"x": images(name), "target_index": np.array(ranked(name))}
    (found,) = session(model).run(["grad/x"], feeds)
    expected = truth(name, ranked(name)).input_gradient
    assert np.median(relative(found, expected)) <= 1e-5
    assert cosine(found, expected).min() >= 0.999


@every_small
@both_exporters
def test_input_gradient_in_float64(name: str, exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "hardsigmoid", exports.hardsigmoid)
    model = ogc.gradient_model(exports.small_model(name, exporter, torch.float64), ["x"])
    x, class_index = images(name)[:2].astype(np.float64), np.array(ranked(name)[:2])
    (found,) = evaluator(model).run(["grad/x"], {"x": x, "target_index": class_index})
    expected = exports.torch_gradcam(exports.small(name), x, class_index, torch.float64).input_gradient
    assert relative(found, expected).max() <= 1e-9
