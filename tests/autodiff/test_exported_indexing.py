"""What moves, indexes, accumulates and contracts, as both exporters of torch write it, against torch autograd."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch

INDEX = torch.tensor([3, 0, 2, 2])


def assigned(x: Any) -> Any:
    y = torch.zeros_like(x)
    y[:, :, 2:8, 1::2] = x[:, :, 2:8, ::2]
    y[:, 1] = x[:, 2]
    return y


def best_tokens(x: Any) -> Any:
    tokens = x.flatten(2)
    return tokens.gather(2, tokens.mean(1, keepdim=True).topk(5)[1].expand(-1, 4, -1))


def brightest_token(x: Any) -> Any:
    tokens = x.flatten(2).transpose(1, 2)
    return tokens[torch.arange(x.shape[0]), tokens.mean(2).argmax(1)]


MODULES: dict[str, Callable[[Any], Any]] = {  # of x (N, 4, 12, 12)
    "assignment to slices": assigned,
    "best tokens": best_tokens,
    "brightest token": brightest_token,
    "rows by an index": lambda x: x[:, :, INDEX],
    "elements by two indices": lambda x: x[:, :, INDEX, INDEX],
    "sorted": lambda x: x.sort(3)[0],
    "scatter": lambda x: torch.zeros_like(x).scatter(3, x.argsort(3), x),
    "scatter and add": lambda x: x.scatter_add(3, INDEX.expand(x.shape[0], 4, 12, 4), x[..., 4:8]),
    "scatter the largest": lambda x: x.scatter_reduce(3, INDEX.expand(x.shape[0], 4, 12, 4), x[..., 4:8], "amax"),
    "running sum": lambda x: x.cumsum(2),
    "triangles": lambda x: x.tril(1) + 2 * x.triu(-1),
    "flipped": lambda x: x.flip(3)[..., ::2],
    "rolled": lambda x: x.roll((2, -3), (2, 3)),
    "products": lambda x: torch.relu(x).prod(1),
    "bilinear pooling": lambda x: torch.einsum("nci,ndi->ncd", x.flatten(2), x.flatten(2)),
    "diagonal": lambda x: torch.einsum("ncii->nci", x),
    "mirrored border": lambda x: torch.nn.functional.pad(x, (2, 3, 1, 2), mode="reflect"),
    "windows": lambda x: x.unfold(2, 3, 2),
    "remainder": lambda x: torch.remainder(x, 0.3),
    "waves": lambda x: torch.sin(x) * torch.cos(x) + torch.atan(x),
    "spectrum": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 0.7, s=(12, 12)),
}


class Network(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.function = torch.nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x: Any) -> Any:
        return self.function(self.conv(x)).flatten(1)


EXPORTS = [(name, exporter) for name in MODULES for exporter in exports.EXPORTERS]
EXPORTS.remove(("spectrum", "torchscript"))  # this exporter has no Fourier transforms


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_gradient_at_the_input(name: str, exporter: Any) -> None:
    network = Network(MODULES[name]).eval()
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((2, 3, 12, 12), np.float32), requires_grad=True)
    y = network(x)
    g = rng.standard_normal(y.shape, np.float32)
    y.backward(torch.tensor(g))
    model = prepare(load(onnx.load_from_string(exports.export(network, x.detach(), exporter))).model)
    graph = model.graph
    seed = ir.val("g", dtype=ir.DataType.FLOAT, shape=ir.Shape(["N", g.shape[1]]))
    (gradient,) = pull_back(Builder(graph), list(graph), {graph.outputs[0]: seed}, [graph.inputs[0]])
    graph.inputs.append(seed)
    graph.outputs.append(gradient)
    found = run(model, {"x": x.detach().numpy(), "g": g})
    for array, expected in zip(found.values(), (y.detach().numpy(), x.grad.numpy()), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(array / scale, expected / scale, atol=1e-5, rtol=0)
