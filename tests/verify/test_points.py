"""Where derivatives are compared."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.verify.points import BLOCK, cotangents, normal, off_kinks, scale_of


def test_scale() -> None:
    assert scale_of(np.array([3, -4], np.float32)) == np.sqrt(12.5)
    assert scale_of(np.zeros(5, np.float32)) == 1


def test_off_kinks_moves_away_from_zero_by_half_to_all_of_the_distance() -> None:
    a = np.array([0, 0, 5, -5, 1e-4, -1e-4] * 50, np.float32)
    moved = off_kinks(a, 0.1, np.random.default_rng(0))
    by = np.abs(moved) - np.abs(a)
    low, high = 0.05 * scale_of(a), 0.1 * scale_of(a)
    last_bits = np.abs(moved) / 2**11  # which say where an element stands
    assert moved.dtype == np.float32
    assert (low - last_bits <= by).all()
    assert (by <= high + last_bits).all()
    assert by.std() > 0.01 * scale_of(a)
    assert (np.sign(moved) == np.sign(a))[a != 0].all()
    assert set(np.sign(moved[a == 0])) == {-1, 1}
    assert len(np.unique(moved)) == len(a)


def test_off_kinks_leaves_no_tie_in_a_window() -> None:
    """A million equal values, of which random moves alone make ties: no 3×3 window has one."""
    moved = off_kinks(np.full((32, 180, 180), 0.3, np.float32), 1e-2, np.random.default_rng(0))
    windows = np.lib.stride_tricks.sliding_window_view(moved, (3, 3), (1, 2)).reshape(-1, 9)
    ranked = np.sort(windows, axis=1)
    assert (ranked[:, 1:] > ranked[:, :-1]).all()


def test_what_is_not_negative_stays_so() -> None:
    a = np.array([0, 0, 1, 2], np.float32)
    assert (off_kinks(a, 0.5, np.random.default_rng(0)) > 0).all()
    assert (normal(a, np.random.default_rng(0)) >= 0).all()
    assert (normal(-a, np.random.default_rng(0)) < 0).any()


def test_cotangents_cover_the_whole_and_both_corners() -> None:
    y = np.zeros((1, 3, 20, 30), np.float32)
    whole, first, last, between = cotangents(y, np.random.default_rng(0))
    assert np.count_nonzero(whole) == y.size
    for block in (first, last, between):
        assert block.dtype == np.float32
        assert np.count_nonzero(block) == 3 * BLOCK * BLOCK
    assert np.count_nonzero(first[..., :BLOCK, :BLOCK]) == 3 * BLOCK * BLOCK
    assert np.count_nonzero(last[..., -BLOCK:, -BLOCK:]) == 3 * BLOCK * BLOCK


def test_cotangents_of_a_scalar() -> None:
    assert all(g.shape == () and g != 0 for g in cotangents(np.zeros((), np.float32), np.random.default_rng(0)))
