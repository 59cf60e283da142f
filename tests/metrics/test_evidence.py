"""Shares of evidence by region, class and group, against shares worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_gradcam.errors import MetricError
from onnx_gradcam.metrics.evidence import evidence_share, share_in_region
from onnx_gradcam.metrics.interval import bootstrap

MAPS = np.array([[[3.0, 1, 0, -2]], [[1.0, 1, 1, 1]], [[0.0, 0, 0, 5]], [[-1.0, 0, 0, 0]]])
CAP = np.array([[[True, False, False, False]], [[True, True, False, False]], [[False] * 4], [[True] * 4]])
SIGN = np.array(
    [[[False, True, False, False]], [[False, True, True, False]], [[False, False, False, True]], [[True] * 4]]
)
REGIONS = {"cap": CAP, "sign": SIGN}


def shares(**keywords: Any) -> dict[tuple[Any, ...], Any]:
    return {(e.region, e.label, e.group): e for e in evidence_share(MAPS, REGIONS, **keywords)}


def test_shares_of_all_maps() -> None:
    found = shares()
    # cap: 3/4 and 2/4; the third image has no cap, the fourth map no positive value. sign: 1/4, 2/4, 1.
    assert found["cap", None, None].share == bootstrap([0.75, 0.5], [0, 1])
    assert found["sign", None, None].share == bootstrap([0.25, 0.5, 1.0], [0, 1, 2])
    assert found["elsewhere", None, None].share == bootstrap([0.0, 0.25, 0.0], [0, 1, 2])
    assert found["cap", None, None].area.value == pytest.approx((1 / 4 + 2 / 4 + 1) / 3)  # of the three that have one
    assert list(found) == [(name, None, None) for name in ("cap", "sign", "elsewhere")]


def test_shares_by_class_and_group_with_clusters() -> None:
    found = shares(
        classes=["star", "star", "cross", "star"], groups=["blue", "red", "red", None], clusters="aabb", seed=3
    )
    assert found["sign", "star", None].share == bootstrap([0.25, 0.5], ["a", "a"], seed=3)
    assert found["sign", None, "red"].share == bootstrap([0.5, 1.0], ["a", "b"], seed=3)
    assert found["sign", "star", "red"].share == bootstrap([0.5], ["a"], seed=3)
    assert found["cap", "cross", None].share.n == 0
    assert ("cap", "cross", "blue") not in found
    assert list(dict.fromkeys((label, group) for _, label, group in found)) == [
        (None, None), ("star", None), ("cross", None), (None, "blue"), (None, "red"), ("star", "blue"), ("star", "red"),
        ("cross", "red"),
    ]  # fmt: skip


def test_shares_of_regions_that_cover_the_image_without_overlap_add_up_to_1() -> None:
    rng = np.random.default_rng(0)
    maps, of_pixel = rng.standard_normal((5, 6, 7)), rng.integers(3, size=(5, 6, 7))
    found = evidence_share(maps, {str(k): of_pixel == k for k in range(3)})
    assert sum(e.share.value or 0 for e in found) == pytest.approx(1)
    assert found[-1].region == "elsewhere"
    assert found[-1].share.value == 0


def test_a_flat_map_has_the_share_of_the_area_and_a_blank_one_has_none() -> None:
    regions = {"cap": CAP[0]}
    assert share_in_region(np.full((1, 4), 0.2), regions, "cap") == 0.25
    assert share_in_region(np.full((1, 4), 0.2), regions, "elsewhere") == pytest.approx(0.75)
    assert np.isnan(share_in_region(np.zeros((1, 4)), regions, "cap"))
    assert np.isnan(share_in_region(np.ones((1, 4)), regions, "hand"))


@pytest.mark.parametrize(("regions", "keywords", "text"), [
    ({}, {}, "there is none"),
    ({"cap": CAP[:2]}, {}, r"region 'cap' has the shape \(2, 1, 4\), the maps have \(4, 1, 4\)"),
    ({"cap": CAP}, {"groups": ["a"]}, "1 groups for 4 maps"),
])  # fmt: skip
def test_what_does_not_fit(regions: dict[str, Any], keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(MetricError, match=text):
        evidence_share(MAPS, regions, **keywords)
