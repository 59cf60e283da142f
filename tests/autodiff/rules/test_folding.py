from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_affine, check_float16, check_torch, check_vjp, pulled_back, with_gradients

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(37)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def fold(id: str, columns: int, image: tuple[int, ...], block: tuple[int, ...], **form: Any) -> Case:
    x = RNG.standard_normal((2, 3 * int(np.prod(block)), columns))
    return Case("Col2Im", [x, ints(*image), ints(*block)], form, constants=(1, 2), id=id)


FOLDS = [
    fold("plain", 20, (5, 7), (2, 3)),
    fold("patches", 6, (4, 6), (2, 2), strides=[2, 2]),
    fold("padded", 12, (4, 6), (3, 3), strides=[2, 2], pads=[2, 1, 1, 2]),
    fold("dilated", 3, (5, 7), (3, 2), dilations=[2, 3], strides=[1, 2], pads=[0, 1, 0, 1]),
    fold("1d", 3, (7,), (3,), strides=[2]),
    fold("3d", 8, (3, 3, 3), (2, 2, 2)),
]


def unpool(id: str, x: tuple[int, ...], places: list[int], output: list[int] | None = None, **form: Any) -> Case:
    inputs = [RNG.standard_normal(x), ints(*places).reshape(x)] + ([] if output is None else [ints(*output)])
    constants = (2,) if output else ()
    return Case("MaxUnpool", inputs, form, constants=constants, id=id)


UNPOOLS = [
    unpool("plain", (1, 1, 2, 2), [0, 3, 8, 10], kernel_shape=[2, 2], strides=[2, 2]),
    unpool("channels", (2, 2, 1, 2), [0, 3, 12, 11, 17, 18, 28, 31], kernel_shape=[2, 2], strides=[2, 2]),
    unpool("output-shape", (1, 1, 2, 2), [0, 3, 8, 24], [1, 1, 5, 5], kernel_shape=[2, 2], strides=[2, 2]),
    unpool("1d", (1, 1, 3), [1, 2, 5], kernel_shape=[2], strides=[2]),
    unpool("padded", (1, 1, 2, 2), [0, 1, 7, 4], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    unpool("same-place", (1, 1, 2, 2), [5, 5, 8, 5], kernel_shape=[2, 2], strides=[2, 2]),
]
CASES = [*FOLDS, *UNPOOLS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_transpose_of_what_the_runtime_does(case: Case) -> None:
    check_affine(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


@pytest.mark.parametrize("case", [c for c in FOLDS if len(c.inputs[1]) == 2 and c.id != "padded"], ids=str)
def test_torch_folds(case: Case) -> None:
    form = case.attributes
    pads = form.get("pads", [0] * 4)[:2]
    ones = [1, 1]

    def twin(torch: Any, x: Any, image: Any, block: Any) -> Any:
        return torch.nn.functional.fold(
            x, image.tolist(), block.tolist(), form.get("dilations", ones), pads, form.get("strides", ones)
        )

    check_torch(case, twin)


def test_torch_unpools() -> None:
    case = UNPOOLS[0]
    check_torch(case, lambda torch, x, places: torch.nn.functional.max_unpool2d(x, places, [2, 2], [2, 2]))


def test_the_last_of_elements_at_one_place_stands() -> None:
    (found,) = pulled_back(UNPOOLS[-1], np.arange(16.0).reshape(1, 1, 4, 4))
    np.testing.assert_array_equal(found, [[[[0, 0], [8, 5]]]])


def test_a_block_that_is_not_constant_is_refused() -> None:
    case = Case("Col2Im", FOLDS[0].inputs, {}, constants=(1,))
    with pytest.raises(UnsupportedGradient, match="a block_shape that is not constant for Col2Im"):
        with_gradients(case, np.dtype("float32"), False)
