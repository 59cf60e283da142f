from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

RNG = np.random.default_rng(11)
IMAGE, LINE, VOLUME = (2, 3, 7, 8), (2, 3, 11), (1, 2, 5, 6, 4)
BATCH = (0,)  # the only symbolic axis


def distinct(*shape: int) -> np.ndarray:
    """No two elements nearer than 0.01, so that a step of a finite difference changes no maximum."""
    return 0.01 * RNG.permutation(int(np.prod(shape))).reshape(shape)


def pool(op_type: str, id: str, shape: tuple[int, ...], kernel: list[int], free: Any = None, **form: Any) -> Case:
    form = {"kernel_shape": kernel, **form}
    return Case(op_type, [distinct(*shape)], form, free=free, opset=form.pop("opset", 18), id=id)


FORMS: dict[str, tuple[tuple[int, ...], list[int], dict[str, Any]]] = {
    "resnet": (IMAGE, [3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "vgg": (IMAGE, [2, 2], {"strides": [2, 2]}),
    "vgg-even": ((2, 3, 6, 8), [2, 2], {"strides": [2, 2]}),
    "vgg-ceil": (IMAGE, [2, 2], {"strides": [2, 2], "ceil_mode": 1}),
    "squeezenet": (IMAGE, [3, 3], {"strides": [2, 2], "ceil_mode": 1}),
    "inception": (IMAGE, [3, 3], {"pads": [1, 1, 1, 1]}),
    "spp": ((1, 2, 6, 5), [5, 5], {"pads": [2, 2, 2, 2]}),
    "larger-than-image": ((1, 2, 2, 1), [5, 3], {"pads": [2, 1, 2, 1]}),
    "crnn": (IMAGE, [2, 2], {"strides": [2, 1], "pads": [0, 1, 0, 1]}),
    "rows": (IMAGE, [2, 1], {"strides": [2, 1]}),
    "columns": (IMAGE, [1, 3], {}),
    "every-second": (IMAGE, [1, 1], {"strides": [2, 2]}),
    "gaps": (IMAGE, [2, 2], {"strides": [3, 4]}),
    "thirds": (IMAGE, [3, 2], {"strides": [3, 2], "pads": [1, 0, 1, 0]}),
    "overlap-3": ((1, 2, 10, 9), [5, 4], {"strides": [2, 3], "pads": [2, 0, 1, 3]}),
    "uneven-ceil": (IMAGE, [5, 3], {"strides": [3, 2], "pads": [1, 0, 2, 1], "ceil_mode": 1}),
    "whole": (IMAGE, [7, 8], {}),
    "identity": (IMAGE, [1, 1], {}),
    "same-upper": (IMAGE, [2, 3], {"auto_pad": "SAME_UPPER"}),
    "same-lower": (IMAGE, [2, 4], {"auto_pad": "SAME_LOWER"}),
    "same-upper-strided": (IMAGE, [3, 3], {"auto_pad": "SAME_UPPER", "strides": [2, 3], "free": BATCH}),
    "same-lower-strided": (IMAGE, [3, 4], {"auto_pad": "SAME_LOWER", "strides": [2, 3], "free": BATCH}),
    "valid": (IMAGE, [3, 3], {"auto_pad": "VALID", "strides": [2, 3]}),
    "same-upper-unknown-size": (IMAGE, [3, 3], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same-lower-unknown-size": (IMAGE, [3, 4], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "valid-ceil": (IMAGE, [2, 3], {"auto_pad": "VALID", "strides": [2, 2], "ceil_mode": 1}),
    "ceil-into-padding": ((1, 2, 5, 7), [2, 3], {"strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    "batch": (IMAGE, [3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1], "free": BATCH}),
    "batch-ceil": (IMAGE, [2, 2], {"strides": [2, 2], "ceil_mode": 1, "free": BATCH}),
    "1d": (LINE, [3], {"strides": [2], "pads": [1, 1]}),
    "1d-ceil": (LINE, [4], {"strides": [3], "ceil_mode": 1}),
    "3d": (VOLUME, [3, 2, 3], {"strides": [2, 2, 1], "pads": [1, 0, 1, 0, 1, 1]}),
    "3d-even": ((1, 2, 4, 4, 2), [2, 2, 2], {"strides": [2, 2, 2]}),
    "3d-ceil": (VOLUME, [2, 3, 3], {"strides": [2, 2, 2], "ceil_mode": 1}),
}
DILATED: dict[str, tuple[tuple[int, ...], list[int], dict[str, Any]]] = {
    "dilated": (IMAGE, [3, 2], {"dilations": [2, 3], "pads": [1, 1, 2, 0]}),
    "dilated-strided": (IMAGE, [3, 2], {"dilations": [2, 3], "strides": [2, 2]}),
    "dilated-by-stride": (IMAGE, [3, 3], {"dilations": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated-ceil": (IMAGE, [2, 2], {"dilations": [3, 2], "strides": [3, 2], "ceil_mode": 1}),
    "dilated-same-upper": (IMAGE, [3, 2], {"dilations": [2, 2], "auto_pad": "SAME_UPPER"}),
    "dilated-same-strided": (IMAGE, [3, 4], {"dilations": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "dilated-valid": (IMAGE, [3, 2], {"dilations": [2, 3], "auto_pad": "VALID"}),
}
NAMED = {id: pool("MaxPool", id, shape, kernel, **form) for id, (shape, kernel, form) in (FORMS | DILATED).items()}
WITH_INDICES = [
    replace(NAMED["resnet"], outputs=2, id="indices"),
    replace(NAMED["resnet"], outputs=2, attributes={**NAMED["resnet"].attributes, "storage_order": 1}, id="by-columns"),
]
AVERAGES = [
    pool("AveragePool", f"{id}-{'with' if include else 'without'}-pad", *form[:2], count_include_pad=include, **form[2])
    for id, form in FORMS.items()
    for include in (0, 1)
] + [
    pool("AveragePool", f"{id}-{include}", *form[:2], count_include_pad=include, opset=19, **form[2])
    for id, form in DILATED.items()
    for include in (0, 1)
]
GLOBAL = [
    Case(op_type, [distinct(*shape)], free=free, id=f"{len(shape) - 2}d{'' if free is None else '-batch'}")
    for op_type in ("GlobalMaxPool", "GlobalAveragePool")
    for shape, free in [(IMAGE, None), (LINE, None), (VOLUME, None), (IMAGE, BATCH)]
]
CASES = [*NAMED.values(), *WITH_INDICES, *AVERAGES, *GLOBAL]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [*list(NAMED.values())[::4], *AVERAGES[::6], *GLOBAL], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, x: Any) -> Any:
    """The pool in torch, which pads evenly only: what is uneven is padded before."""
    f, n, form = torch.nn.functional, x.ndim - 2, case.attributes
    if case.op_type.startswith("Global"):
        apply = {"GlobalMaxPool": (f.adaptive_max_pool1d, f.adaptive_max_pool2d, f.adaptive_max_pool3d)}
        default = (f.adaptive_avg_pool1d, f.adaptive_avg_pool2d, f.adaptive_avg_pool3d)
        return apply.get(case.op_type, default)[n - 1](x, 1)
    ones = [1] * n
    kernel, strides, dilations = form["kernel_shape"], form.get("strides", ones), form.get("dilations", ones)
    pads, ceil = form.get("pads", [0] * n), bool(form.get("ceil_mode", 0))
    if case.op_type == "MaxPool":
        apply = (f.max_pool1d, f.max_pool2d, f.max_pool3d)[n - 1]
        return apply(x, kernel, strides, pads[:n], dilations, ceil)
    apply = (f.avg_pool1d, f.avg_pool2d, f.avg_pool3d)[n - 1]
    return apply(x, kernel, strides, pads[:n], ceil, bool(form["count_include_pad"]))


def has_twin(case: Case) -> bool:
    form = case.attributes
    pads = form.get("pads", [])
    even = list(pads[: len(pads) // 2]) == list(pads[len(pads) // 2 :])
    return even and "auto_pad" not in form and not (case.op_type == "AveragePool" and "dilations" in form)


@pytest.mark.parametrize("case", [c for c in CASES if c.outputs == 1 and has_twin(c)], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, x: twin(torch, case, x))


TIED = [c for c in [*NAMED.values(), *GLOBAL] if "Max" in c.op_type and has_twin(c)]


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("case", TIED, ids=str)
def test_the_first_of_tied_maxima_takes_all_as_in_torch(case: Case, levels: int) -> None:
    """Whole numbers from 0 on, so that windows are full of ties, and all-zero windows as after a ReLU are common."""
    torch = pytest.importorskip("torch", reason="torch: not installed")
    x = RNG.integers(0, levels, np.shape(case.inputs[0])).astype(np.float64)
    leaf = torch.tensor(x, requires_grad=True)
    y = twin(torch, case, leaf)
    g = RNG.integers(-8, 9, tuple(y.shape)).astype(np.float64)
    y.backward(torch.tensor(g))
    tied = replace(case, inputs=[x])
    for form in ({"dtype": "float64"}, {}, {"dynamic": True}, {"dtype": "float16"}):
        (found,) = pulled_back(tied, g, **form)
        np.testing.assert_array_equal(found, leaf.grad.numpy().astype(found.dtype), err_msg=str(form))


def test_known_ties() -> None:
    """Windows [0 0 3], [3 3 1], [1 0 0]: the first of equals, row by row; overlapping windows add up."""
    x = np.array([[[0, 0, 3, 3, 1, 0, 0]]], np.float64)
    case = Case("MaxPool", [x], {"kernel_shape": [3], "strides": [2]})
    np.testing.assert_array_equal(pulled_back(case, [[[5, 7, 9]]])[0], [[[0, 0, 12, 0, 9, 0, 0]]])
    square = Case("MaxPool", [np.array([[[[1.0, 2], [2, 2]]]])], {"kernel_shape": [2, 2]})
    np.testing.assert_array_equal(pulled_back(square, [[[[5]]]])[0], [[[[0, 5], [0, 0]]]])
    zeros = Case("GlobalMaxPool", [np.zeros((1, 2, 2, 2))])
    np.testing.assert_array_equal(pulled_back(zeros, [[[[3]], [[4]]]])[0], [[[[3, 0], [0, 0]], [[4, 0], [0, 0]]]])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_below_all_padding(dtype: str) -> None:
    """Padding is never the maximum, however negative the image is."""
    low = -60000.0 if dtype == "float16" else -1e38
    case = Case("MaxPool", [np.full((1, 1, 3, 3), low)], {"kernel_shape": [3, 3], "pads": [1] * 4})
    (found,) = pulled_back(case, np.ones((1, 1, 3, 3)), dtype=dtype)
    np.testing.assert_array_equal(found, [[[[4, 2, 0], [2, 1, 0], [0, 0, 0]]]])


def test_known_averages() -> None:
    """Counts of 2, 3, 2 without the padding; of 3, 3, 3 with it; with ceil_mode the window beyond the end counts 1."""
    line = {"kernel_shape": [3], "pads": [1, 1]}
    three = np.zeros((1, 1, 3))
    without = pulled_back(Case("AveragePool", [three], line), [[[6, 6, 6]]])[0]
    np.testing.assert_allclose(without, [[[5, 8, 5]]], rtol=1e-6)
    including = pulled_back(Case("AveragePool", [three], {**line, "count_include_pad": 1}), [[[6, 6, 6]]])[0]
    np.testing.assert_allclose(including, [[[4, 6, 4]]], rtol=1e-6)
    ceil = {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}
    for include in (0, 1):
        case = Case("AveragePool", [three], {**ceil, "count_include_pad": include})
        for dynamic in (False, True):
            np.testing.assert_allclose(pulled_back(case, [[[6, 6]]], dynamic=dynamic)[0], [[[3, 3, 6]]])


def test_a_global_average_stays_compact() -> None:
    case = Case("GlobalAveragePool", [np.zeros((2, 3, 4, 5))])
    nodes = [n for n in with_gradients(case, np.dtype("float32"), False).graph if (n.name or "").startswith("grad/")]
    assert [n.op_type for n in nodes] == ["Div", "Expand", "Identity"]
    assert list(nodes[0].outputs[0].shape or ()) == [2, 3, 1, 1]


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_a_window_that_only_shape_inference_counts(op_type: str) -> None:
    """2 × 2 windows at −1, 1, 3 and 5 of five elements: the last one reads padding only, and no runtime has it."""
    form = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    case = Case(op_type, [distinct(1, 1, 5, 5)], form)
    for dynamic in (False, True):
        (found,) = pulled_back(case, np.ones((1, 1, 3, 3)), dynamic=dynamic)
        assert found.sum() == pytest.approx(9)
