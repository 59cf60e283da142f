"""Every metric against its naive version, and against results worked out by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import metric_oracles
import numpy as np
import pytest
from metric_cases import SPACES, case

from onnx_gradcam.copies.baselines import blurred, mean_colour
from onnx_gradcam.copies.covering import occlude
from onnx_gradcam.errors import MetricError
from onnx_gradcam.metrics.alike import rank_correlation
from onnx_gradcam.metrics.order import ranks_of_removal
from onnx_gradcam.metrics.regions import largest_part
from onnx_gradcam.metrics.removal import deletion
from onnx_gradcam.metrics.road import made_up
from onnx_gradcam.metrics.table import METRICS, figure_of, find_metric


def measure(name: str, have: Mapping[str, Any]) -> float:
    metric = METRICS[name]
    return figure_of(metric.function(**{need: have[need] for need in metric.needs}))


def test_every_metric_has_an_oracle() -> None:
    assert METRICS.keys() == metric_oracles.ORACLES.keys()


PHOTOS = [name for name, space in SPACES.items() if len(space) == 2]
CASES = [(n, space) for n, metric in METRICS.items() for space in (PHOTOS if "boxes" in metric.needs else SPACES)]


@pytest.mark.parametrize(("name", "space"), CASES)
def test_a_metric_is_what_its_naive_version_says(name: str, space: str) -> None:
    have = case(space)
    expected = metric_oracles.ORACLES[name](**{need: have[need] for need in METRICS[name].needs})
    precision = 1e-4 if name == "road" else 1e-10  # its equations are solved by rounds
    assert measure(name, have) == pytest.approx(expected, rel=precision, abs=1e-12)


LEFT = np.array([[1.0, 0, 0, 0]])
RIGHT = LEFT[:, ::-1]
RAMP = np.array([[4.0, 3, 2, 1]])
ONES, ZEROS = np.ones((1, 1, 4)), np.zeros((1, 1, 4))
SQUARE = np.pad(np.ones((2, 2)), 1)
HAND: Mapping[str, tuple[Mapping[str, Any], float]] = {
    # The score is the first pixel alone, and it goes first: ½ of the first quarter is left of the curve.
    "deletion": ({"heatmap": LEFT}, 0.125),
    "insertion": ({"heatmap": LEFT}, 0.875),
    # All pixels are equal: what is made up is what was there.
    "road": ({"heatmap": LEFT}, 0.0),
    "average-drop": ({"heatmap": np.array([[0.25, 1, 1, 1]])}, 0.75),
    "confidence-increase": ({"heatmap": LEFT, "x": -ONES, "probability": lambda x: x[:, 0, 0].sum(axis=1)}, 1.0),
    # Coherency 1, mean ¼, no drop: 3 / (1 + 4/3 + 1).
    "adcc": ({"heatmap": LEFT}, 0.9),
    # Strides of 1: patches of pixels (0, 1), (1, 2), (2, 3), (3). The means .5, 0, 0, 0 and the drops 1, 0, 0, 0.
    "occlusion-correlation": ({"heatmap": LEFT}, 1.0),
    # Told 0, 0, 1, 1 where the drops are 1, 0, 0, 0: nothing.
    "infidelity": ({"heatmap": RIGHT}, 1.0),
    "energy": ({"heatmap": np.array([[3.0, 1, -5, 0]]), "region": np.array([[True, False, True, False]])}, 0.75),
    "pointing": ({"heatmap": np.array([[3.0, 3, 1, 0]]), "region": np.array([[True, False, True, False]])}, 0.5),
    "iou": ({"heatmap": RAMP, "region": np.array([[True, False, True, False]])}, 1 / 3),
    # H is the left half, R the right one: their middles lie 2 apart, their pixels 2, 1 and 1, 2 from the other.
    "centroid-distance": ({"heatmap": RAMP, "region": RAMP < 2.5}, 2 / 17**0.5),
    "boundary-distance": ({"heatmap": RAMP, "region": RAMP < 2.5}, 1.5 / 17**0.5),
    # A square of 2 × 2 in a box of 2 × 4: just half.
    "localisation-error": ({"heatmap": SQUARE, "boxes": np.array([[1.0, 0, 3, 4]])}, 0.0),
    # A ramp of 4, 3, 2, 1: its box at 30 % is 3 pixels wide, at 50 % as well; that at 15 % is all 4.
    "localisation-error-30": ({"heatmap": RAMP, "boxes": np.array([[0.0, 0, 3, 1]])}, 0.0),
    "localisation-error-50": ({"heatmap": RAMP, "boxes": np.array([[2.0, 0, 4, 1]])}, 1.0),
    "localisation-error-top1": ({"heatmap": SQUARE, "boxes": np.array([[1.0, 1, 3, 3]]), "rank": 1}, 1.0),
    "localisation-error-top5": ({"heatmap": SQUARE, "boxes": np.array([[1.0, 1, 3, 3]]), "rank": 4}, 0.0),
    # Three other maps: one with less on the first pixel, one with as much, one with more.
    "discrimination": (
        {
            "heatmap": np.array([[1.0, 1, 0, 0]]),
            "region": LEFT > 0,
            "maps_of_others": np.stack([RIGHT, np.array([[1, 0, 0, 1.0]]), LEFT]),
        },
        0.5,
    ),
    "evidence-share": (
        {
            "heatmap": np.array([[3.0, 1, -5, 0]]),
            "regions": {"badge": LEFT > 0, "hand": RAMP < 4},
            "region_name": "hand",
        },
        0.25,
    ),
    "sparseness": ({"heatmap": LEFT}, 0.75),
    "complexity": ({"heatmap": np.array([[1.0, -1, 0, 0]])}, np.log(2)),
    # The map is x itself, four equal values; noise moves each by at most 2 % of no range.
    "max-sensitivity": ({"heatmap": ONES[0], "x": ONES}, 0.0),
    # Each value of x = 0, 1, 2, 3 moves by 0.06, and the order stays.
    "fgsm-stability": ({"heatmap": -RAMP, "x": np.arange(4.0).reshape(1, 1, 4)}, 1.0),
    "cascading-randomisation": ({"heatmap": RAMP, "randomised_from_top": np.stack([RAMP**3, -RAMP, ONES[0]])}, 0.0),
    "independent-randomisation": (
        {"heatmap": RAMP, "randomised_alone": np.stack([RAMP, np.array([[4, 3, 1, 2]])])},
        0.9,
    ),
    "random-class": ({"heatmap": RAMP, "map_of_random_class": np.array([[3, 4, 2, 1]])}, 0.8),
}


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("localisation-error", [0, 0, 1, 1]),
        ("localisation-error-30", [1, 0, 0, 1]),
        ("localisation-error-50", [1, 1, 0, 0]),
    ],
)
def test_the_share_of_the_maximum_decides_how_wide_the_box_of_a_map_is(name: str, errors: list[int]) -> None:
    """A staircase: 8 pixels from 20 % of the maximum on, 4 from 35 % on, 2 from 60 % on."""
    heatmap = np.array([[1.0, 0.6, 0.35, 0.35, 0.2, 0.2, 0.2, 0.2, 0, 0]])
    boxes = [np.array([[0.0, 0, wide, 1]]) for wide in (9, 6, 3, 1)]
    assert [measure(name, {"heatmap": heatmap, "boxes": box}) for box in boxes] == errors


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_by_hand(name: str) -> None:
    def score(copies: np.ndarray) -> np.ndarray:
        return copies[:, 0, 0, 0]

    common = {
        "x": ONES,
        "probability": score,
        "baseline": ZEROS,
        "blurred": ZEROS,
        "occluded": occlude(ONES, score, ZEROS),
        "explain": lambda copies: copies[:, 0],
        "gradient": lambda copies: np.sign(1.5 - copies),
    }
    changed, expected = HAND[name]
    assert measure(name, {**common, **changed}) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["energy", "pointing"])
def test_a_flat_map_has_the_share_of_the_area(name: str) -> None:
    region = np.arange(20).reshape(4, 5) < 7
    assert measure(name, {"heatmap": np.full((4, 5), 0.3), "region": region}) == pytest.approx(7 / 20)


@pytest.mark.parametrize("name", ["energy", "pointing"])
def test_a_blank_map_lies_nowhere(name: str) -> None:
    assert measure(name, {"heatmap": np.zeros((4, 5)), "region": np.ones((4, 5), bool)}) == 0


def test_equal_values_go_in_an_order_that_is_fixed_and_is_not_that_of_the_rows() -> None:
    flat = ranks_of_removal(np.zeros((20, 20)))
    np.testing.assert_array_equal(flat, ranks_of_removal(np.ones((20, 20))))
    assert sorted(flat.ravel()) == list(range(400))
    assert abs(rank_correlation(flat, np.arange(400))) < 0.15


def test_curves_begin_with_one_image_and_end_with_the_other() -> None:
    have = case("a photo")
    curve = deletion(have["x"], have["heatmap"], have["probability"], have["baseline"], steps=5)
    np.testing.assert_allclose(curve.shares, np.array([0, 13, 25, 38, 50, 63]) / 63)
    ends = have["probability"](np.stack([have["x"], have["baseline"]]))
    np.testing.assert_allclose(curve.scores[[0, -1]], ends)


def test_the_scoring_function_gets_few_copies_at_a_time() -> None:
    sizes = []

    def score(copies: np.ndarray) -> np.ndarray:
        sizes.append(len(copies))
        return copies.sum(axis=(1, 2, 3))

    x = np.ones((3, 10, 10), np.float32)
    deletion(x, x[0], score, mean_colour(x))
    assert sizes == [16, 16, 1]


@pytest.mark.parametrize(("a", "b", "expected"), [
    ([1, 2, 3], [10, 100, 1000], 1.0),
    ([1, 2, 3], [3, 2, 1], -1.0),
    ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
    ([1, 1, 1], [1, 2, 3], 0.0),
    ([1, 1, 2], [1, 2, 3], np.sqrt(0.75)),
])  # fmt: skip
def test_rank_correlations_by_hand(a: list[float], b: list[float], expected: float) -> None:
    assert rank_correlation(np.array(a), np.array(b)) == pytest.approx(expected)


def test_baselines() -> None:
    """The mean stays; a blurred point is a Gaussian of σ = 0.05 · 40 = 2."""
    x = np.zeros((1, 40, 30), np.float32)
    x[0, 20, 15] = 1
    np.testing.assert_allclose(mean_colour(x), np.full(x.shape, 1 / 1200), rtol=1e-6)
    soft = blurred(x)
    assert soft.sum() == pytest.approx(1, rel=1e-5)
    assert soft[0, 22, 15] / soft[0, 20, 15] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert soft[0, 20, 12] / soft[0, 20, 15] == pytest.approx(np.exp(-9 / 8), rel=1e-5)
    flat = np.full((2, 7, 9), 3.0)
    np.testing.assert_allclose(blurred(flat), flat)


@pytest.mark.parametrize("name", METRICS)
def test_the_first_line_has_formula_and_source(name: str) -> None:
    metric = METRICS[name]
    assert metric.formula
    assert any(character.isdigit() for character in metric.source), metric.source
    assert metric.source.endswith(".")


def test_a_metric_says_what_it_needs_and_is_found_by_its_name() -> None:
    assert METRICS["energy"].needs == ("heatmap", "region")
    assert find_metric("energy") is METRICS["energy"]
    with pytest.raises(MetricError, match="unknown metric 'energie'") as error:
        find_metric("energie")
    assert "'energy'" in error.value.hint


@pytest.mark.parametrize("function", [metric.function for metric in METRICS.values()])
def test_what_a_metric_needs_is_among_what_there_is(function: Callable[..., Any]) -> None:
    needs = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    assert set(needs) <= case("a photo").keys()


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_part_of_a_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((8, 11)) < (0.3, 0.4, 0.5, 0.6)[seed % 4]
    expected = np.zeros_like(mask)
    for at in max(metric_oracles.parts(mask), key=len):
        expected[at] = True
    np.testing.assert_array_equal(largest_part(mask), expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("space", SPACES)
def test_made_up_pixels_solve_their_equations(space: str, share: float) -> None:
    x = case(space)["x"]
    removed = np.random.default_rng(1).random(x.shape[1:]) < share
    removed.flat[0] = False
    np.testing.assert_allclose(made_up(x, removed), metric_oracles.made_up(x, removed), atol=1e-4)


@pytest.mark.parametrize("name", ["sparseness", "complexity", "max-sensitivity"])
def test_what_cannot_be_said_of_a_blank_map_is_not_a_number(name: str) -> None:
    assert np.isnan(measure(name, {**case("a photo"), "heatmap": np.zeros((9, 7))}))


@pytest.mark.parametrize("name", ["average-drop", "adcc"])
def test_a_score_below_zero_has_no_share_that_drops(name: str) -> None:
    have = {**case("a photo"), "probability": lambda copies: -np.ones(len(copies))}
    assert np.isnan(measure(name, have))
