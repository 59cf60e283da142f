"""Methods that change the input, against captum and pytorch-grad-cam on the same weights. Run with `make oracles`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.copies.baselines import mean_colour
from onnx_gradcam.methods.perturbation.superpixels import superpixels
from onnx_gradcam.methods.perturbation.surrogate import coalitions

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = pytest.importorskip("exports")

pytestmark = [pytest.mark.oracles, pytest.mark.filterwarnings("ignore")]

TARGETS = [4, 0]
SAMPLES, SEGMENTS, SEED = 80, 12, 3


@pytest.fixture(scope="module")
def captum() -> Any:
    return pytest.importorskip("captum.attr", reason="captum: not installed; run `make oracles`")


@pytest.fixture(scope="module")
def module() -> Any:
    return copy.deepcopy(exports.small("resnet18")).double()


@pytest.fixture(scope="module")
def explainer() -> Iterator[Any]:
    with ogc.Explainer(exports.small_model("resnet18", "torchscript"), providers=["cpu"]) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2, 3, 64, 64)).astype(np.float32)


def agree(ours: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-5)


@pytest.mark.parametrize(("window", "stride", "baseline"), [(16, 8, 0.0), (13, 13, 0.5), (20, 7, -1.0)])
def test_occlusion(
    captum: Any, module: Any, explainer: Any, x: np.ndarray, window: int, stride: int, baseline: float
) -> None:
    sides, steps = (3, window, window), (3, stride, stride)
    theirs = captum.Occlusion(module).attribute(
        torch.tensor(x, dtype=torch.float64), sides, steps, baselines=baseline, target=TARGETS
    )
    options = {"window": window, "stride": stride, "baseline": baseline}
    agree(explainer.explain(x, target=TARGETS, method="occlusion", **options).attribution, theirs.numpy())


def kept_by_lime(parts: int) -> np.ndarray:
    kept = np.random.default_rng(SEED).random((SAMPLES, parts)) < 0.5
    kept[0] = True
    return kept


def in_turn(kept: np.ndarray) -> Any:
    """What captum asks for its samples."""

    def generate(inputs: Any, **_: Any) -> Iterator[Any]:
        for row in kept:
            yield torch.tensor(row[None], dtype=torch.float64)

    return generate


@pytest.mark.parametrize("image", [0, 1])
def test_lime(captum: Any, module: Any, explainer: Any, x: np.ndarray, image: int) -> None:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    parts = superpixels(x[image], SEGMENTS)
    kept = kept_by_lime(int(parts.max()) + 1)
    cosine = get_exp_kernel_similarity_function("cosine", 0.25)

    def similarity(original: Any, changed: Any, row: Any, **_: Any) -> float:
        return cosine(torch.ones_like(row), row, row) if row.any() else float(np.exp(-1 / (2 * 0.25**2)))

    base = captum.LimeBase(
        module,
        SkLearnRidge(alpha=1.0),
        similarity,
        in_turn(kept),
        True,
        lambda row, original, **_: torch.where(
            row[0][torch.tensor(parts)].bool(), original, torch.tensor(mean_colour(x[image]).astype(np.float64))
        ),
        None,
    )
    one = torch.tensor(x[image][None], dtype=torch.float64)
    theirs = base.attribute(one, target=TARGETS[image], n_samples=SAMPLES)
    options = {"samples": SAMPLES, "segments": SEGMENTS, "seed": SEED}
    ours = explainer.explain(x[image][None], target=TARGETS[image], method="lime", **options).attribution
    agree(ours[0, 0], theirs.numpy().ravel()[parts])


def test_kernel_shap(captum: Any, module: Any, explainer: Any, x: np.ndarray) -> None:
    parts = superpixels(x[0], SEGMENTS)
    players = int(parts.max()) + 1
    ends = np.array([[True] * players, [False] * players])
    shap = captum.KernelShap(module)
    shap.inf_weight = 1e8  # captum holds both ends by a weight; at its own 1e6 they are off by 2e-5
    shap.perturb_func = in_turn(np.concatenate([ends, coalitions(players, SAMPLES, SEED)]))
    theirs = shap.attribute(
        torch.tensor(x[:1], dtype=torch.float64),
        target=TARGETS[0],
        n_samples=SAMPLES + 2,
        feature_mask=torch.tensor(parts)[None],
        baselines=torch.tensor(mean_colour(x[0])[None].astype(np.float64)),
    )
    options = {"samples": SAMPLES, "segments": SEGMENTS, "seed": SEED}
    ours = explainer.explain(x[:1], target=TARGETS[0], method="kernel-shap", **options).attribution
    agree(ours, theirs.numpy())


def test_scorecam_where_the_layer_has_the_resolution_of_the_input() -> None:
    """pytorch-grad-cam aligns the corners of what it enlarges; where nothing is enlarged the definition is ours."""
    from bench import stub_torchvision

    stub_torchvision()
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam: not installed; run `make oracles`")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(1)
    layers = [torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(6, 9, 3, padding=1)]
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(9, 5)]
    module = torch.nn.Sequential(*layers, torch.nn.ReLU(), *head).eval()
    x = np.random.default_rng(5).random((2, 3, 20, 20)).astype(np.float32)
    model = exports.export(module, torch.tensor(x), "torchscript")
    targets = [ClassifierOutputTarget(k) for k in TARGETS]
    with library.ScoreCAM(module, [module[3]]) as cam:
        tensor = torch.from_numpy(x)
        cam(input_tensor=tensor, targets=targets)
        activation = cam.activations_and_grads.activations[0].cpu().data.numpy()
        image = cam.get_cam_image(tensor, module[3], targets, activation, None, False)
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        ours = explainer.explain(x, target=TARGETS, method="scorecam", baseline=0).cam
    agree(ours, np.maximum(image, 0))
