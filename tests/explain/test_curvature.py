"""The Hessian's product with the activation, against torch."""

from __future__ import annotations

import importlib
from typing import Any

import nets
import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.engine.program import differentiate, split
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import TARGET_INDEX
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score
from onnx_gradcam.targets.kinds import CLASS, PROBABILITY, Kind


def second_order(model: Any, name: str, kind: Kind = CLASS) -> Any:
    prepared = prepare(load(model).model)
    return differentiate(*write_score(prepared, find_score(prepared.graph)), [name], kind=kind, second_order=True)


def small(last: str) -> Any:
    """Conv → "a" → ``last`` → global pool → linear → softmax "p"."""
    net = nets.Net(opset=20)
    net.conv(net.input("x", [nets.BATCH, 3, 6, 6]), (3, 4), out="a")
    net.head(net.op(last, "a", out="b"), 4)
    net.op("Softmax", "logits", out="p", axis=1)
    return net.model({"p": [nets.BATCH, 5]})


def head(model: Any) -> np.ndarray:
    """The weights (classes, channels) of the linear layer."""
    return next(w for w in map(numpy_helper.to_array, model.graph.initializer) if w.shape == (5, 4))


def curvature(whole: Any, x: np.ndarray, classes: list[int]) -> np.ndarray:
    fed = {"x": x, TARGET_INDEX: np.array(classes)}
    return nets.run(ir.to_proto(whole.model), fed, ["grad/curvature/a"])["grad/curvature/a"]


