"""Smoothed maps, products of layers and Hessians, against pytorch-grad-cam on the same weights. ``make oracles``.

The library scales every map before it averages or multiplies: ``unscaled`` leaves that out, to compare numbers in the
score's units.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = pytest.mark.oracles

CLASS = 4
METHODS = {"gradcam": "GradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM"}
NETWORKS = ["resnet18", "mobilenet_v2"]


@pytest.fixture(scope="module")
def library() -> Any:
    from bench import stub_torchvision

    stub_torchvision()
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam: not installed; run `make oracles`")


def resized(cam: Any, target_size: Any = None) -> np.ndarray:
    """In the place of the library's ``scale_cam_image``: nothing is scaled."""
    return np.float32(cam if target_size is None else [cv2.resize(image, target_size) for image in cam])


def by_maximum(cam: Any, target_size: Any = None) -> np.ndarray:
    """The same, each map divided by its maximum after it is resized, as we do."""
    maps = resized(cam, target_size)
    return maps / maps.max(axis=(1, 2), keepdims=True)


def theirs(library: Any, method: str, network: str, x: np.ndarray, **options: bool) -> np.ndarray:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module = exports.small(network)
    targets = [ClassifierOutputTarget(CLASS)] * len(x)
    with getattr(library, method)(module, [module.get_submodule(module.last_stage)]) as cam:
        return cam(input_tensor=torch.from_numpy(x), targets=targets, **options)


def images(network: str, count: int = 2) -> np.ndarray:
    side = exports.small(network).size
    return np.random.default_rng(3).standard_normal((count, 3, side, side)).astype(np.float32)


def ours(network: str, x: np.ndarray, method: str, **options: Any) -> Any:
    with ogc.Explainer(exports.small_model(network, "torchscript"), providers=["cpu"]) as explainer:
        return explainer.explain(x, target=CLASS, method=method, **options)


def upsampled(cam: np.ndarray, x: np.ndarray) -> np.ndarray:
    return resized(cam, x.shape[:1:-1])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_aug_smooth(library: Any, monkeypatch: pytest.MonkeyPatch, network: str, method: str) -> None:
    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", resized)
    x = images(network)
    expected = theirs(library, METHODS[method], network, x, aug_smooth=True)
    found = upsampled(ours(network, x, method, smooth="aug").cam, x)
    assert np.abs(expected - theirs(library, METHODS[method], network, x)).max() > 1e-3 * expected.max()
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_eigen_smooth(library: Any, monkeypatch: pytest.MonkeyPatch, network: str, method: str) -> None:
    """The sign of their component is arbitrary: what they make of it is compared where ours, or its negative, is."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    x = images(network)
    plain = ours(network, x, method)
    expected = get_2d_projection(np.asarray(plain.weights * plain.activation))
    found = ours(network, x, method, smooth="eigen").cam
    for row in range(len(x)):
        signed = max((expected[row], -expected[row]), key=lambda p: float((np.maximum(p, 0) * found[row]).sum()))
        scale = np.abs(expected[row]).max()
        np.testing.assert_allclose(found[row] / scale, np.maximum(signed, 0) / scale, atol=1e-5)
    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", resized)
    whole = theirs(library, METHODS[method], network, x, eigen_smooth=True)
    np.testing.assert_allclose(whole, upsampled(np.maximum(expected, 0), x), atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("network", ["resnet18", "convnext_tiny"])
def test_shapley_cam(library: Any, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    """Behind ConvNeXt's last stage lies a LayerNorm; behind ResNet's nothing that bends."""
    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", resized)
    x = images(network)
    expected = theirs(library, "ShapleyCAM", network, x)
    explanation = ours(network, x, "shapleycam")
    found = upsampled(explanation.cam, x)
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), atol=1e-5)
    bends = np.abs(explanation.cam - ours(network, x, "gradcam").cam).max() > 1e-3 * explanation.cam.max()
    assert bends == (network == "convnext_tiny")


def test_refine_cam_is_the_product_of_layers(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ends of three stages, of Grad-CAM: the library adds 1e-6 to denominators of that size in Grad-CAM++."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", by_maximum)
    monkeypatch.setattr("pytorch_grad_cam.refine_cam.scale_cam_image", by_maximum)
    network = "resnet18"
    module, x = exports.small(network), images("resnet18")
    names = ["features.2", "features.3", "features.4"]
    layers = [module.get_submodule(name) for name in names]
    cam = library.RefineCAM(module, layers, base_method=library.GradCAM)
    expected = cam(torch.from_numpy(x), [ClassifierOutputTarget(CLASS)] * len(x))
    values = [f"/features/{name}/act/Relu_output_0" for name in names]
    with ogc.Explainer(exports.small_model(network, "torchscript"), values, providers=["cpu"]) as explainer:
        found = explainer.explain(x, CLASS, fusion="product")
    np.testing.assert_allclose(found.heatmap, expected, atol=1e-5)
