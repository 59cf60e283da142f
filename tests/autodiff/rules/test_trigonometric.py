from __future__ import annotations

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

RNG = np.random.default_rng(47)
DOMAINS = {  # where the function is, and the float16 numbers of its derivative are, finite
    **dict.fromkeys(["Sin", "Cos"], (-9.0, 9.0)),
    **dict.fromkeys(["Tan"], (-1.2, 1.2)),
    **dict.fromkeys(["Sinh", "Cosh", "Asinh", "Atan"], (-3.0, 3.0)),
    **dict.fromkeys(["Asin", "Acos", "Atanh"], (-0.9, 0.9)),
    "Acosh": (1.2, 4.0),
}
CASES = [
    Case(op_type, [RNG.uniform(*DOMAINS[op_type], (2, 3, 4))], opset=opset, id=str(opset))
    for op_type in DOMAINS
    for opset in (18, 22)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, x: getattr(torch, case.op_type.lower())(x))


def test_derivatives_near_the_edge_keep_their_digits() -> None:
    x = np.array([1 - 2.0**-24, 1 - 2.0**-20], np.float32)
    for op_type, power in (("Asin", 0.5), ("Atanh", 1)):
        found = pulled_back(Case(op_type, [x]), np.ones(2), dtype="float32")[0]
        np.testing.assert_allclose(found, (1 - x.astype(np.float64) ** 2) ** -power, rtol=1e-6)
