from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_torch, check_vjp

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(43)
REAL, COMPLEX = (2, 6, 5, 1), (2, 6, 5, 2)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def transform(id: str, x: tuple[int, ...], *rest: Any, opset: int = 20, **form: Any) -> Case:
    inputs = [tensor(*x), *[None if n is None else np.array(n) for n in rest]]
    constants = tuple(1 + i for i, n in enumerate(rest) if n is not None)
    return Case("DFT", inputs, form, constants=constants, opset=opset, id=id, free=(0, 1, 2))


HALF = {"onesided": 1}
BACK = {"inverse": 1}
DFTS = [
    transform("real", REAL),
    transform("real-half", REAL, **HALF),
    transform("real-half-axis", REAL, None, 1, **HALF),
    transform("complex", COMPLEX, None, -2),
    transform("complex-inverse", COMPLEX, None, 1, **BACK),
    transform("real-inverse", REAL, None, 1, **BACK),
    transform("half-back", COMPLEX, None, 1, **HALF, **BACK),
    transform("half-back-odd", COMPLEX, 7, -2, **HALF, **BACK),
    transform("half-back-shorter", COMPLEX, 6, 1, **HALF, **BACK),
    *[
        transform(f"{id}-{n}", x, n, 1, **form)
        for n in (4, 9)
        for id, x, form in (("real-half", REAL, HALF), ("complex", COMPLEX, {}), ("inverse", COMPLEX, BACK))
    ],
    transform("opset18", REAL, opset=18, **HALF),
    transform("opset18-axis", COMPLEX, 4, opset=18, axis=2),
    replace(transform("length-computed", REAL, np.array(8), 1, **HALF), constants=(2,)),
    replace(transform("real-or-complex", REAL), free=None),
]


def frames(id: str, x: tuple[int, ...], step: int, window: np.ndarray | None, width: int | None, **form: Any) -> Case:
    inputs = [tensor(*x), np.array(step), window, None if width is None else np.array(width)]
    constants = tuple(i for i in (1, 2, 3) if inputs[i] is not None)
    return Case("STFT", inputs, form, constants=constants, opset=18, id=id, free=(0, 1))


STFTS = [
    frames("window", (2, 16, 1), 2, np.hanning(6), 6),
    frames("window-alone", (1, 11, 1), 3, np.hamming(4), None),
    frames("apart", (1, 17, 1), 5, None, 4),
    frames("two-sided", (2, 12, 1), 4, np.hanning(8), 8, onesided=0),
    frames("opset21", (1, 12, 1), 1, None, 8),
]
WINDOWS = [
    replace(case, constants=(1, 3) if len(case.inputs) > 3 and case.inputs[3] is not None else (1,), wrt=(0, 2), id=id)
    for case, id in (
        (STFTS[0], "learnt"),
        (replace(STFTS[1], free=()), "learnt-alone"),
        (STFTS[3], "learnt-two-sided"),
        (frames("", (1, 12, 2), 3, np.hanning(7), 7, onesided=0), "learnt-complex"),
    )
]
CASES = [*DFTS, *STFTS, *WINDOWS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


def twin(torch: Any, case: Case, x: Any, n: Any = None, axis: Any = None) -> Any:
    """The same in torch."""
    axis = case.attributes.get("axis", 1) if case.opset < 20 else -2 if axis is None else int(axis)
    axis, n = axis % x.ndim, None if n is None else int(n)
    form = (case.attributes.get("inverse", 0), case.attributes.get("onesided", 0))
    z = x[..., 0] if x.shape[-1] == 1 else torch.complex(x[..., 0], x[..., 1])
    functions = {(0, 0): "fft", (0, 1): "rfft", (1, 0): "ifft", (1, 1): "irfft"}
    y = getattr(torch.fft, functions[form])(z, n, axis)
    return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y[..., None]


@pytest.mark.parametrize("case", DFTS, ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs))


def test_what_must_be_constant() -> None:
    for case, reason in [
        (replace(transform("", REAL, None, 1), constants=()), "an axis that is not constant for DFT"),
        (replace(STFTS[0], free=None), "whether it is real or complex"),
        (replace(STFTS[0], constants=()), "a frame length or step that is not constant for STFT"),
    ]:
        with pytest.raises(UnsupportedGradient, match=reason):
            check_vjp(case)
