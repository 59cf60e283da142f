"""Attention with a query that may attend to nothing, as torch exports it, against autograd."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")

from exports import export  # noqa: E402  # it imports torch

import onnx_gradcam as ogc  # noqa: E402  # after the skip


class Net(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """Patches, Relu, masked attention by one of three ways to write it, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.patches, self.heads = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Linear(8, 24)
        self.head = torch.nn.Linear(8, 5)
        keep = torch.ones(4, 4, dtype=torch.bool).tril()
        keep[2] = False
        self.register_buffer("keep", keep)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last_stage = torch.relu(self.patches(x))
        tokens = self.last_stage.flatten(2).transpose(1, 2)
        q, k, v = self.heads(tokens).chunk(3, -1)
        if self.kind == "fused":
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.keep)
        else:
            scores = q @ k.transpose(1, 2) / 8**0.5
            weights = scores.masked_fill(~self.keep, -torch.inf).softmax(-1)
            if self.kind == "weights":
                weights = torch.where(torch.isnan(weights), 0.0, weights)
            y = weights @ v
            if self.kind == "values":
                y = torch.where(self.keep.any(-1)[:, None], y, 0.0)
        return self.head((tokens + y).mean(1))


@pytest.mark.parametrize("kind", ["fused", "weights", "values"])
def test_torch(kind: str) -> None:
    """Autograd itself gives NaN where rows are dropped after the values: there the same network stands for it."""
    torch.manual_seed(0)
    net, twin, x = Net(kind).eval(), Net("weights").eval(), torch.randn(2, 3, 8, 8)
    twin.load_state_dict(net.state_dict())
    proto = onnx.load_from_string(export(net, x, "torchscript"))
    layer = next(n.output[0] for n in proto.graph.node if n.op_type == "Relu")
    with ogc.Explainer(proto, target_layer=layer) as explainer:
        found = explainer.explain(x.numpy(), target=1)
    score = twin(x)[:, 1]
    np.testing.assert_allclose(found.score, score.detach().numpy(), atol=1e-6)
    (expected,) = torch.autograd.grad(score.sum(), twin.last_stage)
    np.testing.assert_allclose(found.gradient, expected.numpy(), atol=1e-6)
