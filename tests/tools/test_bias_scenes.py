"""Scenes in which a cap may go with a sign: what is drawn, and how often they go together."""

from __future__ import annotations

import numpy as np
import pytest
from bias_scenes import CAP_COLOURS, CAPS, COLOUR_SPREAD, REGIONS, SIGNS, draw_worker, workers

SEED = 4


def test_equal_seeds_give_equal_scenes() -> None:
    first, again, other = (next(workers(seed, 1, 0.5)) for seed in (SEED, SEED, SEED + 1))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.regions, again.regions)
    assert (first.image != other.image).mean() > 0.5


@pytest.mark.parametrize(("goes_with", "low", "high"), [(0.95, 0.9, 0.99), (0.5, 0.4, 0.6), (1.0, 1, 1), (0.0, 0, 0)])
def test_how_often_the_cap_goes_with_the_sign(goes_with: float, low: float, high: float) -> None:
    scenes = list(workers(SEED, 200, goes_with))
    assert [scene.sign for scene in scenes] == [0, 1] * 100
    assert low <= np.mean([scene.cap == scene.sign for scene in scenes]) <= high


def test_every_pixel_has_one_region_and_every_region_is_there() -> None:
    for scene in workers(SEED, 40, 0.5):
        masks = np.stack([scene.mask(name) for name in REGIONS])
        assert (masks.sum(axis=0) == 1).all()
        shares = dict(zip(REGIONS, masks.mean(axis=(1, 2)), strict=True))
        assert 0.02 < shares["cap"] < 0.07
        assert 0.02 < shares["sign"] < 0.09
        colour = scene.image[scene.mask("cap")].astype(float).mean(axis=0)
        assert np.abs(colour - CAP_COLOURS[scene.cap]).max() <= COLOUR_SPREAD + 1
        assert scene.group == CAPS[scene.cap]


def test_the_other_cap_changes_the_pixels_of_the_cap_alone_and_the_other_sign_its_outline() -> None:
    first, twin = (draw_worker(np.random.default_rng(SEED), 0, cap) for cap in (0, 1))
    np.testing.assert_array_equal(first.regions, twin.regions)
    np.testing.assert_array_equal((first.image != twin.image).any(axis=2), first.mask("cap"))
    other = draw_worker(np.random.default_rng(SEED), 1, 0)
    np.testing.assert_array_equal(first.mask("cap"), other.mask("cap"))
    assert (first.mask("sign") != other.mask("sign")).any()
    assert len(SIGNS) == 2
