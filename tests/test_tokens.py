"""Networks of tokens through both exporters: the automatic layer, its grid, and parity with torch autograd."""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from reference_ops import REFERENCE_OPS
from vjp_check import Erf

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")
parity = importlib.import_module("test_architectures")

COUNT = 4
every_net = pytest.mark.parametrize("name", token_nets.NETS)
both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


@functools.cache
def net(name: str) -> Any:
    return token_nets.NETS[name]()


@functools.cache
def images(name: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, 3, *net(name).size), np.float32)


@functools.cache
def model(name: str, exporter: str, dtype: Any = torch.float32, dynamic_batch: bool = True) -> bytes:
    network = copy.deepcopy(net(name)).to(dtype)
    x = torch.zeros(2 if dynamic_batch else 1, 3, *network.size, dtype=dtype)
    found: bytes = exports.export(network, x, exporter, dynamic_batch=dynamic_batch)
    return found


@functools.cache
def truth(name: str) -> dict[str, np.ndarray]:
    """Activation and gradient at the input of ``net.stream`` as (N, C, H, W), by torch in float64."""
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
    rows = slice(len(found))
    np.testing.assert_array_equal(found.class_index, expected["logits"][rows].argmax(1))
    assert found.activation.shape == expected["activation"][rows].shape
    assert parity.relative(found.activation, expected["activation"][rows]).max() <= 1e-5
    assert found.gradient is not None
    assert parity.relative(found.gradient, expected["gradient"][rows]).max() <= 1e-5
    weights = expected["gradient"][rows].mean((2, 3), keepdims=True)
    signed = (weights * expected["activation"][rows]).sum(1)
    assert np.abs(found.cam - np.maximum(signed, 0)).max() <= 1e-4 * np.abs(signed).max()


@every_net
@both_exporters
def test_parity_at_the_automatic_layer(name: str, exporter: str) -> None:
    with ogc.Explainer(model(name, exporter), session_options=parity.one_thread()) as explainer:
        found = explainer.explain(images(name))
    check(found, truth(name))
    assert found.heatmap.shape == (COUNT, *net(name).size)
    assert np.abs(truth(name)["gradient"]).max((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", ["vit", "swin", "swin_flat", "mixer"])
@both_exporters
def test_parity_with_a_fixed_batch_of_one(name: str, exporter: str) -> None:
    with ogc.Explainer(model(name, exporter, dynamic_batch=False), session_options=parity.one_thread()) as explainer:
        check(explainer.explain(images(name)[:2]), truth(name))


@every_net
@both_exporters
def test_input_gradient_in_float64(name: str, exporter: str) -> None:
    written = ogc.gradient_model(model(name, exporter, torch.float64), ["x"])
    evaluator = ReferenceEvaluator(written, new_ops=[Erf, parity.Gelu, *REFERENCE_OPS])
    feeds = {"x": images(name).astype(np.float64), "target_index": np.full(COUNT, -1)}
    (found,) = evaluator.run(["grad/x"], feeds)
    assert parity.relative(found, truth(name)["input_gradient"]).max() <= 1e-9


@every_net
@both_exporters
def test_input_gradient_in_float32(name: str, exporter: str) -> None:
    written = ogc.gradient_model(model(name, exporter), ["x"])
    feeds = {"x": images(name), "target_index": np.full(COUNT, -1)}
    (found,) = parity.session(written.SerializeToString()).run(["grad/x"], feeds)
    expected = truth(name)["input_gradient"]
    assert np.median(parity.relative(found, expected)) <= 1e-5
    assert parity.cosine(found, expected).min() >= 0.999


@every_net
@both_exporters
def test_verify(name: str, exporter: str) -> None:
    report = ogc.verify(model(name, exporter), x=images(name)[:1])
    assert report.ok, str(report)
