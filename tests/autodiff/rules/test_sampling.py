from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_affine, check_float16, check_forward, check_torch, check_vjp, pulled_back

RNG = np.random.default_rng(29)
MODES = {16: ("bilinear", "bicubic", "nearest"), 20: ("linear", "cubic", "nearest")}


def places(*shape: int, n: int) -> np.ndarray:
    """Inside and outside of the image, and never on a kink: at odd hundredths of an element of 7 × 5 × 3."""
    return RNG.choice(np.arange(-1.893, 1.9, 0.0371), (*shape, n))


def sample(mode: str, padding: str, corners: int, opset: int = 18, n: int = 2) -> Case:
    x = RNG.standard_normal((2, 3, 7, 5, 3)[: n + 2])
    form = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    wrt = (0,) if mode == "nearest" else (0, 1)
    grid = places(2, *(4, 3, 2)[:n], n=n)
    return Case("GridSample", [x, grid], form, wrt=wrt, opset=opset, id=f"{n}d-{mode}-{padding}-{corners}-{opset}")


CASES = [
    *[
        sample(mode, padding, corners, opset)
        for opset, modes in MODES.items()
        for mode in modes
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
        if opset == 20 or (padding, corners) == ("zeros", 0)  # the older names of the same
    ],
    *[
        sample(mode, padding, corners, 20, n=3)
        for mode in ("linear", "nearest")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ],
    Case("GridSample", [RNG.standard_normal((1, 2, 1, 4)), places(1, 2, 3, n=2)], {}, wrt=(0,), id="default"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_transpose_of_what_the_runtime_does(case: Case) -> None:
    check_affine(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_what_the_runtime_does(case: Case) -> None:
    """So that finite differences are those of the operator."""
    check_forward(case)


def twin(torch: Any, case: Case, x: Any, grid: Any) -> Any:
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode, padding = case.attributes.get("mode", "linear"), case.attributes.get("padding_mode", "zeros")
    corners = bool(case.attributes.get("align_corners", 0))
    return torch.nn.functional.grid_sample(x, grid, names.get(mode, mode), padding, corners)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, x, grid: twin(torch, case, x, grid))


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_the_identity_grid_is_that_of_torch(padding: str, corners: int) -> None:
    """Its places are elements, the outer ones included: kinks, where torch's side is taken."""
    ends = (-1.0, 1.0) if corners else (-0.75, 0.75)
    line = np.linspace(*ends, 4)
    grid = np.stack(np.meshgrid(line, line, indexing="xy"), axis=-1)[None]
    form = {"mode": "linear", "padding_mode": padding, "align_corners": corners}
    case = Case("GridSample", [RNG.standard_normal((1, 2, 4, 4)), grid], form, wrt=(0, 1), opset=20)
    check_torch(case, lambda torch, x, g: twin(torch, case, x, g))


def test_a_known_place() -> None:
    """A quarter of the way from the first to the second of two elements."""
    x, grid = np.array([[[[10.0, 30.0]]]]), np.array([[[[-0.5, 0.0]]]])
    case = Case("GridSample", [x, grid], {"mode": "linear", "align_corners": 1}, wrt=(0, 1), opset=20)
    image, place = pulled_back(case, [[[[8]]]])
    np.testing.assert_array_equal(image, [[[[6, 2]]]])
    np.testing.assert_array_equal(place, [[[[80, 0]]]])


def test_the_nearest_element_does_not_change_with_the_place() -> None:
    case = Case("GridSample", CASES[0].inputs, {"mode": "nearest"}, wrt=(1,), opset=20)
    (found,) = pulled_back(case, np.ones((2, 3, 4, 3)))
    np.testing.assert_array_equal(found, np.zeros((2, 4, 3, 2)))
