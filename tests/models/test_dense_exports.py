"""Segmenters, detectors and sequence models as both torch exporters write them: cell, score and gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")

from dense_nets import NETS, entry  # noqa: E402
from exports import EXPORTERS, Exporter, export  # noqa: E402

import onnx_gradcam as ogc  # noqa: E402


@pytest.fixture(scope="module", params=[(n, e) for n in NETS for e in EXPORTERS], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, Any, ogc.Explanation, np.ndarray]:
    name, exporter = request.param
    exporter_: Exporter = exporter
    torch.manual_seed(0)
    module = NETS[name]().eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    proto = export(module, x, exporter_, dynamic_batch=False)
    return name, module, ogc.Explainer(proto, providers=["cpu"]).explain(x.numpy()), x.numpy()


def test_the_cell_and_the_score(case: tuple[str, Any, ogc.Explanation, np.ndarray]) -> None:
    """Those of the entry that is most probable in what torch computes."""
    name, module, explanation, x = case
    with torch.no_grad():
        index, cell, logit, probability = entry(name, module, torch.tensor(x))
    assert explanation.cell is not None
    assert (int(explanation.class_index[0]), tuple(explanation.cell[0].tolist())) == (index, cell)
    assert float(explanation.score[0]) == pytest.approx(float(logit), rel=1e-4, abs=1e-5)
    assert float(explanation.probability[0]) == pytest.approx(probability, rel=1e-4)


def test_the_gradient(case: tuple[str, Any, ogc.Explanation, np.ndarray]) -> None:
    """At each of the target layers, found again among torch's activations by their content."""
    name, module, explanation, x = case
    kept: list[torch.Tensor] = []
    for part in module.modules():
        if not list(part.children()) and not isinstance(part, torch.nn.LSTM):
            part.register_forward_hook(lambda _m, _x, y: kept.append(y))
    _, _, logit, _ = entry(name, module, torch.tensor(x))
    for layer in explanation.layers:
        same = [a for a in kept if a.shape == layer.activation.shape]
        nearest = min(same, key=lambda a: float((a.detach() - torch.tensor(layer.activation)).abs().max()))
        np.testing.assert_allclose(layer.activation, nearest.detach().numpy(), atol=1e-4)
        (gradient,) = torch.autograd.grad(logit, nearest, retain_graph=True, allow_unused=True)
        expected = np.zeros_like(layer.activation) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(layer.gradient, expected, rtol=1e-3, atol=1e-5 * max(1, np.abs(expected).max()))
