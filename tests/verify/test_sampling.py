"""Operators that read between elements in float64, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import one_node, run

from onnx_gradcam.verify.float64 import in_float64

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


IMAGE, GRID = normal(2, 3, 6, 7), RNG.uniform(-2.3, 2.3, (2, 4, 5, 2))
VOLUME, PLACES = normal(1, 2, 3, 4, 5), RNG.uniform(-1.7, 1.7, (1, 2, 2, 3, 3))
BOXES = np.array([[0.4, 1.1, 4.3, 5.2], [-2.3, -1.4, 9.1, 3.3], [3.1, 3.2, 2.0, 2.1], [30.0, 30, 33, 34]])
ROIS = [IMAGE, BOXES, np.array([1, 0, 1, 0])]
CORNERS = np.array([[1, 0, 0.5, 4.3, 5.2], [0, -2.5, -1.4, 9.1, 3.3], [1, 3.1, 3.2, 2.0, 2.1], [0, 30, 30, 33, 34]])
OFFSET, MASK = normal(2, 16, 4, 5) * 2, RNG.uniform(0, 1, (2, 8, 4, 5))
DEFORMED = [normal(2, 4, 5, 6), normal(6, 2, 2, 2), OFFSET]
CASES: list[tuple[str, list[np.ndarray | None], dict[str, Any], int]] = [
    *[
        ("GridSample", [IMAGE, GRID], {"mode": mode, "padding_mode": padding, "align_corners": corners}, opset)
        for opset, modes in ((16, ("bilinear", "bicubic", "nearest")), (20, ("linear", "cubic", "nearest")))
        for mode in modes
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ],
    ("GridSample", [VOLUME, PLACES], {"mode": "linear", "padding_mode": "reflection"}, 20),
    ("GridSample", [IMAGE[:, :, :1], GRID], {"padding_mode": "reflection", "align_corners": 1}, 20),
    *[
        ("RoiAlign", ROIS, {"mode": mode, "output_height": 2, "output_width": 3, **more}, 16)
        for mode in ("avg", "max")
        for more in (
            {"sampling_ratio": 2, "spatial_scale": 0.7},
            {},
            {"coordinate_transformation_mode": "output_half_pixel"},
        )
    ],
    *[
        ("AffineGrid", [normal(2, rank, rank + 1), np.array([2, 3, *sides])], {"align_corners": corners}, 20)
        for rank, sides in ((2, (4, 5)), (3, (2, 3, 4)))
        for corners in (0, 1)
    ],
    ("MaxRoiPool", [IMAGE, CORNERS], {"pooled_shape": [2, 3], "spatial_scale": 0.75}, 18),
    ("MaxRoiPool", [IMAGE, CORNERS], {"pooled_shape": [3, 2]}, 18),
    ("DeformConv", DEFORMED, {"group": 2, "offset_group": 2}, 19),
    ("DeformConv", [*DEFORMED, normal(6), MASK], {"group": 2, "offset_group": 2}, 19),
    ("DeformConv", [*DEFORMED, None, MASK], {"group": 2, "offset_group": 2}, 19),
    (
        "DeformConv",
        [normal(1, 2, 7, 6), normal(2, 2, 2, 2), normal(1, 8, 4, 2)],
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "dilations": [2, 1]},
        19,
    ),
    ("LpPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "p": 3}, 18),
    ("LpPool", [IMAGE], {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "dilations": [2, 1]}, 18),
    (
        "MaxPool",
        [IMAGE],
        {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "dilations": [2, 2], "strides": [2, 1]},
        18,
    ),
    ("GlobalLpPool", [IMAGE], {"p": 3}, 18),
    (
        "MaxUnpool",
        [normal(1, 1, 2, 2), np.array([[[[5, 5], [8, 3]]]])],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        18,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[2].values()))}-{case[3]}")
def test_it_is_what_the_runtime_does(case: tuple[str, list[np.ndarray | None], dict[str, Any], int]) -> None:
    op_type, inputs, attributes, opset = case
    arrays = [x if x is None or x.dtype.kind != "f" else x.astype(np.float32) for x in inputs]
    model = one_node(op_type, arrays, attributes, opset=opset)
    expected = run(model, {f"x{i}": x for i, x in enumerate(arrays) if x is not None})["y0"]
    found = in_float64(ir.from_proto(model).graph[0], expected.shape)(inputs)[0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
