"""Attributions of the input, against captum on the same weights. Run with `make oracles`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear"),
]

# Networks whose only rectifiers are ReLUs: captum leaves others alone without a word.
NETWORKS = ["alexnet", "vgg16", "resnet18", "resnet50", "densenet121", "googlenet"]
METHODS = ["saliency", "input-x-gradient", "guided-backprop", "deconvolution", "integrated-gradients"]
STEPS = 10
TARGETS = [4, 0, 11]
COSINE = 0.9999


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    return exports.small(request.param)


@pytest.fixture(scope="module")
def explainer(network: Any) -> Iterator[Any]:
    name = next(name for name in NETWORKS if exports.small(name) is network)
    with ogc.Explainer(exports.small_model(name, "torchscript"), providers=["cpu"]) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def x(network: Any) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((3, 3, network.size, network.size)).astype(np.float32)


def theirs(library: Any, module: Any, method: str, x: np.ndarray) -> np.ndarray:
    """In float64."""
    module = copy.deepcopy(module).double()
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    attribute = {
        "saliency": lambda: library.Saliency(module).attribute(tensor, TARGETS, abs=False),
        "input-x-gradient": lambda: library.InputXGradient(module).attribute(tensor, TARGETS),
        "guided-backprop": lambda: library.GuidedBackprop(module).attribute(tensor, TARGETS),
        "deconvolution": lambda: library.Deconvolution(module).attribute(tensor, TARGETS),
        "integrated-gradients": lambda: library.IntegratedGradients(module).attribute(
            tensor, 0, TARGETS, n_steps=STEPS, method="riemann_middle"
        ),
    }[method]
    found: np.ndarray = attribute().detach().numpy()
    return found


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of every row; of a row that is blank in both, 1."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    assert a.any()
    blank = (~a.any(axis=1) & ~b.any(axis=1))[:, None]
    a, b = a + blank, b + blank
    found: np.ndarray = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def agree(ours: np.ndarray, expected: np.ndarray) -> None:
    """In direction, and in length."""
    assert cosines(ours, expected).min() >= COSINE
    lengths = [np.linalg.norm(v.reshape(len(v), -1).astype(np.float64), axis=1) for v in (ours, expected)]
    np.testing.assert_allclose(*lengths, rtol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_same_attribution(library: Any, network: Any, explainer: Any, x: np.ndarray, method: str) -> None:
    options = {"steps": STEPS} if method == "integrated-gradients" else {}
    ours = explainer.explain(x, TARGETS, method, **options).attribution
    agree(ours, theirs(library, network, method, x))


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_rule_would_be_seen(library: Any, network: Any, explainer: Any, x: np.ndarray, method: str) -> None:
    """Every other method is farther away than the tolerance."""
    expected = theirs(library, network, method, x)
    for other in METHODS:
        if other != method:
            assert cosines(explainer.explain(x, TARGETS, other).attribution, expected).min() < COSINE


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_guided_gradcam(library: Any, network: Any, explainer: Any, x: np.ndarray, mode: str) -> None:
    """captum's default upsampling repeats pixels; ours is bilinear, which it can do, too."""
    module = copy.deepcopy(network).double()
    oracle = library.GuidedGradCam(module, module.get_submodule(module.last_stage))
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = oracle.attribute(tensor, TARGETS, interpolate_mode=mode).detach().numpy()
    ours = explainer.explain(x, TARGETS, "guided-gradcam")
    if mode == "bilinear":
        found = ours.attribution * ours.layer.cam.max(axis=(1, 2))[:, None, None, None]
        assert cosines(found, expected).min() >= COSINE
        return
    size = network.size
    edges = explainer.explain(x, TARGETS, "guided-backprop").attribution
    nearest = torch.nn.functional.interpolate(torch.tensor(ours.cam[:, None]), (size, size), mode="nearest").numpy()
    agree(nearest * edges, expected)


@pytest.mark.parametrize("method", ["guided-backprop", "deconvolution"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "efficientnet_b0"])
def test_rectifiers_that_captum_leaves_alone(library: Any, name: str, method: str) -> None:
    """Gating ReLU alone gives captum's attribution, also where there is none to gate; gating all does not."""
    module = exports.small(name)
    x = np.random.default_rng(3).standard_normal((3, 3, module.size, module.size)).astype(np.float32)
    expected = theirs(library, module, method, x)
    with ogc.Explainer(exports.small_model(name, "torchscript"), providers=["cpu"]) as explainer:
        agree(explainer.explain(x, TARGETS, method, rectifiers="relu").attribution, expected)
        assert cosines(explainer.explain(x, TARGETS, method).attribution, expected).max() < 0.9
