from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

from onnx_gradcam.autodiff.rules.convolution import flip
from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(7)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def conv(id: str, x: tuple[int, ...], w: tuple[int, ...], free: tuple[int, ...] | None = None, **form: Any) -> Case:
    """A Conv whose weights and bias are initializers."""
    return Case("Conv", [tensor(*x), tensor(*w), tensor(w[0])], form, constants=(1, 2), free=free, id=id)


def transposed(id: str, w: tuple[int, ...], x: tuple[int, ...] | None = None, **form: Any) -> Case:
    return Case("ConvTranspose", [tensor(*(x or IMAGE)), tensor(*w)], form, constants=(1,), id=id)


IMAGE = (2, 4, 7, 8)
BATCH = (0,)  # the only symbolic axis
ON_IMAGE: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((6, 4, 3, 3), {}),
    "padded": ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "pointwise": ((6, 4, 1, 1), {}),
    "pointwise-strided": ((6, 4, 1, 1), {"strides": [2, 2]}),
    "pointwise-padded": ((6, 4, 1, 1), {"pads": [1, 1, 1, 1]}),
    "groups": ((6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups-strided": ((6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "groups-dilated": ((6, 2, 3, 2), {"group": 2, "pads": [1, 0, 2, 1], "dilations": [2, 1]}),
    "depthwise": ((4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "depthwise-multiplier": ((8, 1, 3, 3), {"group": 4}),
    "depthwise-by-2": ((4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "depthwise-by-2-5x5": ((4, 1, 5, 5), {"group": 4, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "depthwise-by-2-uneven": ((4, 1, 3, 2), {"group": 4, "pads": [0, 1, 2, 0], "strides": [2, 2]}),
    "depthwise-by-2-gaps": ((4, 1, 1, 1), {"group": 4, "strides": [2, 2]}),
    "depthwise-by-2-far": ((4, 1, 2, 2), {"group": 4, "strides": [2, 2], "pads": [3, 2, 2, 3]}),
    "depthwise-by-2-dilated": ((4, 1, 3, 3), {"group": 4, "strides": [2, 2], "dilations": [2, 3]}),
    "depthwise-by-2-same": ((4, 1, 3, 3), {"group": 4, "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "depthwise-multiplier-by-2": ((8, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
    "depthwise-by-3-and-1": ((4, 1, 3, 3), {"group": 4, "strides": [3, 1]}),
    "strided-even": ((6, 4, 2, 2), {"strides": [2, 2]}),
    "strided-remainder": ((6, 4, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 3]}),
    "strided-uneven-pads": ((6, 4, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 3]}),
    "strided-dilated": ((6, 4, 3, 3), {"strides": [2, 2], "dilations": [2, 3], "pads": [2, 1, 2, 3]}),
    "strided-one-axis": ((6, 4, 1, 3), {"strides": [1, 2], "pads": [0, 1, 0, 1]}),
    "gaps": ((6, 4, 2, 1), {"strides": [3, 3]}),
    "patches": ((6, 4, 3, 4), {"strides": [3, 4]}),
    "whole-image": ((6, 4, 7, 8), {}),
    "wide-pads": ((6, 4, 2, 2), {"pads": [3, 3, 3, 3]}),
    "wide-pads-uneven": ((6, 4, 2, 3), {"pads": [3, 0, 0, 4]}),
    "wide-pads-strided": ((6, 4, 2, 2), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "valid": ((6, 4, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    "same-upper": ((6, 4, 2, 4), {"auto_pad": "SAME_UPPER"}),
    "same-lower": ((6, 4, 2, 4), {"auto_pad": "SAME_LOWER"}),
    "same-upper-strided": ((6, 4, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same-lower-strided": ((6, 4, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "same-gaps": ((6, 4, 1, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "same-one-axis-strided": ((6, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [1, 2]}),
}
NAMED = {id: conv(id, IMAGE, w, **form) for id, (w, form) in ON_IMAGE.items()}


def with_computed_weights(case: Case, kernel: bool = True) -> Case:
    """The same with weights and bias that are inputs of the graph, where they may have a gradient."""
    form = dict(case.attributes) | ({"kernel_shape": list(np.shape(case.inputs[1])[2:])} if kernel else {})
    wrt = tuple(range(len(case.inputs)))
    return replace(case, constants=(), attributes=form, wrt=wrt, id=f"{case.id}-computed{'' if kernel else '-bare'}")


UPPER = {"strides": [1, 1], "dilations": [1, 1], "output_shape": [8, 9], "auto_pad": "SAME_UPPER"}
BIASED = transposed("biased", (4, 3, 3, 3), strides=[2, 2])
TRANSPOSED = [
    transposed("plain", (4, 3, 3, 3)),
    transposed("padded", (4, 3, 3, 2), pads=[1, 0, 2, 1]),
    transposed("strided", (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    transposed("groups", (4, 3, 3, 2), strides=[2, 3], group=2, pads=[0, 1, 1, 0], output_padding=[1, 2]),
    transposed("depthwise", (4, 1, 3, 3), group=4, strides=[2, 1], dilations=[1, 2]),
    transposed("gaps", (4, 3, 2, 2), strides=[3, 3], output_padding=[2, 0]),
    transposed("same-upper", (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_UPPER"),
    transposed("same-lower", (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    transposed("valid", (4, 3, 3, 4), strides=[2, 3], auto_pad="VALID"),
    transposed("1d", (4, 3, 3), (2, 4, 5), strides=[2], output_padding=[1]),
    transposed("3d", (2, 3, 2, 3, 1), (1, 2, 3, 2, 4), strides=[2, 1, 3]),
    transposed("output-shape", (4, 3, 3, 3), strides=[2, 2], output_shape=[14, 16]),
    transposed("output-shape-upper", (4, 3, 3, 3), **UPPER),
    transposed("output-shape-larger", (4, 3, 3, 3), strides=[2, 2], output_shape=[16, 17]),
    transposed("output-shape-padded", (4, 3, 3, 3), strides=[2, 3], output_shape=[15, 24], output_padding=[1, 2]),
    replace(BIASED, inputs=[*BIASED.inputs, tensor(3)], constants=(1, 2)),
]
COMPUTED = "padded groups-dilated wide-pads-uneven depthwise-by-2 same-upper same-upper-strided strided-dilated".split()
CASES = [
    *NAMED.values(),
    *TRANSPOSED,
    *[with_computed_weights(NAMED[id]) for id in COMPUTED],
    *[with_computed_weights(NAMED[id], kernel=False) for id in ("padded", "groups-strided", "strided-uneven-pads")],
    *[with_computed_weights(case) for case in TRANSPOSED],
    *[with_computed_weights(case, kernel=False) for case in TRANSPOSED[1:6]],
    with_computed_weights(conv("1d-strided", (2, 4, 9), (6, 2, 4), group=2, strides=[3], pads=[1, 2])),
    with_computed_weights(conv("3d-strided", (1, 2, 4, 5, 6), (4, 1, 3, 2, 2), group=2, strides=[2, 1, 3])),
    conv("1d", (2, 4, 9), (6, 2, 3), group=2, pads=[1, 1]),
    conv("1d-strided", (2, 4, 9), (6, 4, 4), strides=[3], pads=[1, 2]),
    conv("1d-depthwise-by-2", (2, 4, 9), (4, 1, 3), group=4, strides=[2], pads=[1, 1]),
    conv("3d", (1, 2, 4, 5, 3), (4, 2, 3, 2, 1), pads=[1, 0, 0, 1, 1, 0]),
    conv("3d-strided", (1, 2, 4, 5, 6), (4, 1, 3, 2, 2), group=2, strides=[2, 1, 3], dilations=[1, 2, 1]),
    conv("3d-same", (1, 2, 4, 5, 6), (2, 2, 3, 2, 2), strides=[2, 2, 3], auto_pad="SAME_UPPER"),
    conv("batch", IMAGE, (6, 4, 3, 3), BATCH, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv("batch-uneven", IMAGE, (6, 4, 3, 3), BATCH, strides=[2, 2], pads=[0, 0, 1, 1]),
    conv("batch-depthwise", IMAGE, (4, 1, 3, 3), BATCH, group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    Case("Conv", [tensor(*IMAGE), tensor(6, 4, 3, 3)], {"strides": [2, 2]}, constants=(1,), opset=21, id="opset21"),
    # ONNX Runtime refuses an output_padding as large as the stride, which the specification and torch allow
    replace(transposed("wide-padding", (4, 3, 3, 3), dilations=[3, 3], output_padding=[2, 1]), ort=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.ort and 1 in c.constants][::3], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, x: Any, w: Any, b: Any = None) -> Any:
    n, given = w.ndim - 2, case.attributes
    ones = [1] * n
    strides, dilations, group = given.get("strides", ones), given.get("dilations", ones), given.get("group", 1)
    pads = given.get("pads", [0] * 2 * n)
    if case.op_type == "Conv":
        uneven = [p for j in reversed(range(n)) for p in (pads[j], pads[n + j])]
        apply = [torch.conv1d, torch.conv2d, torch.conv3d][n - 1]
        return apply(torch.nn.functional.pad(x, uneven), w, b, strides, 0, dilations, group)
    apply = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d][n - 1]
    return apply(x, w, b, strides, pads[:n], given.get("output_padding", [0] * n), group, dilations)


def has_twin(case: Case) -> bool:
    pads = case.attributes.get("pads", [])
    uneven = list(pads[: len(pads) // 2]) != list(pads[len(pads) // 2 :])
    return not {"auto_pad", "output_shape"} & case.attributes.keys() and (case.op_type == "Conv" or not uneven)


@pytest.mark.parametrize("case", [c for c in CASES if has_twin(c)], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs))


def test_a_known_image() -> None:
    """y₀ = x₀ + 2x₁ + 4x₂ and so on; with a stride of 2 the last of 4 elements is read by no window."""
    w = np.array([[[1.0, 2, 4]]])
    (found,) = pulled_back(Case("Conv", [np.zeros((1, 1, 4)), w], constants=(1,)), [[[1, 10]]])
    np.testing.assert_array_equal(found, [[[1, 12, 24, 40]]])
    strided = Case("Conv", [np.zeros((1, 1, 4)), w], {"strides": [2]}, constants=(1,))
    np.testing.assert_array_equal(pulled_back(strided, [[[1]]])[0], [[[1, 2, 4, 0]]])


def test_flip_weights() -> None:
    w = np.arange(16).reshape(4, 2, 1, 2)  # 2 groups of 2 output and 2 input channels, 2 taps
    expected = [[[1, 0], [5, 4]], [[3, 2], [7, 6]], [[9, 8], [13, 12]], [[11, 10], [15, 14]]]
    np.testing.assert_array_equal(flip(w, 2), np.reshape(expected, (4, 2, 1, 2)))
    np.testing.assert_array_equal(flip(flip(w, 2), 2), w)


def emitted(case: Case, dynamic: bool = False) -> list[str]:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    return [n.op_type for n in model.graph if (n.name or "").startswith("grad/") and n.op_type != "Identity"]


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("padded", ["Conv"]),
        ("pointwise", ["Conv"]),
        ("depthwise", ["Conv"]),
        ("groups-strided", ["ConvTranspose"]),
        ("strided-remainder", ["ConvTranspose"]),
        ("depthwise-by-2", ["Resize", "Mul", "Conv"]),
        ("wide-pads", ["Slice", "Conv"]),
        ("strided-uneven-pads", ["ConvTranspose", "Slice"]),
    ],
)
def test_the_fastest_form_is_written(id: str, expected: list[str]) -> None:
    assert emitted(NAMED[id]) == expected


@pytest.mark.parametrize("id", ["padded", "groups-dilated", "wide-pads-uneven", "same-lower"])
def test_stride_one_needs_no_shapes_at_run_time(id: str) -> None:
    assert emitted(NAMED[id], dynamic=True) == emitted(NAMED[id])


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            conv("same-dilated", IMAGE, (6, 4, 3, 3), auto_pad="SAME_UPPER", dilations=[2, 2]),
            "SAME padding with dilations, which onnxruntime's kernels do not take, for Conv, input 0",
        ),
        (
            Case("Conv", [tensor(*IMAGE), tensor(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER"}, id="weights"),
            "SAME padding for weights of unknown size for Conv",
        ),
        (
            replace(transposed("weights", (4, 3, 3, 3), auto_pad="SAME_LOWER"), constants=()),
            "output_shape or SAME padding for weights of unknown size for ConvTranspose",
        ),
        (
            conv("gaps", IMAGE, (6, 4, 1, 1), auto_pad="SAME_UPPER", strides=[3, 1]),
            "SAME padding of windows with gaps between them, which onnxruntime's kernels place differently, for Conv",
        ),
        (
            transposed("negative", (4, 3, 3, 3), strides=[4, 4], auto_pad="SAME_UPPER"),
            "padding that would be negative for ConvTranspose",
        ),
    ],
    ids=str,
)
def test_forms_that_are_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedGradient, match=reason):
        with_gradients(case, np.dtype("float32"), dynamic=True)
