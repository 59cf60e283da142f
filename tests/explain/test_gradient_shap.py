"""GradientSHAP against its definition with the same random numbers, and the words for baselines."""

from __future__ import annotations

from typing import Any

import naive_net
import numpy as np
import pytest
from measures import close

import onnx_gradcam as ogc
from onnx_gradcam.errors import MethodError

W = naive_net.weights()
X = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)
TARGETS = [2, 0, 3]
CLASSES = np.array(TARGETS)
METHOD = "gradient-shap"


def naive(x: np.ndarray, starts: np.ndarray, samples: int, noise: float, seed: int) -> np.ndarray:
    """The mean over the samples, in float64; ``starts`` (K, …) are the baselines."""
    wide = x.astype(np.float64)
    total = np.zeros(x.shape)
    spread = wide.max(axis=(1, 2, 3), keepdims=True) - wide.min(axis=(1, 2, 3), keepdims=True)
    for number in range(samples):
        rng = np.random.default_rng([seed, number])
        share, start = rng.random(), starts[rng.integers(len(starts))]
        end = wide + noise * spread * rng.standard_normal(x.shape[1:]) if noise else wide
        total += (end - start) * naive_net.backward(W, start + share * (end - start), CLASSES).x
    return total / samples


@pytest.mark.parametrize(("samples", "noise", "seed"), [(1, 0, 0), (7, 0, 3), (5, 0.1, 1)])
def test_the_definition(explainer: Any, samples: int, noise: float, seed: int) -> None:
    found = explainer.explain(X, TARGETS, METHOD, samples=samples, noise=noise, seed=seed, baseline=0.25)
    close(found.attribution, naive(X, np.full((1, *X.shape), 0.25), samples, noise, seed))


def test_each_sample_draws_one_of_several_baselines(explainer: Any) -> None:
    starts = np.random.default_rng(2).standard_normal((4, 1, 3, 6, 6)).astype(np.float32)
    found = explainer.explain(X, TARGETS, METHOD, samples=9, baseline=starts)
    close(found.attribution, naive(X, np.broadcast_to(starts, (4, *X.shape)), 9, 0, 0))
    scores = [naive_net.forward(W, np.broadcast_to(b, X.shape)).scores[range(3), CLASSES] for b in starts]
    difference = naive_net.forward(W, X).scores[range(3), CLASSES] - np.mean(scores, axis=0)
    np.testing.assert_allclose(found.completeness.difference, difference, atol=1e-6)


def test_an_image_gets_the_same_numbers_in_a_batch_as_alone(explainer: Any) -> None:
    together = explainer.explain(X, TARGETS, METHOD, samples=4, noise=0.2).attribution
    for row, target in enumerate(TARGETS):
        alone = explainer.explain(X[row : row + 1], target, METHOD, samples=4, noise=0.2).attribution
        close(together[row], alone[0])


def test_many_samples_come_to_integrated_gradients(explainer: Any) -> None:
    few = explainer.explain(X, TARGETS, METHOD, samples=1, baseline=3)
    assert "more samples come nearer (--option samples=200)" in " ".join(few.warnings)
    many = explainer.explain(X, TARGETS, METHOD, samples=4000).attribution
    exact = explainer.explain(X, TARGETS, "integrated-gradients", steps=400).attribution
    assert np.linalg.norm(many - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 2.5}, {"noise": -1}, {"seed": -1}])
def test_options_out_of_range(explainer: Any, options: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=f"option '{next(iter(options))}'"):
        explainer.explain(X, TARGETS, METHOD, **options)


@pytest.mark.parametrize("method", ["integrated-gradients", METHOD])
def test_the_mean_colour_as_a_baseline(explainer: Any, method: str) -> None:
    expected = explainer.explain(X, TARGETS, method, baseline=X.mean(axis=(2, 3), keepdims=True)).attribution
    close(explainer.explain(X, TARGETS, method, baseline="mean").attribution, expected)
    with ogc.Explainer(naive_net.model(W, channels_last=True), providers=["cpu"]) as last:
        x = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
        found = last.explain(x, TARGETS, method, baseline="mean").attribution
    close(found, expected.transpose(0, 2, 3, 1))


def test_the_blurred_image_as_a_baseline(explainer: Any) -> None:
    """σ is 0.05 · 6 = 0.3 pixels, cut at 3 σ: no neighbour counts, and nothing is left to explain."""
    found = explainer.explain(X, TARGETS, "integrated-gradients", steps=3, baseline="blur")
    assert not found.attribution.any()


def test_an_unknown_word_is_refused(explainer: Any) -> None:
    with pytest.raises(MethodError, match="'mean', 'blur'"):
        explainer.explain(X, TARGETS, METHOD, baseline="grey")
