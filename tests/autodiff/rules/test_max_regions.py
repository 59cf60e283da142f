from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_forward, check_vjp, pulled_back

RNG = np.random.default_rng(47)
IMAGE = 0.01 * RNG.permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7)  # no two elements alike
BOXES = np.array(
    [[1, 0.5, 0.25, 4.25, 5.25], [0, -2.5, -1.5, 9, 3.25], [1, 3, 3.25, 2, 2], [0, 30, 30, 33, 34], [0, 0, 0, 6, 5]]
)


def pool(id: str, shape: list[int], scale: float = 1.0) -> Case:
    return Case("MaxRoiPool", [IMAGE, BOXES], {"pooled_shape": shape, "spatial_scale": scale}, id=id)


CASES = [
    pool("cells", [2, 3]),
    pool("scaled", [3, 2], 0.75),
    pool("one", [1, 1]),
    pool("more-than-elements", [4, 5], 0.5),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_what_the_runtime_does(case: Case) -> None:
    check_forward(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16(case: Case) -> None:
    check_float16(replace(case, inputs=[100 * IMAGE, BOXES]))


def test_no_boxes() -> None:
    case = replace(CASES[0], inputs=[IMAGE, np.zeros((0, 5))])
    for dynamic in (False, True):
        (found,) = pulled_back(case, np.zeros((0, 3, 2, 3)), dynamic=dynamic)
        np.testing.assert_array_equal(found, np.zeros(IMAGE.shape))


def test_the_first_of_tied_maxima_takes_all() -> None:
    """Row by row, as in MaxPool; two boxes add up."""
    boxes = np.array([[0, 0, 0, 2, 1], [0, 1, 0, 2, 1.0]])
    case = Case("MaxRoiPool", [np.array([[[[1.0, 1, 0], [2, 0, 2]]]]), boxes], {"pooled_shape": [1, 1]})
    (found,) = pulled_back(case, [[[[5]]], [[[7]]]])
    np.testing.assert_array_equal(found, [[[[0, 0, 0], [5, 0, 7]]]])
