"""Methods that change the input against their naive versions, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import perturbation_oracles as naive
import pytest

from onnx_gradcam.copies.baselines import blurred, mean_colour
from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.perturbation.occlusion import occlusion
from onnx_gradcam.methods.perturbation.records import PerturbedMaps
from onnx_gradcam.methods.perturbation.rise import drise, random_masks, rise, similarity
from onnx_gradcam.methods.perturbation.scorecam import iscam, scorecam, sscam
from onnx_gradcam.methods.perturbation.superpixels import superpixels
from onnx_gradcam.methods.perturbation.surrogate import (
    coalitions,
    kept_parts,
    kernel_shap,
    lime,
    shapley_regression,
)

SPACES = {"photo": (9, 7), "wide": (5, 18), "signal": (31,), "volume": (4, 3, 5)}
Score = Callable[[np.ndarray], np.ndarray]
SCORE_CAMS = {"scorecam": scorecam, "sscam": sscam, "iscam": iscam}


def maps(method: Callable[..., PerturbedMaps], x: np.ndarray, score: Score, **options: Any) -> np.ndarray:
    """The maps of a method, (K, *space)."""
    return method(x, score(x[None])[0], score, **options).maps


def weights_of(
    method: Callable[..., PerturbedMaps], x: np.ndarray, activation: np.ndarray, score: Score, **options: Any
) -> np.ndarray:
    """The weights of channels, (K, channels); the maps are their products with the activation."""
    result = method(x, activation, score(x[None])[0], score, **options)
    assert result.weights is not None
    np.testing.assert_allclose(result.maps, (result.weights * activation).sum(axis=1), rtol=1e-5, atol=1e-6)
    return result.weights.reshape(result.weights.shape[:2])


def case(name: str, dtype: Any = np.float64) -> tuple[np.ndarray, Score]:
    """An image, and a score of two targets that is not linear."""
    space = SPACES[name]
    rng = np.random.default_rng(3)
    x, v, u = (rng.standard_normal((2, *space)) for _ in range(3))
    axes = tuple(range(1, x.ndim + 1))

    def score(copies: np.ndarray) -> np.ndarray:
        first = np.tanh(copies * v).sum(axis=axes) + (copies * u).sum(axis=axes) ** 2 / 10
        return np.stack([first, 100 + (copies * u).sum(axis=axes)], axis=1)

    return x.astype(dtype), score


def usual(space: Sequence[int]) -> tuple[list[range], list[int]]:
    stride = max(1, round(max(space) / 14))
    return [range(0, n, stride) for n in space], [2 * stride] * len(space)


@pytest.mark.parametrize("space", SPACES)
def test_occlusion_is_what_its_naive_version_says(space: str) -> None:
    x, score = case(space)
    expected = naive.occlusion(x, score, mean_colour(x), *usual(x.shape[1:]))
    np.testing.assert_allclose(maps(occlusion, x, score), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (3, 3), (2, 1)])
def test_windows_and_strides_of_occlusion(space: str, window: int, stride: int) -> None:
    x, score = case(space)
    sides = [min(window, n) for n in x.shape[1:]]
    starts = [[k * stride for k in range(math.ceil((n - m) / stride) + 1)] for n, m in zip(x.shape[1:], sides,
                                                                                           strict=True)]  # fmt: skip
    expected = naive.occlusion(x, score, np.full_like(x, 0.5), starts, sides)
    found = maps(occlusion, x, score, window=window, stride=stride, baseline=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_occlusion_by_hand() -> None:
    """The score is the first of four pixels; windows of two pixels at 0, 2: the first window drops it, all of 1."""
    x = np.ones((1, 4))
    drops = maps(occlusion, x, lambda copies: copies[:, :, 0], window=2, stride=2, baseline=0)
    np.testing.assert_array_equal(drops, [[1, 1, 0, 0]])
    overlapping = maps(occlusion, x, lambda copies: copies[:, :, 0], window=2, stride=1, baseline=0)
    np.testing.assert_array_equal(overlapping, [[1, 0.5, 0, 0]])
    one_an_axis = maps(occlusion, np.ones((1, 2, 4)), lambda copies: copies[:, :, 0, 0], window=(1, 2), stride=(1, 2),
                            baseline=0)  # fmt: skip
    np.testing.assert_array_equal(one_an_axis[0], [[1, 1, 0, 0], [0, 0, 0, 0]])
    by_window = maps(occlusion, x, lambda copies: copies[:, :, 0], window=2, baseline=0)
    np.testing.assert_array_equal(by_window, overlapping)
    by_stride = maps(occlusion, x, lambda copies: copies[:, :, 0], stride=1, baseline=0)
    np.testing.assert_array_equal(by_stride, overlapping)


def test_baselines() -> None:
    x, score = case("photo")
    by_name = maps(occlusion, x, score, baseline="blur")
    np.testing.assert_array_equal(by_name, maps(occlusion, x, score, baseline=blurred(x)))
    np.testing.assert_array_equal(maps(occlusion, x, score), maps(occlusion, x, score, baseline=mean_colour(x)))
    colours = np.array([0.5, -1.0])[:, None, None]
    np.testing.assert_array_equal(
        maps(occlusion, x, score, baseline=colours),
        maps(occlusion, x, score, baseline=np.broadcast_to(colours, x.shape)),
    )


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", [rise, drise])
def test_rise_is_what_its_naive_version_says(space: str, method: Callable[..., np.ndarray]) -> None:
    x, score = case(space)
    masks = list(random_masks(x.shape[1:], 40, 3, 0.4, 5))
    found = maps(method, x, score, samples=40, grid=3, keep=0.4, seed=5, baseline=0.25)
    expected = naive.rise(x, score, np.full_like(x, 0.25), masks, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_masks_are_cells_enlarged_and_shifted() -> None:
    """Mask i by its own draws: cells, then one shift for each axis, of the cells enlarged to one cell more."""
    space, grid, keep, seed = (11, 8), 3, 0.5, 2
    found = list(random_masks(space, 5, grid, keep, seed))
    for number, mask in enumerate(found):
        random = np.random.default_rng([seed, number])
        cells = (random.random((grid, grid)) < keep).astype(float)
        sides = [math.ceil(n / grid) for n in space]
        large = naive.enlarged(cells, [(grid + 1) * side for side in sides])
        shift = [int(random.integers(side)) for side in sides]
        expected = large[shift[0] : shift[0] + space[0], shift[1] : shift[1] + space[1]]
        np.testing.assert_allclose(mask, expected, atol=1e-6)
        assert mask.dtype == np.float32
    assert len({mask.tobytes() for mask in found}) == 5
    many = np.mean(list(random_masks(space, 400, grid, 0.3, 0)), axis=0)
    np.testing.assert_allclose(many, 0.3, atol=0.1)


def test_rise_finds_the_pixel_that_counts_and_does_not_care_for_what_is_added_to_the_score() -> None:
    x = np.ones((1, 12, 12), np.float32)
    found = maps(rise, x, lambda copies: copies[:, :, 3, 8], samples=500, grid=6, baseline=0)
    assert np.unravel_index(found[0].argmax(), (12, 12)) == (3, 8)
    shifted = maps(rise, x, lambda copies: copies[:, :, 3, 8] + 1e4, samples=500, grid=6, baseline=0)
    np.testing.assert_allclose(shifted, found, atol=2e-3 * found.max())


def test_the_similarity_of_boxes_by_hand() -> None:
    """Three boxes: IoU 1, ½ and 0; the classes of the first two are (1, 0) and (3, 4) / 5 to the reference (1, 0)."""
    overlap = np.array([1.0, 0.5, 0.0])
    probability = np.array([[0.2, 0.6, 1.0], [0.0, 0.8, 0.0]])
    reference = np.array([0.9, 0.0])
    assert similarity(overlap, probability, np.array([0.1, 1.0, 1.0]), reference) == pytest.approx(0.5 * 0.6)
    assert similarity(overlap, probability, np.array([0.4, 1.0, 1.0]), reference) == pytest.approx(0.4)
    assert similarity(overlap, 0 * probability, np.ones(3), reference) == 0
    assert similarity(overlap[:0], probability[:, :0], np.ones(0), reference) == 0


def layer(space: Sequence[int]) -> np.ndarray:
    """An activation with a channel that is the same everywhere."""
    grid = [max(1, n // 2) for n in space]
    activation = np.random.default_rng(7).standard_normal((5, *grid)).astype(np.float32)
    activation[3] = 2
    return activation


@pytest.mark.parametrize("space", SPACES)
def test_score_cams_are_what_their_naive_versions_say(space: str) -> None:
    x, score = case(space)
    activation, baseline = layer(x.shape[1:]), np.full_like(x, 0.1)
    plain = weights_of(scorecam, x, activation, score, baseline=0.1)
    np.testing.assert_allclose(plain, naive.scorecam(x, activation, score, baseline), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(plain.sum(axis=1), 1)
    integrated = weights_of(iscam, x, activation, score, samples=3, top=0, baseline=0.1)
    np.testing.assert_allclose(integrated, naive.iscam(x, activation, score, baseline, 3), rtol=1e-4, atol=1e-7)
    draws = [np.random.default_rng([4, k]) for k in range(5)]
    noise = [[0.5 * draw.standard_normal(x.shape[1:], np.float32) for _ in range(2)] for draw in draws]
    noisy = weights_of(sscam, x, activation, score, samples=2, noise=0.5, top=0, baseline=0.1, seed=4)
    np.testing.assert_allclose(noisy, naive.sscam(x, activation, score, baseline, noise), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", SCORE_CAMS.values())
def test_only_the_channels_that_vary_most_are_run(method: Callable[..., np.ndarray]) -> None:
    x, score = case("photo")
    activation = layer(x.shape[1:]) * np.array([1, 5, 1, 9, 3])[:, None, None]
    runs = []

    def counted(copies: np.ndarray) -> np.ndarray:
        runs.append(len(copies))
        return score(copies)

    weights = weights_of(method, x, activation, counted, top=2)
    assert (weights[:, [0, 2, 3]] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    samples = {"scorecam": 1, "sscam": 35, "iscam": 10}[method.__name__]
    assert sum(runs) == 2 * samples + 1  # and the image itself


def test_channels_that_do_not_vary_are_run_once() -> None:
    x, score = case("photo")
    activation = np.ones((300, 3, 3), np.float32)
    activation[0, 0] = 2
    runs = []
    weights = weights_of(scorecam, x, activation, lambda copies: (runs.append(len(copies)), score(copies))[1])
    assert sum(runs) == 2 + 1
    np.testing.assert_allclose(weights[:, 1:], weights[:, 1:2] * np.ones((1, 299)))


@pytest.mark.parametrize("space", SPACES)
def test_lime_is_what_its_naive_version_says(space: str) -> None:
    x, score = case(space)
    found = maps(lime, x, score, samples=60, segments=4, width=0.3, ridge=0.5, seed=1)
    parts = superpixels(x, 4)
    kept = np.random.default_rng(1).random((60, parts.max() + 1)) < 0.5
    kept[0] = True
    copies = np.stack([np.where(row[parts], x, mean_colour(x)) for row in kept])
    expected = naive.lime(kept, score(copies), 0.3, 0.5)[:, parts]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_least_squares_of_all_coalitions_are_the_shapley_values() -> None:
    """With every coalition as often as its weight says, the regression gives Shapley's values of a game of four."""
    rng = np.random.default_rng(0)
    worths = {frozenset(np.flatnonzero([n >> k & 1 for k in range(4)]).tolist()): rng.standard_normal(2)
              for n in range(16)}  # fmt: skip
    worths[frozenset()] = np.zeros(2)
    often = {1: 2, 2: 1, 3: 2}  # 3 / (C(4, k) k (4 − k)), times 8
    kept = [[k in members for k in range(4)] for members in worths for _ in range(often.get(len(members), 0))]
    gains = [worths[members] for members in worths for _ in range(often.get(len(members), 0))]
    found = shapley_regression(np.array(kept), np.array(gains), worths[frozenset(range(4))])
    np.testing.assert_allclose(found, naive.shapley(4, worths.__getitem__), rtol=1e-10)


