from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_affine, check_float16, check_forward, check_vjp, pulled_back

RNG = np.random.default_rng(41)
BOXES = np.array(
    [[0.3, 1.2, 5.1, 6.4], [-3.1, -2.2, 2.3, 4.6], [4.2, 3.1, 11.7, 9.8], [2.1, 2.2, 2.6, 2.9], [30.5, 30, 40, 41]]
)
FORMS: dict[str, dict[str, Any]] = {
    "detector": {"output_height": 3, "output_width": 4, "sampling_ratio": 2, "spatial_scale": 0.75},
    "adaptive": {"output_height": 2, "output_width": 3},
    "one-cell": {"sampling_ratio": 3},
    "output-half-pixel": {
        "output_height": 2,
        "output_width": 2,
        "sampling_ratio": 2,
        "coordinate_transformation_mode": "output_half_pixel",
    },
    "output-half-pixel-adaptive": {
        "output_height": 2,
        "output_width": 3,
        "coordinate_transformation_mode": "output_half_pixel",
    },
}


def align(id: str, mode: str, boxes: np.ndarray = BOXES, **form: Any) -> Case:
    batch = np.array([1, 0, 1, 1, 0][: len(boxes)], np.int64)
    inputs = [RNG.standard_normal((2, 3, 7, 8)), boxes, batch]
    return Case("RoiAlign", inputs, {"mode": mode, **form}, id=f"{id}-{mode}")


CASES = [align(id, mode, **form) for id, form in FORMS.items() for mode in ("avg", "max")]
NOTHING = align("nothing", "avg", np.array([[3.0, 3.0, 2.0, 2.0]]), output_height=2, output_width=2)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, NOTHING, replace(NOTHING, attributes={"mode": "max"})], ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [*CASES, NOTHING], ids=str)
def test_the_reference_is_what_the_runtime_does(case: Case) -> None:
    check_forward(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.attributes["mode"] == "avg"], ids=str)
def test_it_is_the_transpose_of_what_the_runtime_does(case: Case) -> None:
    check_affine(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16(case: Case) -> None:
    """Boxes with few bits, so that no sample changes its cell by rounding."""
    rounded = [case.inputs[0], np.round(BOXES * 4) / 4 + 0.125, case.inputs[2]]
    check_float16(replace(case, inputs=rounded))


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_no_boxes(mode: str) -> None:
    case = align("empty", mode, np.zeros((0, 4)), output_height=2, output_width=2)
    for dynamic in (False, True):
        (found,) = pulled_back(case, np.zeros((0, 3, 2, 2)), dynamic=dynamic)
        np.testing.assert_array_equal(found, np.zeros((2, 3, 7, 8)))


def test_a_known_cell() -> None:
    """One sample in the middle of a box around four elements takes a quarter of each."""
    case = Case(
        "RoiAlign",
        [np.zeros((1, 1, 3, 3)), np.array([[0.5, 0.5, 1.5, 1.5]]), np.array([0])],
        {"sampling_ratio": 1},
    )
    (found,) = pulled_back(case, [[[[8]]]])
    np.testing.assert_array_equal(found, [[[[2, 2, 0], [2, 2, 0], [0, 0, 0]]]])
