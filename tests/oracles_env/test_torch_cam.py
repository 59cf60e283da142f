"""LeGrad and Finer-CAM before normalisation, against torch-cam on the same weights. Run with `make oracles`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = [pytest.mark.oracles, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def library() -> Any:
    from bench import stub_torchvision

    stub_torchvision()
    return pytest.importorskip("torchcam.methods", reason="torchcam: not installed; run `make oracles`")


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert theirs.max() > 0
    np.testing.assert_allclose(ours / theirs.max(), theirs / theirs.max(), atol=1e-5)


class Block(torch.nn.Module):  # type: ignore[misc]
    """A block as torch-cam wants it: its attention is called ``self_attention``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.self_attention = torch.nn.MultiheadAttention(width, 2, batch_first=True)
        layers = torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width)
        self.mlp = torch.nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        y = self.norm1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Tokens(torch.nn.Module):  # type: ignore[misc]
    """A ViT of three blocks with a class token."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, width, 8, 8)
        self.first = torch.nn.Parameter(torch.randn(1, 1, width))
        self.position = torch.nn.Parameter(torch.randn(1, 17, width))
        self.blocks = torch.nn.Sequential(*(Block(width) for _ in range(3)))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, 7)

    def forward(self, x: Any) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@pytest.mark.parametrize("blocks", [0, 2])
def test_same_legrad(library: Any, blocks: int) -> None:
    torch.manual_seed(0)
    module, x = Tokens().eval(), torch.randn(2, 3, 32, 32)
    with ogc.Explainer(exports.export(module, x, "torchscript"), providers=["cpu"]) as explainer:
        ours = explainer.explain(x.numpy(), 3, "legrad", blocks=blocks).cam

    def head(tokens: Any) -> Any:
        return module.head(module.norm(tokens.mean(1)))

    with library.LeGrad(module, list(module.blocks)[-blocks:], score_projection=head) as extractor:
        scores = module(x)
        theirs = extractor(3, scores, normalized=False)[0].detach().numpy()
    close(ours, theirs)


@pytest.mark.parametrize(("base", "name"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_same_finer_map(library: Any, base: str, name: str) -> None:
    module = exports.small("resnet18")
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 64)).astype(np.float32)
    with ogc.Explainer(exports.small_model("resnet18", "torchscript"), providers=["cpu"]) as explainer:
        ours = explainer.explain(x, ogc.Finer(4, by="scores"), base)
    layer = module.get_submodule(module.last_stage)
    with library.FinerCAM(module, layer, base_method=getattr(library, name)) as extractor:
        scores = module(torch.from_numpy(x))
        theirs = extractor(class_idx=4, scores=scores, normalized=False)[0].detach().numpy()
    close(ours.cam, theirs)