def test_kernel_shap_shares_the_score_out() -> None:
    x, score = case("photo")
    found = maps(kernel_shap, x, score, samples=50, segments=4)
    parts = superpixels(x, 4)
    values = np.stack([found[:, parts == k][:, 0] for k in range(parts.max() + 1)], axis=1)
    np.testing.assert_allclose(values.sum(axis=1), score(x[None])[0] - score(mean_colour(x)[None])[0], rtol=1e-10)
    linear = maps(
        kernel_shap, x, lambda copies: copies.sum(axis=(1, 2, 3))[:, None], samples=50, segments=4, baseline=0
    )
    expected = [x[:, parts == k].sum() for k in range(parts.max() + 1)]
    np.testing.assert_allclose([linear[0][parts == k][0] for k in range(parts.max() + 1)], expected, rtol=1e-8)


def test_coalitions_have_some_players_and_come_as_often_as_shapley_weighs_them() -> None:
    drawn = coalitions(5, 20000, 0)
    sizes = drawn.sum(axis=1)
    expected = np.array([1 / (k * (5 - k)) for k in range(1, 5)])
    np.testing.assert_allclose(np.bincount(sizes, minlength=5)[1:] / 20000, expected / expected.sum(), atol=0.015)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.02)


@pytest.mark.parametrize("space", SPACES)
def test_superpixels_cover_the_image_and_keep_to_colours(space: str) -> None:
    x, _ = case(space)
    parts = superpixels(x, 4)
    assert parts.shape == x.shape[1:]
    assert set(np.unique(parts)) == set(range(parts.max() + 1))
    halves = np.zeros((3, 20, 20))
    halves[:, :, 7:] = 1  # the edge lies beside those of the cells
    parts = superpixels(halves, 16)
    assert not set(np.unique(parts[:, :7])) & set(np.unique(parts[:, 7:]))
    assert 8 <= parts.max() + 1 <= 24


