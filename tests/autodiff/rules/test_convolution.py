from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from reference_ops import REFERENCE_OPS
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

from onnx_gradcam.autodiff.rules.convolution import flipped
from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(7)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def conv(id: str, x: tuple[int, ...], w: tuple[int, ...], *, computed: bool = False, **attributes: Any) -> Case:
    """Weights are an initializer, or, where ``computed``, an input of the graph."""
    free = attributes.pop("free", None)
    if computed:
        return Case("Conv", [tensor(*x), tensor(*w)], {"kernel_shape": w[2:], **attributes}, id=f"{id}-computed")
    return Case("Conv", [tensor(*x), tensor(*w), tensor(w[0])], attributes, constants=(1, 2), free=free, id=id)


def transposed(id: str, x: tuple[int, ...], w: tuple[int, ...], **attributes: Any) -> Case:
    free, ort = attributes.pop("free", None), attributes.pop("ort", True)
    return Case("ConvTranspose", [tensor(*x), tensor(*w)], attributes, constants=(1,), free=free, ort=ort, id=id)


IMAGE = (2, 4, 7, 8)
BATCH = (0,)  # the only symbolic axis
FORMS: dict[str, dict[str, Any]] = {  # on IMAGE, with weights (6, 4, 3, 3) where they say nothing else
    "plain": {},
    "padded": {"pads": [1, 1, 1, 1]},
    "pointwise": {"w": (6, 4, 1, 1)},
    "pointwise-strided": {"w": (6, 4, 1, 1), "strides": [2, 2]},
    "pointwise-padded": {"w": (6, 4, 1, 1), "pads": [1, 1, 1, 1]},
    "groups": {"w": (6, 2, 3, 3), "group": 2, "pads": [1, 1, 1, 1]},
    "groups-strided": {"w": (6, 2, 3, 3), "group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "groups-dilated": {"w": (6, 2, 3, 2), "group": 2, "pads": [1, 0, 2, 1], "dilations": [2, 1]},
    "depthwise": {"w": (4, 1, 3, 3), "group": 4, "pads": [1, 1, 1, 1]},
    "depthwise-multiplier": {"w": (8, 1, 3, 3), "group": 4},
    "depthwise-strided": {"w": (4, 1, 3, 3), "group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "depthwise-strided-5x5": {"w": (4, 1, 5, 5), "group": 4, "pads": [2, 2, 2, 2], "strides": [2, 2]},
    "depthwise-strided-uneven": {"w": (4, 1, 3, 2), "group": 4, "pads": [0, 1, 2, 0], "strides": [2, 2]},
    "depthwise-strided-gaps": {"w": (4, 1, 1, 1), "group": 4, "strides": [2, 2]},
    "depthwise-strided-far": {"w": (4, 1, 2, 2), "group": 4, "strides": [2, 2], "pads": [3, 2, 2, 3]},
    "depthwise-strided-dilated": {"w": (4, 1, 3, 3), "group": 4, "strides": [2, 2], "dilations": [2, 3]},
    "depthwise-multiplier-strided": {"w": (8, 1, 3, 3), "group": 4, "strides": [2, 2]},
    "depthwise-3-by-1": {"w": (4, 1, 3, 3), "group": 4, "strides": [3, 1]},
    "strided-even": {"w": (6, 4, 2, 2), "strides": [2, 2]},
    "strided-remainder": {"pads": [1, 1, 1, 1], "strides": [2, 3]},
    "strided-uneven-pads": {"pads": [1, 0, 2, 1], "strides": [2, 3]},
    "strided-dilated": {"strides": [2, 2], "dilations": [2, 3], "pads": [2, 1, 2, 3]},
    "strided-one-axis": {"w": (6, 4, 1, 3), "strides": [1, 2], "pads": [0, 1, 0, 1]},
    "gaps": {"w": (6, 4, 2, 1), "strides": [3, 3]},
    "patches": {"w": (6, 4, 3, 4), "strides": [3, 4]},
    "whole-image": {"w": (6, 4, 7, 8)},
    "wide-pads": {"w": (6, 4, 2, 2), "pads": [3, 3, 3, 3]},
    "wide-pads-uneven": {"w": (6, 4, 2, 3), "pads": [3, 0, 0, 4]},
    "wide-pads-strided": {"w": (6, 4, 2, 2), "pads": [3, 3, 3, 3], "strides": [2, 2]},
    "valid": {"auto_pad": "VALID", "strides": [2, 1]},
    "same-upper": {"w": (6, 4, 2, 4), "auto_pad": "SAME_UPPER"},
    "same-lower": {"w": (6, 4, 2, 4), "auto_pad": "SAME_LOWER"},
    "same-upper-strided": {"w": (6, 4, 3, 4), "auto_pad": "SAME_UPPER", "strides": [2, 3]},
    "same-lower-strided": {"w": (6, 4, 3, 4), "auto_pad": "SAME_LOWER", "strides": [2, 3]},
    "same-gaps": {"w": (6, 4, 1, 2), "auto_pad": "SAME_LOWER", "strides": [3, 4]},
    "same-one-axis-strided": {"w": (6, 4, 3, 2), "auto_pad": "SAME_UPPER", "strides": [1, 2]},
}


def forms(computed: bool, **more: Any) -> list[Case]:
    return [
        conv(id, IMAGE, form.get("w", (6, 4, 3, 3)), computed=computed, **{k: v for k, v in form.items() if k != "w"})
        for id, form in FORMS.items()
    ]


CASES = [
    *forms(computed=False),
    *forms(computed=True),
    conv("1d", (2, 4, 9), (6, 2, 3), group=2, pads=[1, 1]),
    conv("1d-strided", (2, 4, 9), (6, 4, 4), strides=[3], pads=[1, 2]),
    conv("1d-depthwise-strided", (2, 4, 9), (4, 1, 3), group=4, strides=[2], pads=[1, 1]),
    conv("3d", (1, 2, 4, 5, 3), (4, 2, 3, 2, 1), pads=[1, 0, 0, 1, 1, 0]),
    conv("3d-strided", (1, 2, 4, 5, 6), (4, 1, 3, 2, 2), group=2, strides=[2, 1, 3], dilations=[1, 2, 1]),
    conv("3d-same", (1, 2, 4, 5, 6), (2, 2, 3, 2, 2), strides=[2, 2, 3], auto_pad="SAME_UPPER"),
    conv("batch", IMAGE, (6, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], free=BATCH),
    conv("batch-uneven", IMAGE, (6, 4, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1], free=BATCH),
    conv("batch-depthwise", IMAGE, (4, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 1, 1], free=BATCH),
    Case("Conv", [tensor(*IMAGE), tensor(6, 4, 3, 3)], {"strides": [2, 2]}, constants=(1,), opset=21, id="opset21"),
    transposed("plain", IMAGE, (4, 3, 3, 3)),
    transposed("padded", IMAGE, (4, 3, 3, 2), pads=[1, 0, 2, 1]),
    transposed("strided", IMAGE, (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    transposed("groups", IMAGE, (4, 3, 3, 2), strides=[2, 3], group=2, pads=[0, 1, 1, 0], output_padding=[1, 2]),
    transposed("depthwise", IMAGE, (4, 1, 3, 3), group=4, strides=[2, 1], dilations=[1, 2]),
    transposed("gaps", IMAGE, (4, 3, 2, 2), strides=[3, 3], output_padding=[2, 0]),
    transposed("same-upper", IMAGE, (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_UPPER"),
    transposed("same-lower", IMAGE, (4, 3, 3, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    transposed("valid", IMAGE, (4, 3, 3, 4), strides=[2, 3], auto_pad="VALID"),
    transposed("output-shape", IMAGE, (4, 3, 3, 3), strides=[2, 2], output_shape=[14, 16], free=(0, 1)),
    transposed("output-shape-upper", IMAGE, (4, 3, 3, 3), output_shape=[8, 7], auto_pad="SAME_UPPER", free=(0, 1)),
    transposed("1d", (2, 4, 5), (4, 3, 3), strides=[2], output_padding=[1]),
    transposed("3d", (1, 2, 3, 2, 4), (2, 3, 2, 3, 1), strides=[2, 1, 3]),
    # ONNX Runtime refuses an output_padding as large as the stride, which the specification and torch allow
    transposed("wide-output-padding", IMAGE, (4, 3, 3, 3), dilations=[3, 3], output_padding=[2, 1], ort=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case, reference_ops=REFERENCE_OPS)


@pytest.mark.parametrize("case", [c for c in CASES if c.ort and 1 in c.constants][::3], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case, reference_ops=REFERENCE_OPS)


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
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs), reference_ops=REFERENCE_OPS)


def test_a_known_image() -> None:
    """y₀ = x₀ + 2x₁ + 4x₂ and so on; with a stride of 2 the last of 4 elements is read by no window."""
    w = np.array([[[1.0, 2, 4]]])
    (found,) = pulled_back(Case("Conv", [np.zeros((1, 1, 4)), w], constants=(1,)), [[[1, 10]]])
    np.testing.assert_array_equal(found, [[[1, 12, 24, 40]]])
    strided = Case("Conv", [np.zeros((1, 1, 4)), w], {"strides": [2]}, constants=(1,))
    np.testing.assert_array_equal(pulled_back(strided, [[[1]]])[0], [[[1, 2, 4, 0]]])


def test_flipped_weights() -> None:
    w = np.arange(16).reshape(4, 2, 1, 2)  # 2 groups of 2 output and 2 input channels, 2 taps
    expected = [[[1, 0], [5, 4]], [[3, 2], [7, 6]], [[9, 8], [13, 12]], [[11, 10], [15, 14]]]
    np.testing.assert_array_equal(flipped(w, 2), np.reshape(expected, (4, 2, 1, 2)))
    np.testing.assert_array_equal(flipped(flipped(w, 2), 2), w)


def emitted(case: Case, dynamic: bool = False) -> list[str]:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    return [n.op_type for n in model.graph if (n.name or "").startswith("grad/") and n.op_type != "Identity"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("padded", ["Conv"]),
        ("pointwise", ["Conv"]),
        ("depthwise", ["Conv"]),
        ("groups-strided", ["ConvTranspose"]),
        ("strided-remainder", ["ConvTranspose"]),
        ("depthwise-strided", ["Resize", "Mul", "Conv"]),
        ("wide-pads", ["Slice", "Conv"]),
        ("strided-uneven-pads", ["ConvTranspose", "Slice"]),
    ],
)
def test_the_fastest_form_is_written(form: str, expected: list[str]) -> None:
    (case,) = [c for c in CASES if c.id == form]
    assert emitted(case) == expected


def test_stride_one_needs_no_shapes() -> None:
    for form in ("padded", "groups-dilated", "wide-pads-uneven", "same-lower"):
        (case,) = [c for c in CASES if c.id == form]
        assert emitted(case, dynamic=True) == emitted(case)


def test_weights_that_constant_nodes_compute_are_flipped_too() -> None:
    case = conv("", IMAGE, (6, 4, 3, 3))
    model = with_gradients(case, np.dtype("float32"), False)
    assert [n.op_type for n in model.graph].count("Conv") == 2
    big = [v for v in model.graph.initializers.values() if v.const_value is not None and v.const_value.size == 216]
    (made,) = [v.const_value.numpy() for v in big if v.name != "x1"]
    np.testing.assert_array_equal(made, case.inputs[1].astype(np.float32).swapaxes(0, 1)[:, :, ::-1, ::-1])
    assert ir.DataType.FLOAT == big[0].dtype


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            conv("", IMAGE, (6, 4, 3, 3), auto_pad="SAME_UPPER", dilations=[2, 2]),
            "SAME padding with dilations, on which the runtimes disagree, for Conv, input 0",
        ),
        (Case("Conv", [tensor(*IMAGE), tensor(6, 4, 3, 3)]), "weights of unknown size for Conv"),
        (
            transposed("", IMAGE, (4, 3, 3, 3), strides=[2, 2], output_shape=[14, 16]),
            "output_shape, for an image whose size is not known before the run, for ConvTranspose",
        ),
        (transposed("", IMAGE, (4, 3, 3, 3), output_shape=[9, 12]), "padding that would be negative"),
    ],
    ids=["same-dilated", "weights", "output-shape", "negative"],
)
def test_forms_that_are_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedGradient, match=reason):
        with_gradients(case, np.dtype("float32"), dynamic="negative" not in reason)
