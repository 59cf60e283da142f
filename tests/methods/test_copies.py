"""Noisy copies, and how copies are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.methods import copies as sampling
from onnx_gradcam.methods.copies import Noise, augmented_copies, batches, noisy_copies


def images(dtype: Any = np.float32, count: int = 3) -> np.ndarray:
    """Ranges of 2, 20 and 200."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (count, 2, 40, 50))
    x[:, 0, 0, :2] = [-1, 1]
    return (x * 10.0 ** np.arange(count)[:, None, None, None]).astype(dtype)


def test_noise_has_the_deviation_asked_for_of_each_images_own_range() -> None:
    """10 · 4000 values: σ within 1 % (3 standard errors) of 0.1 · range, the mean within 3σ/200 of 0."""
    x = images()
    noise = np.stack(list(noisy_copies(x, Noise(samples=10, scale=0.1)))) - x
    assert noise.shape == (10, *x.shape)
    for k, spread in enumerate([2, 20, 200]):
        assert noise[:, k].std() == pytest.approx(0.1 * spread, rel=0.011)
        assert abs(noise[:, k].mean()) < 3 * 0.1 * spread / 200


def test_equal_seeds_give_equal_noise_and_others_do_not() -> None:
    first, again, other = (np.stack(list(noisy_copies(images(), Noise(4, seed=s)))) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1


def test_neither_the_batch_nor_the_number_of_samples_matters() -> None:
    together = list(noisy_copies(images(), Noise(samples=3)))
    for k in range(3):
        alone = list(noisy_copies(images()[k : k + 1], Noise(samples=2)))
        for number in range(2):
            np.testing.assert_array_equal(alone[number][0], together[number][k])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay_what_they_are(dtype: Any) -> None:
    x = images(dtype)
    before = x.copy()
    x.flags.writeable = False
    (copy,) = noisy_copies(x, Noise(samples=1))
    assert copy.dtype == dtype
    np.testing.assert_array_equal(x, before)
    assert copy.max() > x.max()  # not clipped


def test_integers_are_rounded_and_clipped() -> None:
    """0 and 255 alone: a half of the noisy values lie outside, and become 0 or 255 again."""
    x = np.tile(np.array([0, 255], np.uint8), (1, 1, 40, 50))
    (copy,) = noisy_copies(x, Noise(samples=1, scale=0.05))
    assert copy.dtype == np.uint8
    change = copy.astype(int) - x
    assert (change[x == 0] >= 0).all()
    assert (change[x == 255] <= 0).all()
    assert 0.45 < (change == 0).mean() < 0.56


def test_a_constant_image_has_no_range_and_gets_no_noise() -> None:
    x = np.full((1, 3, 4, 4), 0.7, np.float32)
    (copy,) = noisy_copies(x, Noise(samples=1))
    np.testing.assert_array_equal(copy, x)


def test_augmented_by_hand() -> None:
    """Three factors, as it is and mirrored along the axis that is named."""
    x = np.array([[[10.0, 20.0], [30.0, 40.0]]], np.float32)
    for width, mirrored in [(2, [[20, 10], [40, 30]]), (1, [[30, 40], [10, 20]])]:
        copies = list(augmented_copies(x, width))
        assert len(copies) == 6
        assert {copy.dtype for copy in copies} == {np.dtype("float32")}
        np.testing.assert_allclose(copies[0][0], [[9, 18], [27, 36]], rtol=1e-6)
        np.testing.assert_array_equal(copies[1], x)
        np.testing.assert_allclose(copies[2][0], [[11, 22], [33, 44]], rtol=1e-6)
        np.testing.assert_allclose(copies[3][0], 0.9 * np.array(mirrored), rtol=1e-6)
        np.testing.assert_array_equal(copies[4][0], mirrored)
        np.testing.assert_allclose(copies[5][0], 1.1 * np.array(mirrored), rtol=1e-6)


def test_augmented_integers_are_rounded_and_clipped() -> None:
    x = np.array([[[10, 255]]], np.uint8)
    found = [copy[0, 0].tolist() for copy in augmented_copies(x, 2)]
    assert found == [[9, 230], [10, 255], [11, 255], [230, 9], [255, 10], [255, 11]]


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 0}, {"samples": 2.5}, {"samples": True}, {"scale": 0}, {"scale": -1}, {"scale": np.nan}, {"seed": -1}],
    ids=str,
)
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ogc.MethodError, match=f"noise with {name}") as caught:
        Noise(**wrong)
    assert caught.value.hint


def test_batches_hold_copy_after_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five copies of two images, at most five images together: two copies, two, one."""
    monkeypatch.setattr(sampling, "MAX_IMAGES", 5)
    x = np.arange(2.0)[:, None]
    feeds = {"image": x, "size": np.array([[10.0], [20.0]]), "scale": np.array(3.0)}
    copies = [x + 100 * s for s in range(5)]
    found = list(batches([{"image": c} for c in copies], feeds, "image", [(1,), (2, 3)], shared=["scale"]))
    assert [count for _, _, count in found] == [2, 2, 1]
    fed = np.concatenate([each["image"] for each, _, _ in found])
    np.testing.assert_array_equal(fed.reshape(5, 2, 1), copies)
    for each, classes, count in found:
        assert classes == [(1,), (2, 3)] * count
        np.testing.assert_array_equal(each["size"].ravel(), [10, 20] * count)
        assert each["scale"] == 3


def test_large_images_are_run_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of 60 values: two copies are 240."""
    monkeypatch.setattr(sampling, "MAX_VALUES", 300)
    x = np.zeros((2, 60))
    assert [count for _, _, count in batches([{"image": x}] * 5, {"image": x}, "image", [(0,)] * 2)] == [2, 2, 1]


def test_a_copy_of_more_images_than_run_together_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_IMAGES", 1)
    x = np.zeros((3, 1))
    assert [count for _, _, count in batches([{"image": x}] * 2, {"image": x}, "image", [(0,)] * 3)] == [1, 1]
