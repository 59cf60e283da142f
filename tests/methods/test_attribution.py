"""The functions on arrays, by hand."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from onnx_gradcam.methods import attribution as methods
from onnx_gradcam.methods.attribution import ATTRIBUTIONS


def test_the_variance_survives_a_large_mean() -> None:
    """In float32, squares of 10⁴ hold no more than 8 digits: 1 beside 10⁸."""
    pieces = [np.array([[[1e4]], [[1e4 + 1]]], np.float32), np.array([[[1e4 + 2]]], np.float32)]
    found = methods.vargrad(np.array([[[0.0]]]), np.array([0]), lambda _: pieces)
    np.testing.assert_allclose(found, [[2 / 3]], rtol=1e-6)


def test_fullgrad_of_a_coarse_bias() -> None:
    """Two channels; a bias map of half the size is enlarged linearly and shared out between them."""
    x = np.array([[[1.0, -2, 3, 4], [0, 1, 1, 0]]])
    gradient = np.full((1, 2, 4), -0.5)
    bias = np.array([[[0.0, 4.0], [-2.0, 0.0]]])
    found = methods.fullgrad(x, gradient, [bias], (2,))
    enlarged = np.array([2, 2.5, 3.5, 4])
    np.testing.assert_allclose(found, np.abs(0.5 * x) + enlarged / 2)
    np.testing.assert_allclose(
        methods.reduce_to_space("fullgrad", found, (2,), False), [[0.5 + 2, 1.5 + 2.5, 2 + 3.5, 2 + 4]]
    )


@pytest.mark.parametrize("space", [(2, 3), (1, 2), (3, 1)])
def test_in_space(space: tuple[int, int]) -> None:
    """By loops: the largest magnitude over channels, or their sum; space may lie anywhere."""
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    (channel,) = {1, 2, 3} - set(space)
    largest, total = (methods.reduce_to_space("saliency", a, space, signed) for signed in (False, True))
    assert largest.shape == total.shape == (2, a.shape[space[0]], a.shape[space[1]])
    for row, i, j in np.ndindex(*largest.shape):
        at = {0: row, space[0]: i, space[1]: j}
        values = [a[tuple({**at, channel: c}[k] for k in range(4))] for c in range(a.shape[channel])]
        assert largest[row, i, j] == max(abs(v) for v in values)
        np.testing.assert_allclose(total[row, i, j], sum(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", [(2, 3), (1, 2), (3, 1)])
def test_a_product_with_a_heatmap(space: tuple[int, int]) -> None:
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    heatmap = np.random.default_rng(1).random((2, a.shape[space[0]], a.shape[space[1]]))
    found = methods.guided(heatmap, a, space)
    for at in np.ndindex(*a.shape):
        assert found[at] == heatmap[at[0], at[space[0]], at[space[1]]] * a[at]


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_the_first_line_holds_formula_and_source(method: str) -> None:
    formula, source = (inspect.getdoc(ATTRIBUTIONS[method]) or "").splitlines()[0].split("   ")
    assert formula
    assert any(c.isdigit() for c in source)


def test_options() -> None:
    assert methods.options_of("integrated-gradients") == {"steps": 50, "baseline": 0.0}
    assert methods.options_of("smoothgrad") == {"samples": 25, "noise": 0.15, "seed": 0}
    assert methods.options_of("saliency") == {}
