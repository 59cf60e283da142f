"""The maps lie on what they explain: on drawn scenes, where the truth is known, and on photos with boxes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import localisation
import numpy as np
import pytest
from localisation import Evidence, Rates
from shapes import Scene

ENOUGH = 60  # scenes


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return localisation.scene_results(ENOUGH)


def check(results: dict[str, Any]) -> None:
    trained, untrained = (Rates(**results["rates"][name]) for name in ("trained", "random weights"))
    assert trained.own >= 0.9
    assert trained.other <= 0.1
    assert untrained.own < trained.own / 2
    assert results["rates"]["centre point"]["own"] == 0  # so the scenes are drawn
    assert results["largest object"] <= 0.15
    assert 0 < results["cam deviation"] <= 1e-5


@pytest.mark.slow
def test_the_map_of_a_class_lies_on_its_object(results: dict[str, Any]) -> None:
    check(results)


@pytest.mark.slow
def test_guided_gradcam_lies_on_its_object_and_guided_backpropagation_less() -> None:
    found = localisation.energy_results(40, [localisation.MODEL])[localisation.MODEL.stem]
    product, edges = (localisation.Energy(**found[name]) for name in ("guided-gradcam", "guided-backprop"))
    assert product.own >= 0.9
    assert product.other <= 0.05
    assert edges.other >= 0.1
    assert edges.own <= product.own - 0.1
    assert product.blank == 0


def test_energy_is_counted_by_object() -> None:
    """Squares of 1 on object c, 4 one pixel beside it, 2 between both margins, 8 on the other object, 16 far away."""
    own, other = np.zeros((2, 1, 12), bool)
    own[0, 1] = other[0, 5] = True
    squares = np.zeros((1, 12))
    squares[0, [1, 0, 3, 5, 11]] = 1, 4, 2, 8, 16
    assert localisation.energy_shares(squares, own, other) == pytest.approx([1 / 31, 6 / 31, 9 / 31])


@pytest.mark.heavy
def test_the_map_of_a_class_lies_on_its_object_in_500_scenes() -> None:
    check(localisation.scene_results(500))


def scene(y: int, x: int) -> Scene:
    """Object 0 on the pixel (y, x), object 1 on the pixel below."""
    masks = np.zeros((2, 5, 5), bool)
    masks[0, y, x] = masks[1, y + 1, x] = True
    return Scene(np.zeros((5, 5, 3), np.uint8), masks, (3, 4))


def test_rates_are_counted_by_object() -> None:
    """The centre is on object 0, on object 1, on none: of six points two are right and two on the other object."""
    assert localisation.hit(scene(2, 2), 0, (2, 2)) == (True, False)
    assert localisation.hit(scene(2, 2), 0, (3, 2)) == (False, True)
    assert localisation.hit(scene(2, 2), 1, (3, 2)) == (True, False)
    assert localisation.hit(scene(2, 2), 1, (2, 3)) == (False, False)
    found = localisation.centre_point([scene(2, 2), scene(1, 2), scene(2, 3)])
    assert (found.own, found.other) == pytest.approx((1 / 3, 1 / 3))
    assert found.elsewhere == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def photos(zoo: Path) -> list[Evidence]:
    return list(localisation.photo_rows(zoo))


def test_photos(photos: list[Evidence]) -> None:
    """What SqueezeNet recognises at all gets more than its share of the evidence, and the maximum."""
    telling = [row for row in photos if row.area is not None and row.area <= 0.5 and row.probability >= 0.02]
    assert {row.thing for row in telling} == {"dog", "zebra", "bird"}
    for row in telling:
        assert row.area is not None
        assert row.evidence is not None
        assert row.peak_in_box
        assert row.evidence > 1.5 * row.area


def test_area_is_the_share_of_what_the_model_saw(photos: list[Evidence]) -> None:
    """The centre crop of chelsea.png (300 × 451) is 224/256 of its height, all of it inside the cat's box."""
    cat = next(row for row in photos if row.photo == "chelsea.png")
    assert cat.area == 1
    assert cat.evidence == pytest.approx(1)
    assert {row.model for row in photos if row.area is None} == set(localisation.UNBOXED)


@pytest.mark.slow
def test_json_is_one_document(results: dict[str, Any]) -> None:
    command = [sys.executable, str(Path(localisation.__file__)), "--json", "--scenes", "2", "--energy", "2"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": ""})
    document = json.loads(found.stdout)
    assert document["photos"] == []
    assert document["scenes"]["scenes"] == 2
    assert set(document["scenes"]["rates"]) == set(results["rates"])
