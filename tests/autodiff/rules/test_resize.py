from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nets import run
from vjp_check import (
    Case,
    check_affine,
    check_float16,
    check_torch,
    check_vjp,
    forward_model,
    pulled_back,
    with_gradients,
)

from onnx_gradcam.autodiff.rules.resize import resize_matrix
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.attributes import Resizing

RNG = np.random.default_rng(19)
IMAGE = (1, 2, 4, 5)
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def scaled(id: str, scales: list[float], x: tuple[int, ...] = IMAGE, free: Any = None, **form: Any) -> Case:
    inputs = [RNG.standard_normal(x), None, np.array(scales, np.float32)]
    return Case("Resize", inputs, form, constants=(2,), typed=(2,), free=free, id=f"{id}-scaled")


def sized(id: str, sizes: list[int], x: tuple[int, ...] = IMAGE, free: Any = None, **form: Any) -> Case:
    inputs = [RNG.standard_normal(x), None, None, np.array(sizes, np.int64)]
    return Case("Resize", inputs, form, constants=(3,), free=free, id=f"{id}-sized")


def cropped(mode: str, region: list[float], free: Any = (0,), **more: Any) -> Case:
    """The rows and columns of a region, of which all, some or none lie outside the image."""
    roi = np.array([0, 0, *region[:2], 1, 1, *region[2:]], np.float32)
    inputs = [RNG.standard_normal(IMAGE), roi, None, np.array([1, 2, 7, 3], np.int64)]
    attributes = form(mode, "tf_crop_and_resize", **more)
    return Case("Resize", inputs, attributes, constants=(1, 3), typed=(1,), free=free, id=f"crop-{mode}-{region}")


def form(mode: str, coordinates: str, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "coordinate_transformation_mode": coordinates, **more}


