"""Resize in float64, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import one_node, run

from onnx_gradcam.verify.float64 import in_float64

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
SCALES = [([1, 1, 1.5, 1.7], None), ([1, 1, 0.6, 0.7], None), ([1, 1, 1.1, 1.1], None), ([1, 1, 2, 1], None)]
SIZES = [(None, [1, 2, 10, 3]), (None, [1, 2, 1, 5]), (None, [1, 2, 7, 5])]
FORMS: list[Any] = [  # attributes, region, scales, sizes
    *[
        ({"mode": mode, "coordinate_transformation_mode": coordinates}, None, scales, sizes)
        for mode in ("nearest", "linear", "cubic")
        for coordinates in COORDINATES
        for scales, sizes in [*SCALES, *SIZES]
    ],
    *[
        (
            {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.0},
            [0, 0, 0.1, -0.2, 1, 1, 1.3, 0.9],
            None,
            [1, 2, 9, 4],
        )
        for mode in ("nearest", "linear", "cubic")
    ],
    *[
        ({"mode": "linear", "keep_aspect_ratio_policy": policy, "axes": [2, 3]}, None, None, [9, 9])
        for policy in ("not_larger", "not_smaller")
    ],
    *[({"nearest_mode": mode}, None, None, [1, 2, 10, 3]) for mode in ("floor", "ceil", "round_prefer_ceil")],
    ({"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}, None, None, [1, 2, 10, 3]),
    ({"mode": "linear", "antialias": 1}, None, None, [1, 2, 4, 3]),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, [*form[0].values(), *form[1:]])))
def test_it_is_what_the_runtime_does(form: Any) -> None:
    attributes, roi, scales, sizes = form
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 5))
    inputs = [
        x.astype(np.float32),
        None if roi is None else np.array(roi, np.float32),
        None if scales is None else np.array(scales, np.float32),
        None if sizes is None else np.array(sizes, np.int64),
    ]
    model = one_node("Resize", inputs, attributes, constants=(1, 2, 3), opset=19)
    expected = run(model, {"x0": inputs[0]})["y0"]
    found = in_float64(ir.from_proto(model).graph[0], expected.shape)([x, *inputs[1:]])[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
