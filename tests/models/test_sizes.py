"""Modules exported with dynamic height and width, explained at other sizes than the exporter saw."""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any

import numpy as np
import pytest
from measures import relative
from nets import one_thread
from reference import evaluator

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")

CONVOLUTIONAL = [
    *((name, exporter) for name in ("resnet18", "mobilenet_v3", "convnext_tiny") for exporter in exports.EXPORTERS),
    *((name, "torchscript") for name in ("densenet121", "googlenet", "shufflenet_v2")),
]
SIZES = [(48, 80), (72, 40)]
both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


@functools.cache
def model(name: str, exporter: str, dtype: Any = torch.float32) -> bytes:
    network = copy.deepcopy(exports.small(name)).to(dtype)
    x = torch.zeros(2, 3, network.size, network.size, dtype=dtype)
    found: bytes = exports.export(network, x, exporter, space=("H", "W"))
    return found


def images(size: tuple[int, int], count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, *size), np.float32)


@pytest.mark.parametrize(("name", "exporter"), CONVOLUTIONAL)
def test_gradcam_at_other_sizes(name: str, exporter: str) -> None:
    with ogc.Explainer(model(name, exporter), session_options=one_thread()) as explainer:
        for size in SIZES:
            found = explainer.explain(images(size))
            expected = exports.torch_gradcam(exports.small(name), images(size), (-1, -1), torch.float64)
            assert found.heatmap.shape[1:] == size
            assert relative(found.activation, expected.activation).max() <= 1e-5
            assert found.gradient is not None
            assert relative(found.gradient, expected.gradient).max() <= 1e-5


@pytest.mark.parametrize(("name", "exporter"), CONVOLUTIONAL)
def test_input_gradient_at_another_size(name: str, exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "hardsigmoid", exports.hardsigmoid)
    written = ogc.gradient_model(model(name, exporter, torch.float64), ["x"])
    x = images(SIZES[0]).astype(np.float64)
    (found,) = evaluator(written).run(["grad/x"], {"x": x, "target_index": np.full(2, -1)})
    expected = exports.torch_gradcam(exports.small(name), x, (-1, -1), torch.float64).input_gradient
    assert relative(found, expected).max() <= 1e-9


# -------------------------------------------------------------------------------------------------- tokens


@both_exporters
def test_the_grid_of_tokens_follows_the_size_of_the_image(exporter: str) -> None:
    network = token_nets.spotter(token_nets.Unplaced(width=4))
    exported = exports.export(network, torch.zeros(2, 3, 12, 20), exporter, space=("H", "W"))
    with ogc.Explainer(exported, session_options=one_thread()) as explainer:
        (layer,) = explainer.network.layers
        assert layer.dims[1:] == (4, "?", "?")
        for rows, columns in [(3, 5), (6, 2), (2, 7)]:
            x = np.zeros((2, 3, rows * 4, columns * 4), np.float32)
            x[0, :, -4:, :4] = x[1, :, :4, 4:8] = 1
            found = explainer.explain(x, target=0)
            assert found.cam.shape == (2, rows, columns)
            at = [divmod(int(cam.argmax()), columns) for cam in found.cam]
            assert at == [(rows - 1, 0), (0, 1)]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3"])
def test_verify(name: str) -> None:
    report = ogc.verify(model(name, "dynamo"), x=images(SIZES[1], 1))
    assert report.ok, str(report)
