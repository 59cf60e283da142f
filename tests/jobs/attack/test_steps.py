"""Steps of an attack against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.jobs.attack.steps import NORMS, Array, Room, changed_by, fgsm, length, moved, pgd

FREE = np.ones((1, 1), bool)
PIXELS = Room(np.full((1, 1), 0.5), np.zeros((1, 1)), np.full((1, 1), 127.5), FREE)
"""A grey level is 0.5 in the input: white is 127.5."""
ENDLESS = Room(np.ones((1, 1)), np.full((1, 1), -np.inf), np.full((1, 1), np.inf), FREE)
X = np.array([[10.0, 127.0, 0.25]])


def constant(*values: float) -> Array:
    return np.array([values])


def test_fgsm_moves_each_value_by_epsilon_and_stays_within_the_pixels() -> None:
    attacked = fgsm(X, lambda x: constant(3.0, 0.1, -2.0), PIXELS, 4.0)
    np.testing.assert_array_equal(attacked, [[12.0, 127.5, 0.0]])  # 4 levels are 2; 1 and 0.5 levels were left
    np.testing.assert_array_equal(changed_by(X, attacked, PIXELS), [[4.0, 1.0, -0.5]])
    np.testing.assert_array_equal(length(changed_by(X, attacked, PIXELS), "linf"), [4.0])


def test_fgsm_of_l2_goes_along_the_gradient_by_grey_levels() -> None:
    attacked = fgsm(X, lambda x: constant(6.0, 0.0, 8.0), PIXELS, 10.0, "l2")
    np.testing.assert_allclose(attacked, [[10 + 3.0, 127.0, 0.25 + 4.0]])  # 10 · (0.6, 0, 0.8) levels of 0.5
    np.testing.assert_allclose(length(changed_by(X, attacked, PIXELS), "l2"), [10.0])


def test_units_of_their_own_change_the_direction_of_l2_alone() -> None:
    room = Room(np.array([[1.0, 2.0]]), np.full((1, 2), -np.inf), np.full((1, 2), np.inf), FREE)
    x = np.zeros((1, 2))
    np.testing.assert_allclose(fgsm(x, lambda x: constant(6.0, 4.0), room, 10.0, "l2"), [[6.0, 16.0]])  # g·unit: 6, 8
    np.testing.assert_array_equal(fgsm(x, lambda x: constant(6.0, 4.0), room, 10.0), [[10.0, 20.0]])


def test_projections() -> None:
    change = np.array([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_array_equal(NORMS["linf"].project(change, 2.0), [[2.0, -2.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(NORMS["l2"].project(change, 2.5), [[1.5, -2.0], [0.3, 0.4], [0.0, 0.0]], rtol=1e-12)


def test_pgd_walks_to_the_edge_of_the_ball_and_along_it() -> None:
    def towards(x: Array) -> Array:
        return np.array([[1.0, 0.0]]) - x * [[0.0, 1.0]]  # on along the first axis, back to 0 along the second

    x = np.array([[0.0, 0.5]])
    attacked = pgd(x, towards, ENDLESS, 1.0, steps=3, step_size=0.4, random_start=False)
    # first axis: 0.4, 0.8, 1.2 → 1.0; second: 0.5 → 0.1 → −0.3 → 0.1
    np.testing.assert_allclose(attacked, [[1.0, 0.1]], atol=1e-12)


def test_pgd_of_l2_by_hand() -> None:
    x = np.zeros((1, 2))
    attacked = pgd(x, lambda x: constant(3.0, 4.0), ENDLESS, 1.0, "l2", steps=2, step_size=0.75, random_start=False)
    np.testing.assert_allclose(attacked, [[0.6, 0.8]], rtol=1e-12)  # 0.75, then 1.5, which goes back to 1


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_is_seeded_lies_in_the_ball_and_does_not_depend_on_the_batch(norm: str) -> None:
    x = np.zeros((3, 50))

    def start(x: Array, seed: int) -> Array:
        return pgd(x, np.zeros_like, ENDLESS, 2.0, norm, steps=1, seed=seed)

    first = start(x, 0)
    np.testing.assert_array_equal(first, start(x, 0))
    np.testing.assert_array_equal(first[:2], start(x[:2], 0))
    assert (length(first, norm) <= 2.0).all()
    assert (length(first, norm) > 1.0).all()
    assert not np.array_equal(first, start(x, 1))
    assert not np.array_equal(first[0], first[1])


def test_what_lies_outside_the_pixels_already_may_stay_there_and_comes_back() -> None:
    x = np.array([[128.0, 128.0, -1.0]])
    attacked = fgsm(x, lambda x: constant(1.0, -1.0, -1.0), PIXELS, 4.0)
    np.testing.assert_array_equal(attacked, [[128.0, 126.0, -1.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rounding_never_makes_a_change_larger(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, (1, 500)).astype(dtype)
    room = Room(np.full((1, 1), 1 / 57.0), np.zeros((1, 1)), np.full((1, 1), 9.0), FREE)
    for norm in NORMS:
        attacked = fgsm(x, lambda x: rng.standard_normal(x.shape), room, 4.0, norm)
        assert attacked.dtype == dtype
        assert length(changed_by(x, attacked, room), norm)[0] <= 4.0 * (1 + 1e-12)
        assert length(changed_by(x, attacked, room), norm)[0] > (3.9 if norm == "linf" or dtype is np.float32 else 2)


def test_what_is_not_free_stays_to_the_bit() -> None:
    room = Room(np.ones((1, 1)), np.zeros((1, 1)), np.full((1, 1), 0.5), np.array([[True, False]]))
    x = np.array([[0.4, 0.9]], np.float32)
    attacked = moved(x, np.full((1, 2), 0.3), room)
    np.testing.assert_array_equal(attacked, np.array([[0.5, 0.9]], np.float32))
    assert attacked.dtype == np.float32
    np.testing.assert_allclose(fgsm(x, lambda x: constant(1.0, 100.0), room, 0.05, "l2"), [[0.45, 0.9]], rtol=1e-6)
