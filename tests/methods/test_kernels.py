"""Kernels, their eigenvectors, and what KPCA-CAM makes of them."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
from cam_cases import assert_close, sample

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods import eigenvectors
from onnx_gradcam.methods.cam import compute_cam
from onnx_gradcam.methods.eigenvectors import top_eigenpair

GAMMA = 0.3
NAIVE = {
    "sigmoid": lambda p, q: math.tanh(GAMMA * p @ q + 1),
    "rbf": lambda p, q: math.exp(-GAMMA * np.sum((p - q) ** 2)),
    "poly": lambda p, q: (GAMMA * p @ q + 1) ** 3,
    "cosine": lambda p, q: p @ q / math.sqrt((p @ p) * (q @ q)),
    "linear": lambda p, q: p @ q,
}


@pytest.mark.parametrize("kernel", NAIVE)
def test_every_kernel(kernel: str) -> None:
    activation, _ = sample("kpcacam", (3, 4), seed=3, n=1)
    cam = compute_cam("kpcacam", activation, None, options={"kernel": kernel, "gamma": GAMMA})[1]
    points = activation[0].reshape(len(activation[0]), -1).T
    expected = oracles.kernel_component(points - points.mean(axis=0), NAIVE[kernel], (3, 4))
    assert_close(cam[0], np.maximum(expected, 0), 2e-6)


def test_the_linear_kernel_is_eigencam() -> None:
    activation, _ = sample("eigencam", (4, 5), seed=4)
    cams = compute_cam("kpcacam", activation, None, options={"kernel": "linear"})[1]
    for image, cam in zip(activation, cams, strict=True):
        eigen = oracles.principal_component(image)
        turned = eigen * np.sign(eigen.flat[np.abs(eigen).argmax()])
        assert_close(cam, np.maximum(turned, 0), 2e-6)


@pytest.mark.parametrize("values", [(5, 3, -4), (3, -5, 1), (2, -2, 1), (1, 0.99, -1.5)], ids=str)
def test_the_largest_eigenvalue_and_not_the_largest_magnitude(values: tuple[float, ...]) -> None:
    axes = np.linalg.qr(np.random.default_rng(5).normal(size=(7, 3)))[0]
    matrix = (axes * values) @ axes.T
    vector, value = top_eigenpair(matrix[None])
    assert value[0, 0, 0] == pytest.approx(max(values), rel=1e-6)
    assert abs(vector[0, :, 0] @ axes[:, np.argmax(values)]) == pytest.approx(1, abs=1e-6)


def test_a_long_matrix_is_looked_at_in_a_krylov_space() -> None:
    """RBF kernel of 600 points, whose second eigenvalue is within a few percent of the first."""
    points = np.random.default_rng(6).normal(size=(600, 4))
    squares = (points**2).sum(axis=1)
    kernel = np.exp(-0.1 * (squares[:, None] + squares - 2 * points @ points.T))
    kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    assert len(kernel) > eigenvectors.LONGEST
    vector, value = top_eigenpair(kernel[None])
    values, vectors = np.linalg.eigh(kernel)
    assert values[-2] > 0.8 * values[-1]
    assert value[0, 0, 0] == pytest.approx(values[-1], rel=1e-10)
    assert abs(vector[0, :, 0] @ vectors[:, -1]) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"kernel": "sigmod"}, "unknown kernel 'sigmod'"),
        ({"gamma": 0}, "gamma 0"),
        ({"gamma": float("nan")}, "gamma nan"),
    ],
)
def test_options_out_of_range(options: dict[str, object], what: str) -> None:
    with pytest.raises(MethodError, match=what):
        compute_cam("kpcacam", np.ones((1, 2, 3, 3)), None, options=options)


def test_too_many_positions_have_a_way_out() -> None:
    with pytest.raises(MethodError, match="this layer has 4225 positions") as error:
        compute_cam("kpcacam", np.zeros((1, 1, 65, 65)), None)
    assert "'eigencam'" in (error.value.hint or "")


@pytest.mark.parametrize(("method", "options"), [("fem", {"sigmas": -1}), ("randomcam", {"seed": 0.5})])
def test_other_options_out_of_range(method: str, options: dict[str, object]) -> None:
    with pytest.raises(MethodError, match=f"method '{method}' with {next(iter(options))}"):
        compute_cam(method, np.ones((1, 2, 3)), None, options=options)


def test_the_option_of_fem_moves_its_threshold() -> None:
    """Mean 1, deviation 1.5: with 0 σ the positions above 1 count, with 1 σ those above 2.5."""
    activation = np.array([[[0.0, 0, 0, 4, 1]]])
    for sigmas, share in ((0, 1 / 5), (1, 1 / 5), (2.1, 0)):
        weights = compute_cam("fem", activation, None, options={"sigmas": sigmas})[0]
        np.testing.assert_allclose(weights, [[[share]]], rtol=1e-6)


def test_the_numbers_of_randomcam_come_from_its_seed_alone() -> None:
    activation = np.random.default_rng(7).normal(size=(2, 5, 3, 3))
    first, again, other = (compute_cam("randomcam", activation, None, options={"seed": s})[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], first[1])
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first).max() <= 1
