"""What torch says of the networks of tokens, and whether an explanation says the same."""

from __future__ import annotations

import copy
import functools

import exports
import numpy as np
import torch
from measures import relative
from token_nets import model, net

import onnx_gradcam as ogc

COUNT = 4


@functools.cache
def images(name: str) -> np.ndarray:
    """Return ``COUNT`` random images, float32 (N, 3, H, W)."""
    return np.random.default_rng(0).standard_normal((COUNT, 3, *net(name).size), np.float32)


@functools.cache
def truth(name: str) -> dict[str, np.ndarray]:
    """Return activation and gradient at the input of ``net.stream`` as (N, C, H, W), by torch in float64."""
    network = copy.deepcopy(net(name)).to(torch.float64)
    kept: list[torch.Tensor] = []
    network.get_submodule(network.stream).register_forward_pre_hook(lambda _m, x: kept.append(x[0]))
    x = torch.tensor(images(name), dtype=torch.float64, requires_grad=True)
    logits = network(x)
    gradients = torch.autograd.grad(logits.max(1).values.sum(), [kept[0], x])
    arranged = [network.to_grid(a.detach().numpy()) for a in (kept[0], gradients[0])]
    keys = ("activation", "gradient", "input_gradient", "logits")
    return dict(zip(keys, [*arranged, gradients[1].numpy(), logits.detach().numpy()], strict=True))


def check(found: ogc.Explanation, expected: dict[str, np.ndarray]) -> None:
    """Assert that class, activation, gradient and Grad-CAM are those of torch, for the first images of ``expected``."""
    rows = slice(len(found))
    np.testing.assert_array_equal(found.class_index, expected["logits"][rows].argmax(1))
    assert found.activation.shape == expected["activation"][rows].shape
    assert relative(found.activation, expected["activation"][rows]).max() <= 1e-5
    assert found.gradient is not None
    assert relative(found.gradient, expected["gradient"][rows]).max() <= 1e-5
    weights = expected["gradient"][rows].mean((2, 3), keepdims=True)
    signed = (weights * expected["activation"][rows]).sum(1)
    assert np.abs(found.cam - np.maximum(signed, 0)).max() <= 1e-4 * np.abs(signed).max()


@functools.cache
def small_network(name: str, exporter: exports.Exporter) -> tuple[bytes, np.ndarray]:
    """Return the model of a small architecture or network of tokens, and two images for it."""
    if name in exports.SMALL:
        return exports.small_model(name, exporter), exports.images(name)[:2]
    return model(name, exporter), images(name)[:2]
