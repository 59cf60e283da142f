"""Ablation-CAM against pytorch-grad-cam on the same weights. Run with `make oracles`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = pytest.mark.oracles

TARGETS = (0, 1, 2, 3)


def network(behind: str) -> Any:
    """A small network whose layer "0" ends in a ReLU, so that pytorch-grad-cam leaves a channel out by 0, too."""
    torch.manual_seed(1)
    nn = torch.nn
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()) if behind == "convolution" else nn.Identity()
    return nn.Sequential(stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.fixture(scope="module")
def library() -> Any:
    from bench import stub_torchvision

    stub_torchvision()
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam: not installed; run `make oracles`")


def theirs(library: Any, module: Any, x: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the map before its ReLU, and the scores."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    tensor, layer = torch.from_numpy(x), module[0]
    scores = module(tensor).detach().numpy()[:, target]
    targets = [ClassifierOutputTarget(target)] * len(x)
    with library.AblationCAM(module, [layer]) as cam:
        cam(input_tensor=tensor, targets=targets)
        activation = cam.activations_and_grads.activations[0].cpu().data.numpy()
        image = cam.get_cam_image(tensor, layer, targets, activation, None, False)
    assert activation.min() == 0
    return image, scores


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("behind", ["pooling", "convolution"])
def test_same_map(library: Any, behind: str, target: int) -> None:
    """They divide by y, and so turn the map of a negative score around; here it is divided by |y|."""
    module = network(behind)
    x = np.random.default_rng(3).standard_normal((2, 3, 16, 20)).astype(np.float32)
    model = exports.export(module, torch.from_numpy(x), "torchscript")
    layer = relus(model)[1]
    with ogc.Explainer(model, layer, providers=["cpu"]) as explainer:
        ours = explainer.explain(x, target=target, method="ablationcam", signed=True).cam
    image, scores = theirs(library, module, x, target)
    expected = image * np.sign(scores)[:, None, None]
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(ours / largest, expected / largest, atol=1e-5)


def relus(model: bytes) -> list[str]:
    """Return what each Relu of a model makes, in order."""
    return [node.output[0] for node in onnx.load_from_string(model).graph.node if node.op_type == "Relu"]