def test_kept_parts() -> None:
    parts = np.array([[0, 0, 1]])
    x, baseline = np.ones((2, 1, 3)), np.zeros((2, 1, 3))
    copies = list(kept_parts(x, baseline, parts, np.array([[True, False], [False, True]])))
    np.testing.assert_array_equal(copies[0][0], [[1, 1, 0]])
    np.testing.assert_array_equal(copies[1][1], [[0, 0, 1]])


WRONG: Sequence[tuple[str, dict[str, Any]]] = [
    ("occlusion", {"window": -1}),
    ("occlusion", {"window": 2.5}),
    ("occlusion", {"window": 50, "stride": 7}),
    ("occlusion", {"window": 2, "stride": 3}),
    ("occlusion", {"window": (2, 2, 2)}),
    ("occlusion", {"baseline": "grey"}),
    ("occlusion", {"baseline": float("nan")}),
    ("occlusion", {"baseline": np.zeros(5)}),
    ("rise", {"samples": 1}),
    ("rise", {"keep": 0}),
    ("rise", {"keep": 1.0}),
    ("rise", {"grid": 0}),
    ("drise", {"seed": -1}),
    ("scorecam", {"top": -1}),
    ("sscam", {"noise": 0}),
    ("sscam", {"samples": 0}),
    ("iscam", {"samples": True}),
    ("lime", {"segments": 1}),
    ("lime", {"width": 0.0}),
    ("lime", {"ridge": -1}),
    ("kernel_shap", {"samples": "many"}),
]


@pytest.mark.parametrize(("name", "options"), WRONG)
def test_options_out_of_their_range_say_what_fits(name: str, options: dict[str, Any]) -> None:
    x, score = case("photo")
    methods = {function.__name__: function for function in (occlusion, rise, drise, lime, kernel_shap)}
    more = (layer(x.shape[1:]),) if name in SCORE_CAMS else ()
    method: Callable[..., PerturbedMaps] = {**methods, **SCORE_CAMS}[name]
    with pytest.raises(MethodError) as caught:
        method(x, *more, score(x[None])[0], score, **options)
    assert caught.value.hint
    assert next(iter(options)) in str(caught.value) or "stride" in str(caught.value)
