"""Maps before normalisation, against pytorch-grad-cam on the same weights. Run with `make oracles`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = pytest.mark.oracles

METHODS = {
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "xgradcam": "XGradCAM",
    "elementwise": "GradCAMElementWise",
    "fem": "FEM",
    "kpcacam": "KPCA_CAM",
    "segeigencam": "SegEigenCAM",
}
NETWORKS = ["resnet18", "vgg16", "mobilenet_v2", "densenet121"]


@pytest.fixture(scope="module")
def library() -> Any:
    from bench import stub_torchvision

    stub_torchvision()
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam: not installed; run `make oracles`")


def theirs(library: Any, method: str, module: Any, x: np.ndarray, target: int) -> np.ndarray:
    """relu of what ``get_cam_image`` returns, with the library's own hooks, before it scales anything."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = module.get_submodule(module.last_stage)
    targets = [ClassifierOutputTarget(target)] * len(x)
    with getattr(library, METHODS[method])(module, [layer]) as cam:
        tensor = torch.from_numpy(x)
        cam(input_tensor=tensor, targets=targets)
        hooks = cam.activations_and_grads
        activation = hooks.activations[0].cpu().data.numpy()
        gradient = hooks.gradients[0].cpu().data.numpy() if cam.uses_gradients else None
        image = cam.get_cam_image(tensor, layer, targets, activation, gradient, False)
    return np.maximum(image, 0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_same_map(library: Any, network: str, method: str) -> None:
    module = exports.small(network)
    x = np.random.default_rng(3).standard_normal((3, 3, 64, 64)).astype(np.float32)
    with ogc.Explainer(exports.small_model(network, "torchscript"), providers=["cpu"]) as explainer:
        ours = explainer.explain(x, target=4, method=method).cam
    expected = theirs(library, method, module, x, 4)
    assert expected.max() > 0
    np.testing.assert_allclose(ours / expected.max(), expected / expected.max(), atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("base", ["gradcam", "layercam"])
def test_same_finer_map(library: Any, network: str, base: str) -> None:
    """Of the top-1, against the three classes whose scores are closest, weighted by their softmax."""
    module = exports.small(network)
    x = np.random.default_rng(3).standard_normal((3, 3, 64, 64)).astype(np.float32)
    target = ogc.Finer(by="scores", weighting="softmax", gamma=1)
    with ogc.Explainer(exports.small_model(network, "torchscript"), providers=["cpu"]) as explainer:
        ours = explainer.explain(x, target=target, method=base).cam
    layer = module.get_submodule(module.last_stage)
    with library.FinerCAM(module, [layer], base_method=getattr(library, METHODS[base])) as cam:
        cam(input_tensor=torch.from_numpy(x))
        hooks = cam.base_cam.activations_and_grads
        activation, gradient = hooks.activations[0].cpu().data.numpy(), hooks.gradients[0].cpu().data.numpy()
        image = cam.base_cam.get_cam_image(torch.from_numpy(x), layer, [], activation, gradient, False)
    expected = np.maximum(image, 0)
    assert expected.max() > 0
    np.testing.assert_allclose(ours / expected.max(), expected / expected.max(), atol=1e-5)
