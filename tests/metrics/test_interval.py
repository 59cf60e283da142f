"""Intervals against a naive version, and how often they hold the mean that values were drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.metrics.interval import Mean, bootstrap


def naive(groups: list[list[float]], seed: int) -> tuple[float, float]:
    means = []
    for row in np.random.default_rng(seed).integers(len(groups), size=(2000, len(groups))):
        drawn = [groups[k] for k in row]
        means.append(np.mean([value for group in drawn for value in group]))
    ordered = sorted(means)
    ends = [0.025 * 1999, 0.975 * 1999]
    return tuple(np.interp(ends, range(2000), ordered))


def test_values_by_themselves() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    mean = bootstrap(values, seed=3)
    assert (mean.value, mean.n, mean.clusters) == (pytest.approx(0.42), 5, 5)
    assert (mean.low, mean.high) == pytest.approx(naive([[value] for value in values], 3))


def test_clusters_are_drawn_as_a_whole() -> None:
    values, names = [0.1, 0.5, 0.2, 0.9, 0.4, 0.8], ["a", "b", "a", "c", "b", "a"]
    mean = bootstrap(values, names)
    assert (mean.n, mean.clusters) == (6, 3)
    assert (mean.low, mean.high) == pytest.approx(naive([[0.1, 0.2, 0.8], [0.5, 0.4], [0.9]], 0))


def test_repeats_of_one_patient_do_not_make_the_interval_narrow() -> None:
    values = [0.0, 1.0, 0.2, 0.7] * 50
    names = [0, 1, 2, 3] * 50
    alone, together = bootstrap(values), bootstrap(values, names)
    assert alone.high - alone.low < 0.15
    assert together.high - together.low > 0.5


def test_nothing_one_and_not_a_number() -> None:
    assert bootstrap([]) == Mean(None, None, None, 0, 0)
    assert bootstrap([float("nan")]) == Mean(None, None, None, 0, 0)
    assert bootstrap([0.3, float("nan")]) == Mean(0.3, None, None, 1, 1)
    assert bootstrap([0.25, 0.75], ["a", "a"]) == Mean(0.5, None, None, 2, 1)


def test_the_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        mean = bootstrap(rng.random(40).tolist())
        held += mean.low <= 0.5 <= mean.high
    assert 52 <= held <= 60
