from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_affine, check_float16, check_forward, check_vjp, pulled_back, with_gradients

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(43)


def deform(
    id: str,
    w: tuple[int, ...],
    outputs: tuple[int, int],
    bias: bool = False,
    masked: bool = False,
    opset: int = 19,
    **form: Any,
) -> Case:
    """Places in and around the image, at odd hundredths, so that none is on a kink."""
    places = form.get("offset_group", 1) * w[2] * w[3]
    offset = RNG.choice(np.arange(-2.393, 2.4, 0.0871), (2, 2 * places, *outputs))
    mask = RNG.uniform(0.2, 1, (2, places, *outputs)) if masked else None
    inputs = [RNG.standard_normal((2, 4, 5, 6)), RNG.standard_normal(w), offset]
    inputs += [RNG.standard_normal(w[0]) if bias else None, mask] if bias or masked else []
    wrt = tuple(k for k, value in enumerate(inputs) if value is not None)
    return Case("DeformConv", inputs, form, wrt=wrt, opset=opset, id=id)


CASES = [
    deform("plain", (3, 4, 2, 2), (4, 5)),
    deform("bias-mask", (3, 4, 2, 3), (4, 4), bias=True, masked=True, opset=22),
    deform("padded", (2, 4, 3, 3), (3, 3), masked=True, strides=[2, 2], pads=[1, 1, 1, 1], dilations=[1, 1]),
    deform("dilated", (2, 4, 2, 2), (3, 3), dilations=[2, 3]),
    deform("groups", (4, 2, 2, 2), (4, 5), group=2, masked=True),
    deform("offset-groups", (4, 4, 2, 2), (4, 5), offset_group=2, masked=True, bias=True),
    deform("both-groups", (6, 2, 1, 2), (3, 3), group=2, offset_group=4, masked=True, strides=[2, 2]),
]
FIXED = [  # weights as initializers, images and places of any size
    replace(case, constants=(1,), wrt=tuple(k for k in case.wrt if k != 1), id=f"{case.id}-fixed") for case in CASES
]
CASES = [replace(case, free=()) for case in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *FIXED], ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_what_the_runtime_does(case: Case) -> None:
    check_forward(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_transpose_of_what_the_runtime_does(case: Case) -> None:
    check_affine(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case, tolerance=8e-3)


def test_without_offsets_it_is_a_convolution() -> None:
    plain = CASES[0]
    still = [*plain.inputs[:2], np.zeros_like(plain.inputs[2])]
    g = RNG.standard_normal((2, 3, 4, 5))
    deformed = pulled_back(Case("DeformConv", still, {}, wrt=(0, 1), opset=19), g)
    straight = pulled_back(Case("Conv", still[:2], {}, wrt=(0, 1), opset=19), g)
    for found, expected in zip(deformed, straight, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_weights_of_unknown_size_are_refused() -> None:
    with pytest.raises(UnsupportedGradient, match="weights of unknown size for DeformConv"):
        with_gradients(replace(CASES[0], free=(2, 3)), np.dtype("float32"), True)