CASES = [
    *[
        case
        for mode in ("nearest", "linear", "cubic")
        for coordinates in COORDINATES
        for case in (
            scaled(f"{mode}-{coordinates}", [1, 1, 2, 0.5], x=(1, 2, 3, 6), **form(mode, coordinates)),
            sized(f"{mode}-{coordinates}", [1, 2, 7, 3], **form(mode, coordinates)),
        )
    ],
    *[
        case
        for rounding in ROUNDINGS
        for case in (
            scaled(f"{rounding}", [1, 1, 2, 3], nearest_mode=rounding),
            sized(f"{rounding}", [1, 2, 7, 3], nearest_mode=rounding),
        )
    ],
    scaled("repeat", [1, 1, 2, 2], **form("nearest", "asymmetric", nearest_mode="floor")),
    scaled("repeat-batch", [1, 1, 2, 2], free=(0,), **form("nearest", "asymmetric", nearest_mode="floor")),
    scaled("repeat-one-axis", [1, 1, 1, 3], **form("nearest", "asymmetric", nearest_mode="floor")),
    scaled("repeat-and-more", [1, 1, 2, 1.5], **form("nearest", "asymmetric", nearest_mode="floor")),
    sized("repeat", [1, 2, 8, 15], **form("nearest", "asymmetric", nearest_mode="floor"), free=(0,)),
    sized("one-element", [1, 2, 1, 1], **form("linear", "pytorch_half_pixel")),
    sized("one-corner", [1, 2, 1, 9], **form("linear", "align_corners")),
    sized("from-one", [1, 2, 3, 4], x=(1, 2, 1, 1), **form("cubic", "half_pixel")),
    sized("outside", [1, 2, 7, 9], **form("cubic", "half_pixel", exclude_outside=1, cubic_coeff_a=-0.5)),
    sized("axes", [7, 3], **form("linear", "half_pixel", axes=[3, 2])),
    replace(sized("channels", [1, 5, 4, 9], **form("linear", "half_pixel")), ort=False),  # which refuses it
    sized("1d", [2, 3, 7], x=(2, 3, 4), **form("linear", "half_pixel")),
    sized("3d", [1, 2, 3, 5, 2], x=(1, 2, 2, 3, 4), **form("linear", "half_pixel")),
    scaled("3d-repeat", [1, 1, 2, 1, 2], x=(1, 2, 2, 3, 2), **form("nearest", "asymmetric", nearest_mode="floor")),
    *[
        cropped(mode, region, extrapolation_value=value)
        for mode in ("nearest", "linear", "cubic")
        for region, value in (([0.1, 0.2, 0.8, 0.9], 0.0), ([-0.2, 0.3, 0.9, 1.4], 3.0))
    ],
    cropped("linear", [0.1, 0.2, 0.8, 0.9], free=None),
    *[
        replace(case, opset=opset)
        for mode in ("linear", "cubic")
        for coordinates in ("half_pixel", "align_corners", "asymmetric")
        for opset, case in (
            (18, scaled(f"antialias-{mode}-{coordinates}", [1, 1, 0.5, 0.6], **form(mode, coordinates, antialias=1))),
            (19, sized(f"antialias-{mode}-{coordinates}", [1, 2, 3, 7], **form(mode, coordinates, antialias=1))),
        )
    ],
    sized("antialias-outside", [1, 2, 2, 3], **form("linear", "half_pixel", antialias=1, exclude_outside=1)),
    *[
        sized(
            f"{policy}-{mode}",
            [7, 9],
            free=(0,),
            **form(mode, "half_pixel", keep_aspect_ratio_policy=policy),
            axes=[2, 3],
        )
        for policy in ("not_larger", "not_smaller")
        for mode in ("nearest", "linear", "cubic")
    ],
    replace(scaled("computed", [1, 1, 2, 1.5], **form("linear", "half_pixel")), constants=()),
    replace(sized("computed", [1, 2, 7, 3], **form("linear", "half_pixel"), free=(2, 3)), constants=()),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    cubic = case.attributes.get("mode") == "cubic"
    check_vjp(replace(case, tolerance=1e-5) if cubic else case)  # the evaluator has cubic weights in float32


@pytest.mark.parametrize("case", [c for c in CASES if c.ort and "computed" not in c.id][::4], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


TWINS: dict[str, dict[str, Any]] = {
    "linear-half_pixel-sized": {"size": (7, 3), "mode": "bilinear"},
    "linear-align_corners-sized": {"size": (7, 3), "mode": "bilinear", "align_corners": True},
    "cubic-half_pixel-sized": {"size": (7, 3), "mode": "bicubic"},
    "cubic-align_corners-sized": {"size": (7, 3), "mode": "bicubic", "align_corners": True},
    "floor-sized": {"size": (7, 3), "mode": "nearest-exact"},
    "repeat-scaled": {"scale_factor": 2, "mode": "nearest"},
    "1d-sized": {"size": 7, "mode": "linear"},
    "3d-sized": {"size": (3, 5, 2), "mode": "trilinear"},
}


@pytest.mark.parametrize("id", TWINS)
def test_torch(id: str) -> None:
    (case,) = [c for c in CASES if c.id == id]
    if id == "floor-sized":
        case = replace(case, attributes={**case.attributes, "nearest_mode": "round_prefer_ceil"})
    check_torch(case, lambda torch, x, *_: torch.nn.functional.interpolate(x, **TWINS[id]))


def test_known_matrices() -> None:
    twice = resize_matrix(2, 4, 2, at=Resizing(mode="linear"))
    np.testing.assert_array_equal(twice, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    corners = resize_matrix(2, 3, 1.5, at=Resizing(**form("linear", "align_corners")))
    np.testing.assert_array_equal(corners, [[1, 0], [0.5, 0.5], [0, 1]])
    half = resize_matrix(4, 2, 0.5, at=Resizing(**form("nearest", "asymmetric")))
    np.testing.assert_array_equal(half, [[1, 0, 0, 0], [0, 0, 1, 0]])
    cubic = resize_matrix(4, 8, 2, at=Resizing(**form("cubic", "asymmetric")))[3]
    np.testing.assert_allclose(cubic, [-0.09375, 0.59375, 0.59375, -0.09375], atol=1e-15)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_the_nearest_element_is_the_one_that_the_runtime_reads(coordinates: str, rounding: str) -> None:
    """Many lengths, half-way places included: what y reads is decided by one rounding, in float32."""
    node = onnx.helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
        axes=[0],
    )
    inputs = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"]),
        onnx.helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, [1]),
    ]
    graph = onnx.helper.make_graph([node], "nearest", inputs, [onnx.ValueInfoProto(name="y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in (1, 2, 3, 5, 7, 12, 20, 33):
        for count in (1, 2, 3, 4, 6, 7, 10, 16, 21, 26, 39):
            x = np.arange(size, dtype=np.float32)
            (y,) = session.run(None, {"x": x, "sizes": np.array([count])})
            at = Resizing(coordinate_transformation_mode=coordinates, nearest_mode=rounding)
            matrix = resize_matrix(size, count, count / size, at=at)
            np.testing.assert_array_equal(matrix @ x, y, err_msg=f"{size} to {count}")


def test_known_sums() -> None:
    repeat = form("nearest", "asymmetric", nearest_mode="floor")
    case = scaled("", [1, 1, 2], x=(1, 1, 3), **repeat)
    for dynamic in (False, True):
        np.testing.assert_array_equal(pulled_back(case, [[[1, 2, 3, 4, 5, 6]]], dynamic=dynamic)[0], [[[3, 7, 11]]])
    linear = scaled("", [1, 1, 2], x=(1, 1, 2), **form("linear", "half_pixel"))
    for dynamic in (False, True):
        np.testing.assert_array_equal(pulled_back(linear, [[[4, 8, 12, 16]]], dynamic=dynamic)[0], [[[13, 27]]])


def emitted(case: Case, dynamic: bool = False) -> list[str]:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    return [n.op_type for n in model.graph if (n.name or "").startswith("grad/") and n.op_type != "Identity"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_repeated_elements_are_summed_by_a_pool(dynamic: bool) -> None:
    for id in ("repeat-scaled", "round_prefer_floor-scaled", "3d-repeat-scaled"):
        (case,) = [c for c in CASES if c.id == id]
        assert emitted(case, dynamic) == ["AveragePool", "Mul"]


def test_axes_that_keep_their_length_cost_nothing() -> None:
    case = sized("", [1, 2, 7, 5], **form("linear", "half_pixel"))
    assert emitted(case) == ["Transpose", "MatMul"]
    assert emitted(sized("", [1, 2, 4, 5], **form("cubic", "half_pixel"))) == []


def on_the_runtime(case: Case, x: np.ndarray) -> np.ndarray:
    model = forward_model(case, np.dtype("float32"), False)
    return np.asarray(run(model, {"x0": x.astype(np.float32)})["y0"], np.float64)


@pytest.mark.parametrize("case", [c for c in CASES if c.ort and len(c.constants) and "computed" not in c.id], ids=str)
def test_it_is_the_transpose_of_what_the_runtime_does(case: Case) -> None:
    """Whatever the specification says."""
    check_affine(case)


FRACTIONS = [
    scaled(f"fraction-{mode}-{coordinates}-{scales[2]}", scales, x=(1, 2, 7, 5), **form(mode, coordinates))
    for mode in ("nearest", "linear", "cubic")
    for coordinates in COORDINATES
    for scales in ([1, 1, 1.5, 1.7], [1, 1, 0.6, 0.7])
]


@pytest.mark.parametrize("case", FRACTIONS, ids=str)
def test_lengths_that_are_rounded(case: Case) -> None:
    """Where the reference evaluator computes with the length before rounding, and ONNX Runtime with the one after."""
    check_affine(case)


UNMOVED = [
    scaled("nothing-changes", [1, 1, 1.2, 1], **form("linear", "asymmetric")),
    scaled("nothing-changes-cubic", [1, 1, 1.2, 1.1], **form("cubic", "half_pixel"), free=(0,)),
    scaled("one-axis-changes", [1, 1, 1.2, 2], **form("linear", "asymmetric")),
    scaled("one-axis-changes-cubic", [1, 1, 1.2, 0.5], **form("cubic", "half_pixel"), free=(0,)),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", UNMOVED, ids=str)
def test_a_scale_that_changes_no_length(case: Case, dynamic: bool) -> None:
    """ONNX Runtime copies x when no length changes, and moves every place otherwise."""
    case = replace(case, free=(0,))
    x = np.asarray(case.inputs[0])
    y = on_the_runtime(case, x)
    g = RNG.standard_normal(y.shape)
    (found,) = pulled_back(case, g, dynamic=dynamic)
    assert np.vdot(g, y) == pytest.approx(np.vdot(found, x), rel=1e-4)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            replace(scaled("", [1, 1, 1.2, 2], **form("linear", "asymmetric")), free=(3,)),
            "a scale that leaves the length as it was",
        ),
        (
            sized("", [7, 9], axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
            "keep_aspect_ratio_policy with antialias, or for an image of unknown size",
        ),
        (
            replace(cropped("linear", [0.1, 0.2, 0.8, 0.9]), constants=(3,)),
            "tf_crop_and_resize with a region that is not constant",
        ),
    ],
)
def test_forms_that_are_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedGradient, match=f"{reason}.* for Resize, input 0"):
        with_gradients(case, np.dtype("float32"), True)
