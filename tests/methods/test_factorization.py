"""Non-negative factorisation of activations: planted concepts, the order and scale of what is found, and its error."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.factorization import deep_feature_factorization, factors


def planted(space: tuple[int, ...], images: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three concepts of 6 channels, each in places of its own; their strengths fall from the first to the last."""
    rng = np.random.default_rng(0)
    vectors = np.array([[4.0, 2, 0, 0, 0, 0], [0, 0, 3, 1, 0, 0], [0, 0, 0, 0, 1, 0.5]])
    owner = rng.permutation(np.arange(images * int(np.prod(space))) % 3).reshape(images, *space)
    maps = np.stack([(owner == k) * rng.uniform(0.2, 1, owner.shape) for k in range(3)], axis=1)
    maps /= maps.max(axis=(0, *range(2, maps.ndim)), keepdims=True)
    activation = np.einsum("kc,nk...->nc...", vectors, maps)
    return activation.astype(np.float32), vectors, maps


@pytest.mark.parametrize("space", [(12,), (4, 5), (2, 3, 3)], ids=len)
def test_planted_concepts_come_back(space: tuple[int, ...]) -> None:
    activation, vectors, maps = planted(space)
    found = deep_feature_factorization(activation, concepts=3)
    np.testing.assert_allclose(found.vectors, vectors, atol=1e-3)
    np.testing.assert_allclose(found.maps, maps, atol=1e-3)
    parts = np.array([vectors[k].sum() * maps[:, k].sum() for k in range(3)])
    np.testing.assert_allclose(found.shares, parts / parts.sum(), atol=1e-3)
    assert found.maps.max() == pytest.approx(1)


def test_the_least_of_each_channel_is_taken_off_and_added_again() -> None:
    activation, vectors, maps = planted((4, 5))
    offset = np.array([-3.0, 0.5, 0, 7, -1, 0], np.float32)
    found = deep_feature_factorization(activation + offset[:, None, None], concepts=3)
    np.testing.assert_allclose(found.maps, maps, atol=1e-3)
    np.testing.assert_allclose(found.vectors, vectors + offset, atol=2e-3)


def test_the_error_falls_with_every_update_and_ends_near_the_best_rank() -> None:
    """Of values without any structure the best factorisation of rank k is that of the first k singular values."""
    values = np.random.default_rng(1).uniform(size=(20, 60)).astype(np.float32)
    w, m = factors(values, 4)
    assert w.min() >= 0
    assert m.min() >= 0
    error = np.linalg.norm(values - w @ m)
    singular = np.linalg.svd(values, compute_uv=False)
    assert np.sqrt((singular[4:] ** 2).sum()) <= error <= 1.06 * np.sqrt((singular[4:] ** 2).sum())


def test_every_run_finds_the_same() -> None:
    activation = np.abs(np.random.default_rng(2).normal(size=(1, 8, 5, 5))).astype(np.float32)
    first, again = (deep_feature_factorization(activation, concepts=3) for _ in range(2))
    np.testing.assert_array_equal(first.maps, again.maps)


def test_an_activation_of_zeros_has_empty_concepts() -> None:
    found = deep_feature_factorization(np.zeros((1, 3, 2, 2), np.float32), concepts=2)
    for part in found:
        np.testing.assert_array_equal(part, np.zeros_like(part))


def test_on_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    activation, _, _ = planted((4, 5))
    ours, theirs = deep_feature_factorization(activation), deep_feature_factorization(torch.tensor(activation))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.numpy(), a, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"concepts": 0}, "0 concepts of 4"), ({"concepts": 5}, "5 concepts of 4"), ({"concepts": 1.5}, "1.5 concepts")],
)
def test_options_out_of_range(options: dict[str, float], what: str) -> None:
    with pytest.raises(MethodError, match=what):
        deep_feature_factorization(np.ones((1, 4, 3, 3), np.float32), **options)  # type: ignore[arg-type]
