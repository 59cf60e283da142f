from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_forward, check_torch, check_vjp, pulled_back

RNG = np.random.default_rng(31)
IMAGE, LINE, VOLUME = (2, 3, 7, 8), (2, 3, 11), (1, 2, 5, 6, 4)


def away_from_zero(*shape: int) -> np.ndarray:
    return RNG.choice([-1, 1], shape) * RNG.uniform(0.3, 2, shape)


def pool(id: str, p: int, kernel: list[int], shape: tuple[int, ...] = IMAGE, free: Any = None, **form: Any) -> Case:
    form = {"kernel_shape": kernel, "p": p, **form}
    return Case("LpPool", [away_from_zero(*shape)], form, free=free, id=f"{id}-{p}")


FORMS: dict[str, tuple[list[int], tuple[int, ...], dict[str, Any]]] = {
    "plain": ([2, 3], IMAGE, {}),
    "padded": ([3, 3], IMAGE, {"pads": [1, 0, 1, 1]}),
    "side-by-side": ([2, 2], IMAGE, {"strides": [2, 2]}),
    "strided": ([3, 3], IMAGE, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "ceil": ([3, 2], IMAGE, {"strides": [2, 3], "ceil_mode": 1}),
    "dilated": ([3, 2], IMAGE, {"dilations": [2, 3], "strides": [2, 1]}),
    "same": ([3, 3], IMAGE, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same-lower": ([2, 3], IMAGE, {"auto_pad": "SAME_LOWER"}),
    "valid": ([2, 3], IMAGE, {"auto_pad": "VALID", "strides": [2, 2]}),
    "1d": ([3], LINE, {"strides": [2], "pads": [1, 1]}),
    "3d": ([2, 3, 2], VOLUME, {"strides": [2, 2, 2]}),
}
POOLS = [pool(id, p, kernel, shape, **form) for id, (kernel, shape, form) in FORMS.items() for p in (1, 2, 3)]
GLOBAL = [
    Case("GlobalLpPool", [away_from_zero(*shape)], {"p": p}, id=f"{len(shape) - 2}d-{p}")
    for shape in (IMAGE, LINE, VOLUME)
    for p in (1, 2, 3)
]
CASES = [*POOLS, *GLOBAL, Case("LpPool", [away_from_zero(*IMAGE)], {"kernel_shape": [2, 2]}, id="default")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_what_the_runtime_does(case: Case) -> None:
    check_forward(case)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("id", ["plain", "side-by-side", "valid", "3d"])
def test_torch(id: str, p: int) -> None:
    """Of positive numbers: torch takes powers without absolute values."""
    (case,) = [c for c in POOLS if c.id == f"{id}-{p}"]
    positive = replace(case, inputs=[np.abs(case.inputs[0])])
    kernel, strides = case.attributes["kernel_shape"], case.attributes.get("strides", [1, 1])
    name = f"lp_pool{len(kernel)}d"
    check_torch(
        positive,
        lambda torch, x: getattr(torch.nn.functional, name)(x, p, kernel, strides),
    )


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("op_type", ["LpPool", "GlobalLpPool"])
def test_windows_of_zeros_have_no_gradient(op_type: str, p: int) -> None:
    form = {"kernel_shape": [2, 2], "strides": [2, 2]} if op_type == "LpPool" else {}
    case = Case(op_type, [np.zeros((1, 2, 4, 4))], {"p": p, **form})
    g = np.ones((1, 2, 2, 2) if op_type == "LpPool" else (1, 2, 1, 1))
    for dtype in ("float16", "float32", "float64"):
        (found,) = pulled_back(case, g, dtype=dtype)
        np.testing.assert_array_equal(found, np.zeros((1, 2, 4, 4)))


def test_a_known_norm() -> None:
    """‖(3, 4)‖ = 5: a gradient of 10 becomes (6, 8)."""
    case = Case("LpPool", [np.array([[[3.0, -4.0]]])], {"kernel_shape": [2]})
    np.testing.assert_allclose(pulled_back(case, [[[10]]])[0], [[[6, -8]]], rtol=1e-6)
