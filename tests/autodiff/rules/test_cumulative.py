from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(37)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def along(op_type: str, axis: int, exclusive: int, reverse: int, **engine: Any) -> Case:
    form = {"exclusive": exclusive, "reverse": reverse}
    return Case(
        op_type, [tensor(2, 4, 3), np.array(axis)], form, constants=(1,), id=f"{axis}-{exclusive}{reverse}", **engine
    )


FORMS = [(axis, exclusive, reverse) for axis in (1, -1) for exclusive in (0, 1) for reverse in (0, 1)]
SUMS = [
    *[along("CumSum", *form) for form in FORMS],
    Case("CumSum", [tensor(4), np.array(0)], constants=(1,), id="line"),
    Case("CumSum", [tensor(2, 3), np.array(1)], id="axis-computed"),
]
PRODUCTS = [
    *[along("CumProd", *form, opset=26) for form in FORMS],
    Case("CumProd", [tensor(4), np.array(0)], constants=(1,), opset=26, id="line"),
]
TRIANGLES = [
    *[
        Case("Trilu", [tensor(*shape), np.array(k)], {"upper": upper}, constants=(1,), id=f"{len(shape)}d-{k}-{upper}")
        for shape in ((3, 4), (2, 4, 3))
        for k in (-1, 0, 2)
        for upper in (0, 1)
    ],
    Case("Trilu", [tensor(3, 3)], id="default"),
    Case("Trilu", [tensor(3, 3), np.array(1)], {"upper": 0}, id="k-computed"),
]
STEPS = [  # the limit is no whole number of steps away: there the length would jump
    Case("Range", [np.array(0.3), np.array(2.5), np.array(0.4)], wrt=(0, 2), id="up"),
    Case("Range", [np.array(1.5), np.array(-2.0), np.array(-0.8)], wrt=(0, 2), id="down"),
    Case("Range", [np.array(1.5), np.array(2.0), np.array(0.8)], wrt=(0, 2), opset=27, id="one"),
]
CASES = [*SUMS, *PRODUCTS, *STEPS, *TRIANGLES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.op_type not in ("CumProd", "Range")], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, x: Any, argument: Any = None) -> Any:
    if case.op_type == "Trilu":
        function = torch.triu if case.attributes.get("upper", 1) else torch.tril
        return function(x, int(argument or 0))
    axis = int(argument)
    function = torch.cumsum if case.op_type == "CumSum" else torch.cumprod
    x = x.flip(axis) if case.attributes.get("reverse") else x
    y = function(x, axis)
    if case.attributes.get("exclusive"):
        first = torch.full_like(y.narrow(axis, 0, 1), float(case.op_type == "CumProd"))
        y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return y.flip(axis) if case.attributes.get("reverse") else y


@pytest.mark.parametrize("case", [c for c in CASES if c.op_type != "Range"], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs))


@pytest.mark.parametrize("zeros", [[0], [1, 2]])
def test_running_products_through_zeros(zeros: list[int]) -> None:
    for case in PRODUCTS[:4]:
        x = np.array(case.inputs[0])
        x[:, zeros] = 0
        through = replace(case, inputs=[x, *case.inputs[1:]])
        check_torch(through, lambda torch, *inputs, c=through: twin(torch, c, *inputs))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({}, [15, 14, 12, 8]),
        ({"exclusive": 1}, [14, 12, 8, 0]),
        ({"reverse": 1}, [1, 3, 7, 15]),
        ({"exclusive": 1, "reverse": 1}, [0, 1, 3, 7]),
    ],
)
def test_known_sums(form: dict[str, int], expected: list[float]) -> None:
    case = Case("CumSum", [np.ones(4), np.array(0)], form, constants=(1,))
    for dtype in ("float64", "float32", "float16"):
        np.testing.assert_array_equal(pulled_back(case, [1, 2, 4, 8], dtype=dtype)[0], expected)


def test_a_running_product_along_an_axis_that_is_computed_is_refused() -> None:
    case = Case("CumProd", [np.ones(4), np.array(0)], opset=26)
    with pytest.raises(UnsupportedGradient, match="an axis that is not constant for CumProd, input 0"):
        pulled_back(case, np.ones(4))


def test_range_by_hand() -> None:
    """y = (a, a + d, a + 2d) and g = (1, 10, 100):  ā = 111, d̄ = 0 · 1 + 1 · 10 + 2 · 100."""
    case = Case("Range", [np.array(0.0), np.array(2.5), np.array(1.0)], wrt=(0, 2))
    assert [float(x) for x in pulled_back(case, np.array([1.0, 10.0, 100.0]))] == [111, 210]
