"""Text recognisers: a convolutional stack whose columns are read by recurrent layers, through both exporters."""

from __future__ import annotations

import functools
import importlib
import io
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import one_thread
from reference import evaluator

import onnx_gradcam as ogc
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
nn = torch.nn

CLASSES = 7
KINDS = ("LSTM", "GRU", "RNN")


class Crnn(nn.Module):  # type: ignore[misc, name-defined]
    """(N, 3, 16, W) → features (N, 16, 1, W/4) → two bidirectional layers → scores of each column, or their mean."""

    def __init__(self, kind: str, batch_first: bool, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d((4, 2), (4, 2)),
            nn.Conv2d(16, 16, (2, 1)), nn.ReLU(),
        )  # fmt: skip
        self.rnn = getattr(nn, kind)(16, 12, num_layers=2, bidirectional=True, batch_first=batch_first)
        self.linear = nn.Linear(24, CLASSES)
        self.batch_first, self.pooled = batch_first, pooled
        self.eval()

    def forward(self, x: Any) -> Any:
        columns = self.features(x).squeeze(2)
        columns = columns.permute(0, 2, 1) if self.batch_first else columns.permute(2, 0, 1)
        y, _ = self.rnn(columns)
        scores = self.linear(y)
        return scores.mean(1 if self.batch_first else 0) if self.pooled else scores


@functools.cache
def images() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((3, 3, 16, 40))


@functools.cache
def exported(kind: str, exporter: str, batch_first: bool, pooled: bool, double: bool) -> bytes:
    dtype = torch.float64 if double else torch.float32
    net = Crnn(kind, batch_first, pooled).to(dtype).requires_grad_(False)
    data: bytes = exports.export(net, torch.tensor(images()[:2], dtype=dtype), exporter, dynamic_batch=pooled)
    return data


def truth(kind: str, batch_first: bool, cotangent: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Features, their gradient and the scores: of each image's top class, or ⟨cotangent, scores⟩ of two images."""
    net = Crnn(kind, batch_first, cotangent is None).double()
    features = net.features(torch.tensor(images() if cotangent is None else images()[:2]))
    net.features = nn.Identity()
    scores = net(features)
    total = scores.amax(1).sum() if cotangent is None else (scores * torch.tensor(cotangent)).sum()
    (gradient,) = torch.autograd.grad(total, features)
    return features.detach().numpy(), gradient.numpy(), scores.detach().numpy()


def last_relu(graph: ir.Graph) -> str:
    return [n.outputs[0].name or "" for n in graph if n.op_type == "Relu"][-1]


FORMS = [
    *[(kind, "torchscript", batch_first) for kind in KINDS for batch_first in (False, True)],
    *[("LSTM", "dynamo", batch_first) for batch_first in (False, True)],
    *[(kind, "dynamo", False) for kind in ("GRU", "RNN")],  # the RNN becomes its steps, one after the other
]
forms = pytest.mark.parametrize(("kind", "exporter", "batch_first"), FORMS)


@forms
def test_gradient_at_the_end_of_the_convolutions_in_float64(kind: str, exporter: str, batch_first: bool) -> None:
    data = exported(kind, exporter, batch_first, True, True)
    layer = last_relu(prepare(load(data).model).graph)
    model = ogc.gradient_model(data, [layer])
    reference = evaluator(model)
    feeds = {"x": images(), "target_index": np.full(3, -1)}
    activation, gradient = reference.run([layer, f"grad/{layer}"], feeds)
    features, expected, _ = truth(kind, batch_first)
    np.testing.assert_allclose(activation, features, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


@forms
def test_the_explanation_in_float32(kind: str, exporter: str, batch_first: bool) -> None:
    """Top-1 of every image in one run, and several classes of each, for which the graph is cut in two."""
    data = exported(kind, exporter, batch_first, True, False)
    layer = last_relu(prepare(load(data).model).graph)
    features, expected, scores = truth(kind, batch_first)
    with ogc.Explainer(data, target_layer=layer, session_options=one_thread()) as explainer:
        found = explainer.explain(images().astype(np.float32))
        several = explainer.explain(images().astype(np.float32), target=ogc.TopK(2))
    np.testing.assert_array_equal(found.class_index, scores.argmax(1))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.activation, features, atol=1e-5)
    np.testing.assert_allclose(found.gradient / scale, expected / scale, atol=1e-5)
    np.testing.assert_allclose(several.gradient[::2] / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size(kind: str) -> None:
    """The number of steps is known at run time only; torch asks in an If whether the height is 1."""
    file = io.BytesIO()
    net = Crnn(kind, False, True).requires_grad_(False)
    with exports.quiet():
        torch.onnx.export(
            net, (torch.zeros(2, 3, 16, 40),), file, dynamo=False, opset_version=17, input_names=["x"],
            output_names=["logits"], dynamic_axes={"x": {0: "N", 2: "H", 3: "W"}, "logits": {0: "N"}},
        )  # fmt: skip
    layer = last_relu(prepare(load(file.getvalue()).model).graph)
    with ogc.Explainer(file.getvalue(), session_options=one_thread()) as explainer:  # the layer that "auto" takes
        assert explainer.explain(np.zeros((1, 3, 16, 40), np.float32)).target_layer == layer
        for columns in (16, 40, 64):
            x = np.random.default_rng(columns).standard_normal((2, 3, 16, columns))
            found = explainer.explain(x.astype(np.float32))
            double = Crnn(kind, False, True).double()
            features = double.features(torch.tensor(x)).detach().requires_grad_()
            double.features = nn.Identity()
            (expected,) = torch.autograd.grad(double(features).amax(1).sum(), features)
            scale = float(expected.abs().max())
            np.testing.assert_allclose(found.gradient / scale, expected.numpy() / scale, atol=1e-5)


@pytest.mark.parametrize(("kind", "exporter", "batch_first"), [form for form in FORMS if form[0] == "LSTM"])
def test_scores_of_each_column(kind: str, exporter: str, batch_first: bool) -> None:
    """(T, N, K) or (N, T, K): any cotangent of it is pulled back."""
    prepared = prepare(load(exported(kind, exporter, batch_first, False, True)).model)
    graph = prepared.graph
    values = ir.convenience.create_value_mapping(graph)
    y, layer = graph.outputs[0], values[last_relu(graph)]
    nodes = list(graph)
    g = ir.val("g", dtype=y.dtype, shape=y.shape)
    (gradient,) = pull_back(Builder(graph), nodes, {y: g}, [layer])
    graph.inputs.append(g)
    graph.outputs.append(gradient)
    shape = (2, 10, CLASSES) if batch_first else (10, 2, CLASSES)
    cotangent = np.random.default_rng(4).standard_normal(shape)
    (found,) = evaluator(prepared).run([gradient.name], {"x": images()[:2], "g": cotangent})
    np.testing.assert_allclose(found, truth(kind, batch_first, cotangent)[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_verify_checks_the_recurrent_nodes(kind: str) -> None:
    data = exported(kind, "torchscript", False, True, False)
    layer = last_relu(prepare(load(data).model).graph)
    report = ogc.verify(data, target_layer=[layer])
    checked = [check for check in report.nodes if check.op_type == kind]
    assert checked
    assert all(check.status == "pass" for check in checked)
    assert [check.status for check in report.checks if repr(layer) in check.name] == ["pass"]
