"""Guided backpropagation against pytorch-grad-cam, FullGrad against the paper's formula in torch.

pytorch-grad-cam's FullGrad scales every layer to 0 … 1 before it sums, which its paper's formula does not; so the
formula is compared with a naive version, on networks without BatchNormalization (exporters fold its bias).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = pytest.mark.oracles

RELU_NETWORKS = ["vgg16", "resnet18", "densenet121"]
WITHOUT_NORMS = ["alexnet", "vgg16"]
TARGETS = [4, 0]


def images(module: Any) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2, 3, module.size, module.size)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", RELU_NETWORKS)
def test_guided_backpropagation(name: str) -> None:
    from bench import stub_torchvision

    stub_torchvision()
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam: not installed; run `make oracles`")
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel

    module = exports.small(name)
    x = images(module)
    with ogc.Explainer(exports.small_model(name, "torchscript"), providers=["cpu"]) as explainer:
        ours = explainer.explain(x, TARGETS, "guided-backprop").attribution
    library = GuidedBackpropReLUModel(copy.deepcopy(module), device="cpu")
    for row, target in enumerate(TARGETS):
        expected = library(torch.from_numpy(x[row : row + 1]), target).reshape(module.size, module.size, 3)
        assert cosine(ours[row].transpose(1, 2, 0), expected) >= 0.9999


@pytest.mark.parametrize("name", WITHOUT_NORMS)
def test_fullgrad(name: str) -> None:
    module = copy.deepcopy(exports.small(name)).double()
    x = images(module)
    kept: list[tuple[Any, Any]] = []

    def keep(layer: Any, _: Any, output: Any) -> None:
        output.retain_grad()
        kept.append((layer.bias, output))

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(keep)
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    module(tensor)[range(2), TARGETS].sum().backward()
    expected = (tensor * tensor.grad).abs().sum(dim=1)
    for bias, output in kept:
        evidence = (bias[:, None, None] * output.grad).abs().sum(dim=1, keepdim=True)
        expected = expected + torch.nn.functional.interpolate(evidence, x.shape[2:], mode="bilinear")[:, 0]
    with ogc.Explainer(exports.small_model(name, "torchscript"), providers=["cpu"]) as explainer:
        found = explainer.explain(x, TARGETS, "fullgrad")
    assert not any("add up" in warning for warning in found.warnings)
    ours, expected = found.attribution.sum(axis=1), expected.detach().numpy()
    for row in range(2):
        assert cosine(ours[row], expected[row]) >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(ours[row]), np.linalg.norm(expected[row]), rtol=1e-3)
