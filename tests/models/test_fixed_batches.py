"""Modules exported for a fixed batch give every image what the module with an open batch gives."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import pytest
from measures import relative
from nets import one_thread

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")

NETS = {"vit": token_nets.ViT, "swin": token_nets.Swin, "mobilenet_v3": lambda: exports.small("mobilenet_v3")}
TARGETS: list[Any] = [None, [4, 0, 1, 2, 3], ogc.TopK(2), ogc.Classes([3, 1])]


@functools.cache
def net(name: str) -> Any:
    return NETS[name]()


@functools.cache
def model(name: str, batch: int | None) -> bytes:
    size = net(name).size
    x = torch.zeros(batch or 2, 3, *(size if isinstance(size, tuple) else (size, size)))
    found: bytes = exports.export(net(name), x, "torchscript", dynamic_batch=batch is None)
    return found


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", NETS)
def test_a_fixed_batch_of_any_size(name: str, batch: int) -> None:
    """Five images: pieces of one, two pieces of which the last is padded, one padded piece."""
    with (
        ogc.Explainer(model(name, batch), session_options=one_thread()) as fixed,
        ogc.Explainer(model(name, None), session_options=one_thread()) as free,
    ):
        shape = fixed.image_input.shape[1:]
        x = np.random.default_rng(0).standard_normal((5, *shape), np.float32)
        for target in TARGETS:
            found, expected = fixed.explain(x, target=target), free.explain(x, target=target)
            np.testing.assert_array_equal(found.image_index, expected.image_index)
            np.testing.assert_array_equal(found.class_index, expected.class_index)
            assert found.gradient is not None
            assert expected.gradient is not None
            assert relative(found.activation, expected.activation).max() <= 1e-5
            assert relative(found.gradient, expected.gradient).max() <= 1e-5
            np.testing.assert_allclose(found.score, expected.score, atol=1e-5)
            np.testing.assert_allclose(found.outputs["logits"], expected.outputs["logits"], atol=1e-5)
