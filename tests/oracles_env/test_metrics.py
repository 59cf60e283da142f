"""Metrics of maps, against Quantus and captum on the same inputs. Run with `make oracles`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.copies.baselines import mean_colour
from onnx_gradcam.copies.covering import occlude
from onnx_gradcam.metrics.occlusion import infidelity
from onnx_gradcam.metrics.regions import energy_inside, pointing_game, region_iou
from onnx_gradcam.metrics.removal import deletion
from onnx_gradcam.metrics.road import NOISE, made_up
from onnx_gradcam.metrics.spread import complexity, sparseness
from onnx_gradcam.metrics.stability import RADIUS, SAMPLES, max_sensitivity, random_class

torch = pytest.importorskip("torch", reason="torch: not installed")

pytestmark = [pytest.mark.oracles, pytest.mark.filterwarnings("ignore")]

IMAGES, SIDE = 3, 16
X = np.random.default_rng(0).random((IMAGES, 1, SIDE, SIDE)).astype(np.float32)
MAPS = np.random.default_rng(1).random((IMAGES, 1, SIDE, SIDE)).astype(np.float32)  # no two values are equal
REGIONS = np.random.default_rng(2).random((IMAGES, 1, SIDE, SIDE)) < 0.3
CLASSES = np.array([1, 0, 1])


@pytest.fixture(scope="module")
def quantus() -> Any:
    return pytest.importorskip("quantus", reason="quantus: not installed; run `make oracles`")


@pytest.fixture(scope="module")
def module() -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4 * SIDE * SIDE, 2), torch.nn.Softmax(dim=1)).eval()


def scoring(module: Any, index: int) -> Any:
    def score(copies: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.tensor(copies, dtype=torch.float32))[:, index])

    return score


def explain(module: Any, copies: np.ndarray, index: int) -> np.ndarray:
    """x · ∂y/∂x, its magnitude: (copies, H, W)."""
    x = torch.tensor(copies, dtype=torch.float32, requires_grad=True)
    with torch.enable_grad():  # captum switches it off
        module(x)[:, index].sum().backward()
    return np.abs((x * x.grad).detach().numpy()).sum(axis=1)


def ask(metric: Any, module: Any, **more: Any) -> list[float]:
    """Return what a metric of Quantus says of the maps as they are."""
    return metric(model=module, x_batch=X, y_batch=CLASSES, a_batch=MAPS.copy(), device="cpu", **more)


AS_THEY_ARE: Mapping[str, Any] = {
    "abs": False,
    "normalise": False,
    "disable_warnings": True,
    "display_progressbar": False,
}


@pytest.mark.parametrize(("name", "ours"), [("Sparseness", sparseness), ("Complexity", complexity)])
def test_how_the_values_of_a_map_are_spread(quantus: Any, module: Any, name: str, ours: Any) -> None:
    theirs = ask(getattr(quantus, name)(**AS_THEY_ARE), module)
    np.testing.assert_allclose([ours(m[0]) for m in MAPS], theirs, rtol=1e-4)


def test_energy_is_relevance_mass_accuracy(quantus: Any, module: Any) -> None:
    theirs = ask(quantus.RelevanceMassAccuracy(**AS_THEY_ARE), module, s_batch=REGIONS)
    found = [energy_inside(m[0], r[0]) for m, r in zip(MAPS, REGIONS, strict=True)]
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_iou_is_relevance_rank_accuracy(quantus: Any, module: Any) -> None:
    accuracy = np.array(ask(quantus.RelevanceRankAccuracy(**AS_THEY_ARE), module, s_batch=REGIONS))
    found = [region_iou(m[0], r[0]) for m, r in zip(MAPS, REGIONS, strict=True)]
    np.testing.assert_allclose(found, accuracy / (2 - accuracy), rtol=1e-6)


def test_the_pointing_game(quantus: Any, module: Any) -> None:
    theirs = ask(quantus.PointingGame(**AS_THEY_ARE), module, s_batch=REGIONS)
    assert [pointing_game(m[0], r[0]) for m, r in zip(MAPS, REGIONS, strict=True)] == [float(hit) for hit in theirs]


def test_deletion_is_pixel_flipping(quantus: Any, module: Any) -> None:
    """Eight pixels at a time, which become the mean of their image."""
    baselines = np.stack([mean_colour(x) for x in X]).reshape(IMAGES, -1)

    def replace(arr: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        arr = arr.copy()
        rows = np.arange(len(arr))[:, None]
        arr[rows, indices] = baselines[rows, indices]
        return arr

    metric = quantus.PixelFlipping(**AS_THEY_ARE, features_in_step=8, perturb_func=replace, return_auc_per_sample=False)
    theirs = ask(metric, module)
    for image in range(IMAGES):
        curve = deletion(X[image], MAPS[image, 0], scoring(module, CLASSES[image]), mean_colour(X[image]))
        np.testing.assert_allclose(curve.scores[1:], theirs[image], rtol=1e-5)


def test_pixels_are_made_up_as_by_noisy_linear_imputation(quantus: Any) -> None:
    """Their noise is left out, and ours is taken away again."""
    x = X[:, 0]  # as three channels
    for heatmap in MAPS[:, 0]:
        removed = heatmap > 0.5
        theirs = quantus.perturb_func.noisy_linear_imputation(arr=x, indices=np.flatnonzero(removed), noise=0.0)
        noise = np.random.default_rng(0).standard_normal(x.shape) * NOISE * (x.max() - x.min())
        np.testing.assert_allclose(made_up(x, removed) - np.where(removed, noise, 0), theirs, atol=1e-4)


def test_a_random_class_is_random_logit(quantus: Any, module: Any) -> None:
    """Of two classes the other one is the only one that can be drawn."""

    def theirs_explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        pairs = zip(np.asarray(inputs), np.asarray(targets), strict=True)
        return np.stack([explain(model, x[None], int(t)) for x, t in pairs])

    maps = np.stack([explain(module, x[None], int(t)) for x, t in zip(X, CLASSES, strict=True)])
    metric = quantus.RandomLogit(
        **AS_THEY_ARE, similarity_func=quantus.similarity_func.correlation_spearman, num_classes=2
    )
    theirs = metric(model=module, x_batch=X, y_batch=CLASSES, a_batch=maps, explain_func=theirs_explain, device="cpu")
    found = [random_class(maps[k, 0], explain(module, X[k : k + 1], 1 - CLASSES[k])[0]) for k in range(IMAGES)]
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_infidelity_is_captums_with_the_best_scale(module: Any) -> None:
    """Theirs is not divided by the mean square of the drops."""
    library = pytest.importorskip("captum.metrics", reason="captum: not installed; run `make oracles`")
    for image in range(IMAGES):
        x, index = X[image], int(CLASSES[image])
        occluded = occlude(x, scoring(module, index), mean_colour(x))
        masks = np.zeros((len(occluded.places), 1, SIDE, SIDE), np.float32)
        for k, place in enumerate(occluded.places):
            masks[k, 0][place] = 1
        covered = np.where(masks > 0, mean_colour(x), x)

        def perturb(_: Any, masks: np.ndarray = masks, covered: np.ndarray = covered) -> Any:
            return torch.tensor(masks), torch.tensor(covered)

        theirs = library.infidelity(
            module, perturb, torch.tensor(x[None]), torch.tensor(MAPS[image : image + 1]),
            target=index, n_perturb_samples=len(masks), max_examples_per_batch=len(masks), normalize=True,
        )  # fmt: skip
        found = infidelity(MAPS[image, 0], occluded) * np.square(occluded.drops).mean()
        assert found == pytest.approx(float(theirs), rel=1e-3)


def adding(noise: np.ndarray) -> Any:
    """Return a function of one argument: to a second one captum would give its radius."""
    return lambda inputs: inputs + torch.tensor(noise, dtype=torch.float32)


def test_max_sensitivity_is_captums(module: Any) -> None:
    """For the same noise."""
    library = pytest.importorskip("captum.metrics", reason="captum: not installed; run `make oracles`")
    for image in range(IMAGES):
        x, index = X[image], int(CLASSES[image])
        spread = RADIUS * (x.max() - x.min())
        noise = np.random.default_rng(0).uniform(-1, 1, (SAMPLES, *x.shape)) * spread

        def attribute(inputs: Any, index: int = index) -> Any:
            if isinstance(inputs, tuple):  # the image itself; its copies come as a tensor
                return tuple(attribute(each) for each in inputs)
            return torch.tensor(explain(module, inputs.detach().numpy(), index))

        theirs = library.sensitivity_max(
            attribute, torch.tensor(x[None]), perturb_func=adding(noise), n_perturb_samples=SAMPLES,
            max_examples_per_batch=SAMPLES,
        )  # fmt: skip
        own = explain(module, x[None], index)[0]
        found = max_sensitivity(x, own, lambda copies, index=index: explain(module, copies, index))
        assert found == pytest.approx(float(theirs), rel=1e-4)
