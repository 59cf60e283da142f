"""Heads of all kinds through both exporters of torch: detectors, embeddings, autoencoders, networks side by side."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import pytest
from nets import run

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import Score, find_heads
from onnx_gradcam.errors import ScoreError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
heads_nets = importlib.import_module("heads_nets")

both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


@functools.cache
def exported(name: str, exporter: str) -> bytes:
    torch.manual_seed(0)
    network = heads_nets.NETS[name]().eval()
    made: bytes = exports.export(network, torch.zeros(1, 3, 32, 32), exporter, dynamic_batch=False)
    return made


def heads_of(name: str, exporter: str) -> tuple[Any, tuple[Score, ...]]:
    graph = prepare(load(exported(name, exporter)).model).graph
    return graph, find_heads(graph)


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "classes", "levels", "objectness"),
    [
        ("yolov8", 5, 2, False),
        ("yolov10", 5, 2, False),
        ("fcos", 5, 2, True),
        ("yunet", 1, 2, True),
        ("faces", 5, 2, True),
        ("anchors", 5, 2, False),
        ("detr", 6, 1, False),
    ],
)
def test_detectors(name: str, classes: int, levels: int, objectness: bool, exporter: str) -> None:
    graph, (score,) = heads_of(name, exporter)
    assert score.dense is not None
    found = score.count, len(score.dense.levels), score.dense.objectness is not None
    assert found == (classes, levels, objectness)
    layers = choose(graph, score, ["auto"])
    assert [layer.dims[1] for layer in layers] == [8] * levels, "the features, and not the logits"
    assert all(layer.dims[2:] in ((16, 16), (8, 8), (4, 4)) for layer in layers)


@both_exporters
@pytest.mark.parametrize(
    ("name", "kind"),
    [("embedding", "embedding"), ("pose", "values"), ("logits", "classes")],
)
def test_what_the_numbers_are(name: str, kind: str, exporter: str) -> None:
    _, (score,) = heads_of(name, exporter)
    assert score.kind == kind, score.reason


@both_exporters
def test_an_autoencoder(exporter: str) -> None:
    with pytest.raises(ScoreError, match="is an image like the input"):
        ogc.Explainer(exported("autoencoder", exporter))


@both_exporters
def test_networks_side_by_side(exporter: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    model = exported("mean of softmaxes", exporter)
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        found = explainer.explain(x)
        assert sorted(layer.dims[1:] for layer in explainer.network.layers) == [(6, 16, 16), (8, 8, 8)]
    (p,) = run(model, {explainer.image_input.name: x}).values()
    np.testing.assert_allclose(found.probability, p.max(1), rtol=1e-5)
