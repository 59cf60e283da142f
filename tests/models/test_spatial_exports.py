"""Torch modules with spatial operators, exported: the gradient of the ONNX model is that of torch autograd."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch

from onnx_gradcam.autodiff.walk import pull_back  # noqa: E402
from onnx_gradcam.graph.builder import Builder  # noqa: E402
from onnx_gradcam.graph.load import load  # noqa: E402
from onnx_gradcam.graph.prepare.prepare import prepare  # noqa: E402

f, nn = torch.nn.functional, torch.nn
SIZE = (20, 18)


class Network(nn.Module):  # type: ignore[misc, name-defined]
    """Two convolutions, and between them what is tried; without kinks, so that rounding flips nothing."""

    def __init__(self, middle: Callable[..., Any], *modules: Any) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)
        self.middle, self.modules_ = middle, nn.ModuleList(modules)

    def forward(self, x: Any) -> Any:
        found = self.middle(torch.tanh(self.first(x)), *self.modules_)
        return self.head(torch.tanh(self.second(found)).mean((2, 3)))


def transformer(a: Any, locate: Any) -> Any:
    theta = locate(a.mean((2, 3))).view(-1, 2, 3) + torch.eye(2, 3, dtype=a.dtype)
    return f.grid_sample(a, f.affine_grid(theta, [1, 4, 12, 10], align_corners=False), align_corners=False)


def flow(a: Any, estimate: Any) -> Any:
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=a.dtype) for n in SIZE), indexing="ij")
    moves = 0.1 * estimate(a).permute(0, 2, 3, 1)
    places = torch.stack([columns, rows], -1)[None] + moves
    return f.grid_sample(a, places, mode="bicubic", padding_mode="reflection", align_corners=True)


def unpooled(a: Any) -> Any:
    return f.max_unpool2d(*f.max_pool2d(a, 2, 2, return_indices=True), 2, 2)


BOTH, DYNAMO = ("torchscript", "dynamo"), ("dynamo",)
MODULES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "spatial-transformer": (lambda: Network(transformer, nn.Linear(4, 6)), DYNAMO),
    "flow": (lambda: Network(flow, nn.Conv2d(4, 2, 3, padding=1)), BOTH),
    "max-pool-ceil": (lambda: Network(nn.MaxPool2d(2, 2, 1, ceil_mode=True)), BOTH),
    "average-pool-ceil": (lambda: Network(nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False)), BOTH),
    "adaptive-pool": (lambda: Network(nn.AdaptiveAvgPool2d((7, 5))), DYNAMO),
    "norm-pool": (lambda: Network(nn.LPPool2d(2, 2, 2)), BOTH),
    "unpool": (lambda: Network(unpooled), DYNAMO),
    "fold": (lambda: Network(lambda a: f.fold(torch.tanh(f.unfold(a, 3, padding=1)), SIZE, 3, padding=1)), BOTH),
    "bicubic": (lambda: Network(nn.Upsample(scale_factor=1.5, mode="bicubic")), BOTH),
    "nearest": (lambda: Network(lambda a: f.interpolate(a, (13, 7), mode="nearest")), BOTH),
    "transposed": (lambda: Network(nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=2)), BOTH),
    "computed-kernel": (
        lambda: Network(lambda a, k: f.conv2d(a, k(a.mean((2, 3))).view(4, 4, 3, 3), padding=1), nn.Linear(4, 144)),
        BOTH,
    ),
    "correlation": (lambda: Network(lambda a: f.conv2d(a, a[:, :, 4:9, 4:9].reshape(4, 1, 5, 5), groups=4)), BOTH),
}
PAIRS = [pytest.param(name, exporter, id=f"{name}-{exporter}") for name in MODULES for exporter in MODULES[name][1]]


@pytest.mark.parametrize(("name", "exporter"), PAIRS)
def test_the_gradient_is_that_of_torch(name: str, exporter: str) -> None:
    torch.manual_seed(0)
    network = MODULES[name][0]().eval()
    x, g = torch.randn(1, 3, *SIZE), torch.randn(1, 5)
    model = prepare(load(exports.export(network, x, exporter, dynamic_batch=False, opset=18)).model)
    found = gradient(model, x.numpy(), g.numpy())
    leaf = x.double().requires_grad_()
    copy.deepcopy(network).double()(leaf).backward(g.double())
    expected = leaf.grad.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()), rtol=0)


def gradient(model: ir.Model, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Of ⟨g, logits⟩ with respect to the image, on ONNX Runtime."""
    values = ir.convenience.create_value_mapping(model.graph)
    op, nodes = Builder(model.graph), list(model.graph)
    (found,) = pull_back(op, nodes, {values["logits"]: op.array(g)}, [values["x"]])
    model.graph.outputs.append(found)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (array,) = session.run([found.name], {"x": x})
    return np.asarray(array)
