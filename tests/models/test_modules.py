"""Layers by the path of their module, in the files of both torch exporters."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch

both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)
LAYERS = ("features.3", "features.3.shortcut", "features.2.body.0", "features.4.body.0.2", "features.1", "features")


@both_exporters
def test_activation_and_gradient_are_those_of_the_module(exporter: Any) -> None:
    network = exports.small("resnet18")
    x = np.random.default_rng(0).standard_normal((2, 3, network.size, network.size), np.float32)
    kept: dict[str, Any] = {}
    handles = [
        network.get_submodule(path).register_forward_hook(lambda _m, _x, y, path=path: kept.setdefault(path, y))
        for path in LAYERS
    ]
    logits = network(torch.tensor(x))
    for handle in handles:
        handle.remove()
    expected = torch.autograd.grad(logits[:, 3].sum(), list(kept.values()))
    with ogc.Explainer(exports.small_model("resnet18", exporter), list(kept), providers=["cpu"]) as explainer:
        found = explainer.explain(x, target=3)
    for layer, activation, gradient in zip(found.layers, kept.values(), expected, strict=True):
        np.testing.assert_allclose(layer.activation, activation.detach().numpy(), rtol=1e-4, atol=1e-4)
        difference = np.linalg.norm(layer.gradient - gradient.numpy())
        assert difference <= 1e-5 * np.linalg.norm(gradient.numpy())


@both_exporters
def test_inspect_names_the_module(exporter: Any) -> None:
    found = ogc.layers(exports.small_model("resnet18", exporter))
    assert [layer.module for layer in found][:3] == ["features", "features.4.body.0", "features.3"]


def test_a_module_that_the_exporter_folded_into_another() -> None:
    """dynamo writes convolution and BatchNorm as one node, which is the BatchNorm's."""
    with pytest.raises(ogc.LayerError, match=r"no value, node or module 'features\.4\.body\.1\.0'") as error:
        ogc.Explainer(exports.small_model("resnet18", "dynamo"), "features.4.body.1.0")
    assert "'features.4.body.1.1'" in error.value.hint