def test_of_a_sigmoid_by_hand() -> None:
    """score = Σ w_k mean σ(A_k): H is diagonal, H·A = w_k / n · σ(1 − σ)(1 − 2σ) · A."""
    model = small("Sigmoid")
    whole = second_order(model, "a")
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    a = nets.run(ir.to_proto(whole.model), {"x": x, TARGET_INDEX: np.array([3, 1])}, ["a"])["a"]
    w = head(model)[[3, 1]]
    s = 1 / (1 + np.exp(-a))
    expected = w[:, :, None, None] / 36 * s * (1 - s) * (1 - 2 * s) * a
    np.testing.assert_allclose(curvature(whole, x, [3, 1]), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("last", ["Relu", "MaxPool", "LeakyRelu"])
def test_of_what_is_linear_in_pieces_is_zero_in_its_full_shape(last: str) -> None:
    if last == "MaxPool":
        net = nets.Net()
        net.conv(net.input("x", [nets.BATCH, 3, 6, 6]), (3, 4), out="a")
        net.head(net.op("MaxPool", "a", kernel_shape=[3, 3], strides=[2, 2]), 4)
        model = net.model({"logits": [nets.BATCH, 5]})
    else:
        model = small(last)
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(curvature(second_order(model, "a"), x, [3, 1]), np.zeros((2, 4, 6, 6)))


def test_a_probability_bends_what_its_logit_does_not() -> None:
    """p = softmax(M·A): H·A = ∂(∂p/∂A · v)/∂A at v = A, by differences of the first derivative in float64."""
    whole = second_order(small("Relu"), "a", kind=PROBABILITY)
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    found = curvature(whole, x, [2])
    results = nets.run(ir.to_proto(whole.model), {"x": x, TARGET_INDEX: np.array([2])}, ["a", "p"])
    w, p = head(small("Relu")).astype(float), results["p"][0].astype(float)
    on = (results["a"][0] > 0) / 36
    logits_along_a = w @ (results["a"][0] * on).sum(axis=(1, 2))
    # g_j = ∂p_2/∂z_j = p_2 (δ_2j − p_j); d is the change of z along A
    dp = p * (logits_along_a - p @ logits_along_a)
    dg = dp[2] * ((np.arange(5) == 2) - p) - p[2] * dp
    np.testing.assert_allclose(found[0], (dg @ w)[:, None, None] * on, rtol=1e-4, atol=1e-9)


def test_the_backward_half_holds_it_too() -> None:
    whole = second_order(small("Sigmoid"), "a")
    cut = split(whole)
    assert {v.name for v in cut.backward.graph.outputs} >= {"grad/a", "grad/curvature/a"}
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    first = nets.run(ir.to_proto(cut.forward), {"x": x}, list(cut.boundary))
    found = nets.run(ir.to_proto(cut.backward), first | {TARGET_INDEX: np.array([3, 1])}, ["grad/curvature/a"])
    np.testing.assert_allclose(found["grad/curvature/a"], curvature(whole, x, [3, 1]), rtol=1e-5, atol=1e-9)


def test_behind_recurrent_layers() -> None:
    """The layer is linear in the image, so that H·A is the derivative of the gradient along the image."""
    net = nets.Net()
    net.op("Conv", net.input("x", [nets.BATCH, 3, 6, 6]), net.random(4, 3, 3, 3), pads=[1, 1, 1, 1], out="a")
    steps = net.op("Transpose", net.op("ReduceMean", "a", net.ints(2), keepdims=0), perm=[2, 0, 1])
    net.op("RNN", steps, net.random(1, 5, 4), net.random(1, 5, 5), hidden_size=5, out="y")
    last = net.op("ReduceSum", "y", net.ints(0, 1), keepdims=0)
    net.linear(last, 5, 5, out="logits")
    whole = second_order(net.model({"logits": [nets.BATCH, 5]}), "a")
    x = np.random.default_rng(4).standard_normal((2, 3, 6, 6)).astype(np.float32)

    def gradient(scale: float) -> np.ndarray:
        fed = {"x": np.asarray(x * scale, np.float32), TARGET_INDEX: np.array([3, 1])}
        return nets.run(ir.to_proto(whole.model), fed, ["grad/a"])["grad/a"].astype(np.float64)

    step = 1e-2
    expected = (gradient(1 + step) - gradient(1 - step)) / (2 * step)
    found = curvature(whole, x, [3, 1])
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_behind_gates_attention_and_normalisation() -> None:
    """torch.autograd.functional.hvp of what lies behind the layer, in float64; the batch is free."""
    torch = pytest.importorskip("torch", reason="torch: not installed")
    exports = importlib.import_module("exports")  # imports torch
    module = bent_network(torch)
    data = exports.export(module, torch.zeros(2, 3, 6, 6), "torchscript")
    layer = next(node.outputs[0].name for node in load(data).model.graph if node.op_type == "Tanh")
    whole = second_order(data, layer)
    x = np.random.default_rng(2).standard_normal((2, 3, 6, 6)).astype(np.float32)
    name = f"grad/curvature/{layer}"
    found = nets.run(ir.to_proto(whole.model), {"x": x, TARGET_INDEX: np.array([3, 1])}, [name])[name]
    exact = module.double()
    a = exact.body(torch.tensor(x, dtype=torch.float64)).detach()

    def score(a: Any) -> Any:
        return exact.tail(a)[[0, 1], [3, 1]].sum()

    expected = torch.autograd.functional.hvp(score, a, a)[1].numpy()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def bent_network(torch: Any) -> Any:
    """Conv → Tanh, the layer; then SiLU, a gate, and a block of tokens with normalisation, attention and GELU."""
    nn = torch.nn

    class Bent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh())
            self.conv, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 8)
            self.before, self.after = nn.LayerNorm(8), nn.LayerNorm(8)
            self.qkv, self.mlp = nn.Linear(8, 24), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
            self.classify = nn.Linear(8, 5)

        def tail(self, a: Any) -> Any:
            a = nn.functional.silu(self.conv(a))
            a = a * torch.sigmoid(self.gate(a.mean(dim=(2, 3))))[:, :, None, None]
            tokens = a.flatten(2).transpose(1, 2)
            q, k, v = self.qkv(self.before(tokens)).chunk(3, dim=-1)
            tokens = tokens + torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1) @ v
            tokens = tokens + self.mlp(self.after(tokens))
            return self.classify(tokens.mean(dim=1))

        def forward(self, x: Any) -> Any:
            return self.tail(self.body(x))

    torch.manual_seed(0)
    return Bent().eval()
