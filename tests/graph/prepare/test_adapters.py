"""Every adapter against onnxruntime, which runs the old opsets by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from opsets import F, check_same, check_valid, f32, fed, i64, old_node, raised, random, run

INT_MAX = np.iinfo(np.int64).max

X = random(2, 3, 4, 5)
V = np.abs(random(3)) + F(0.5)
BN = [random(3), random(3) + F(1), random(3) * F(0.5), V]
BN_MAPS = [np.abs(random(3, 4, 5)) + F(0.5) for _ in range(4)]
ROWS = np.arange(2 * 1 * 3 * 7, dtype=F).reshape(2, 1, 3, 7)
ROIS = [f32(0, 0, 3, 3, 1, 0.5, 4, 2.5).reshape(2, 4), i64(0, 1)]
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
INTS, POSITIVE = i64(2, 0, 1), np.abs(X) + F(0.1)

# op_type, opsets, fed inputs, attributes; "c": constant inputs, "n": outputs, "ranked": are shapes known?
Case = tuple[str, Sequence[int], list[Any], dict[str, Any], dict[str, Any]]
CASES: list[Case] = [
    # ------------------------------------------------------------------------ attributes that became inputs
    *[
        ("Reduce" + name, (7, 11, 12, 13, 17) if name != "Sum" else (7, 11, 12), [POSITIVE], attributes, {})
        for name in REDUCTIONS
        for attributes in ({}, {"axes": [2, 3]}, {"axes": [1], "keepdims": 0}, {"axes": []})
    ],
    ("ReduceMean", (11, 13, 17), [X], {"axes": [-1, -2], "keepdims": 0}, {}),
    ("ReduceSum", (13, 17), [X], {"keepdims": 0}, {"c": [i64(1, 2)]}),
    ("ReduceSum", (13,), [X], {"noop_with_empty_axes": 1}, {}),
    ("Squeeze", (1, 7, 11, 12), [random(1, 3, 1, 2)], {"axes": [0, 2]}, {}),
    ("Squeeze", (7, 11), [random(1, 3, 1, 2)], {}, {}),
    ("Squeeze", (11,), [random(1, 3, 1, 2)], {"axes": [-2]}, {}),
    ("Squeeze", (13,), [random(1, 3, 1, 2)], {}, {"c": [i64(2)]}),
    ("Unsqueeze", (1, 7, 11, 12), [X], {"axes": [0, 5]}, {}),
    ("Unsqueeze", (11,), [X], {"axes": [-1]}, {}),
    ("Clip", (6, 7, 10), [3 * X], {"min": -1.0, "max": 2.5}, {}),
    ("Clip", (6, 7, 10), [3 * X], {"min": 0.0}, {}),
    ("Clip", (6, 7, 10), [3 * X], {"max": 0.5}, {}),
    ("Clip", (6, 10), [f32(np.inf, -np.inf, np.nan, 1)], {}, {}),
    ("Clip", (6, 10), [f32(np.inf, -np.inf, np.nan, 1)], {"min": -3.4028234663852886e38, "max": 6.0}, {}),
    ("Clip", (10,), [3 * random(2, 3, dtype=np.float16)], {"min": 0.0, "max": 6.0}, {}),
    ("Clip", (11, 12, 13), [3 * X, np.array(-1, F), np.array(2, F)], {}, {}),
    ("Pad", (2, 7, 10), [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 0]}, {}),
    ("Pad", (7,), [X], {"pads": [0, 0, 1, 2, 0, 1, 3, 0], "value": -1.5}, {}),
    ("Pad", (7, 10), [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 4], "mode": "reflect"}, {}),
    ("Pad", (7, 10), [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 4], "mode": "edge"}, {}),
    ("Pad", (7,), [X], {"pads": [0, 0, -1, 1, 0, 0, 0, -2]}, {}),
    ("Pad", (11, 13), [X], {}, {"c": [i64(0, 0, 1, 2, 0, 0, 3, 0), np.array(2, F)]}),
    ("Reshape", (1, 4), [X], {"shape": [0, -1, 5]}, {}),
    ("Reshape", (5, 13), [X], {}, {"c": [i64(0, -1, 5)]}),
    ("Slice", (1, 7, 9), [X], {"axes": [2, 3], "starts": [1, -3], "ends": [3, 1000]}, {}),
    ("Slice", (7, 9), [X], {"starts": [0, 1], "ends": [1, -1]}, {}),
    ("Slice", (7,), [X], {"axes": [3, 1], "starts": [-100, 0], "ends": [INT_MAX, 2]}, {}),
    ("Slice", (10, 11), [X], {}, {"c": [i64(3), i64(-100), i64(3), i64(-2)]}),
    ("Split", (2, 7, 11, 12), [X], {"axis": 3, "split": [2, 3]}, {"n": 2}),
    ("Split", (2, 7, 11, 12, 13, 17), [X], {"axis": 2}, {"n": 2}),
    ("Split", (2, 13), [X], {}, {"n": 2}),
    ("Split", (11,), [X], {"axis": -1, "split": [1, 1, 3]}, {"n": 3}),
    ("Split", (13, 17), [X], {"axis": -1}, {"c": [i64(4, 1)], "n": 2}),
    ("Split", (11,), [X], {"axis": 1}, {"n": 1}),
    ("TopK", (1, 7, 9), [X], {"k": 2}, {"n": 2}),
    ("TopK", (7,), [X], {"k": 3, "axis": 1}, {"n": 2}),
    ("TopK", (10, 11), [X], {"axis": 3}, {"c": [i64(2)], "n": 2}),
    # -------------------------------------------------------------------------------- a different meaning
    *[
        (op, (1, 7, 11, 12) if "axis" not in a or a["axis"] >= 0 else (11, 12), [x], a, extra)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for x, a in [
            (X, {}),
            (X, {"axis": 0}),
            (X, {"axis": 2}),
            (X, {"axis": 3}),
            (X, {"axis": -1}),
            (X, {"axis": -2}),
            (random(4, 6), {}),
            (random(4, 6, 1, 1), {}),
            (random(4, 1, 6), {}),
            (random(4, 1, 1), {}),
            (random(7), {"axis": 0}),
        ]
        for extra in ({}, {"ranked": False})
    ],
    ("Softmax", (13,), [X], {}, {}),
    ("Softmax", (13,), [X], {"axis": 1}, {}),
    ("BatchNormalization", (7, 8, 9, 13, 14, 15), [X, *BN], {"epsilon": 1e-3}, {}),
    ("BatchNormalization", (7, 8), [X, *BN], {"spatial": 1}, {}),
    ("BatchNormalization", (7, 8), [X, *BN_MAPS], {"spatial": 0, "epsilon": 1e-2, "momentum": 0.5}, {}),
    ("BatchNormalization", (7,), [random(4, 3), *BN], {"spatial": 0}, {}),
    ("Dropout", (7, 9, 10, 11), [X], {"ratio": 0.3}, {}),
    ("Dropout", (7, 10, 12, 13), [X], {}, {}),
    *[
        ("Upsample", opsets, [X], {"mode": mode, **given}, extra)
        for mode in ("nearest", "linear")
        for scales in ([1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.7, 2.3], [1.0, 1.0, 1.0, 3.0])
        for opsets, given, extra in [((7, 8), {"scales": scales}, {}), ((9,), {}, {"c": [f32(*scales)]})]
    ],
    ("Upsample", (7,), [random(2, 6, 4)], {"scales": [1.0, 1.5, 2.0]}, {}),
    ("Upsample", (7,), [X], {"scales": [1.0, 2.0, 1.5, 1.0], "mode": "linear"}, {}),
    ("Upsample", (7,), [random(1, 2, 3, 4, 5)], {"scales": [1.0, 1.0, 2.0, 1.5, 3.0], "mode": "linear"}, {}),
    ("Upsample", (9,), [X, f32(1, 1, 2.5, 1.3)], {}, {}),
    ("Upsample", (9,), [X, f32(1, 1, 2.5, 1.3)], {"mode": "linear"}, {}),
    *[
        ("Resize", (10,), [ROWS, *fed_scales], {"mode": mode}, {"c": constant_scales})
        for mode in ("nearest", "linear")
        for numbers in [(1, 2), (2.3, 1.5), (0.5, 0.8), (0.7, 0.3), (2, 0.6), (0.4, 1.7)]
        for scales in [f32(1, 1, *numbers)]
        for fed_scales, constant_scales in [([], [scales]), ([scales], [])]
    ],
    *[
        (
            "Resize",
            (11, 12, 13, 17),
            [ROWS],
            {"mode": mode, "coordinate_transformation_mode": how, **a},
            extra,
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for a in ([{"nearest_mode": "floor"}, {}] if mode == "nearest" else [{}])
        for extra in [
            {"c": [f32(), f32(1, 1, 1.5, 0.7)]},
            {"c": [f32(), f32(), i64(2, 1, 7, 5)]},
        ]
    ],
    ("Resize", (13, 17), [ROWS], {}, {"c": [None, None, i64(2, 1, 7, 5)]}),
    ("Resize", (13,), [ROWS, None, None, i64(2, 1, 7, 5)], {}, {}),
    ("Resize", (11,), [ROWS, f32(), f32(), i64(2, 1, 7, 5)], {}, {}),
    *[
        ("Resize", (11, 12), [ROWS], {"coordinate_transformation_mode": "tf_half_pixel_for_nn", **a}, extra)
        for a in ({"nearest_mode": "floor"}, {"nearest_mode": "round_prefer_floor"}, {})
        for extra in [
            *[{"c": [f32(), f32(1, 1, s, t)]} for s, t in [(2, 1.7), (0.6, 2 / 3), (1.5, 0.75), (5 / 6, 7 / 6)]],
            *[{"c": [f32(), f32(), i64(2, 1, h, w)]} for h, w in [(6, 14), (5, 3), (4, 11), (9, 10)]],
        ]
    ],
    (
        "Resize",
        (11, 13),
        [ROWS],
        {
            "mode": "linear",
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 9.0,
        },
        {"c": [f32(0, 0, 0.1, 0.2, 1, 1, 0.8, 1.3), f32(), i64(2, 1, 4, 5)]},
    ),
    *[
        (
            "RoiAlign",
            (10, 15),
            [X, *ROIS],
            {"mode": mode, "spatial_scale": s, "sampling_ratio": 2, **size},
            {},
        )
        for mode in ("avg", "max")
        for s in (1.0, 0.5)
        for size in ({}, {"output_height": 2, "output_width": 3})
    ],
    ("RoiAlign", (16,), [X, *ROIS], {"output_height": 2, "output_width": 2}, {}),
    ("Scatter", (9, 10), [random(3, 3), INTS[None], random(1, 3)], {}, {}),
    ("Scatter", (9,), [random(3, 3), INTS[:, None], random(3, 1)], {"axis": 1}, {}),
    # ------------------------------------------------------------------------------------- before opset 7
    ("Concat", (4, 11), [X, X], {"axis": 2}, {}),
    ("Cast", (6, 9), [3 * X], {"to": TensorProto.INT32}, {}),
    ("Selu", (6,), [X], {}, {}),
    ("Tile", (6,), [X], {}, {"c": [i64(1, 2, 1, 1)]}),
    ("LpPool", (2, 11), [X], {"kernel_shape": [2, 2], "p": 3}, {}),
    ("GlobalLpPool", (2,), [X], {"p": 3}, {}),
    # ------------------------------------------------------------------------------------ former experiments
    ("Affine", (1, 7, 9), [X], {"alpha": 0.3, "beta": -1.5}, {}),
    ("Affine", (7,), [X], {}, {}),
    ("Crop", (7,), [ROWS], {"border": [1, 2, 3, 0]}, {}),
    ("Crop", (7,), [ROWS], {"border": [0, 0, 0, 1]}, {}),
    ("Crop", (1, 7), [ROWS], {"border": [1, 0, 3, 0], "scale": [2, 3]}, {}),
    ("DynamicSlice", (1, 7, 9), [X, i64(1, 0), i64(3, -1), i64(1, 3)], {}, {}),
    ("DynamicSlice", (7,), [X, i64(1), i64(2)], {}, {}),
    ("ImageScaler", (1, 7, 9), [X], {"scale": 0.0039, "bias": [-1.0, 0.5, 2.0]}, {}),
    ("ImageScaler", (7,), [X], {"bias": [1.0, 2.0, 3.0]}, {}),
    *[
        ("MeanVarianceNormalization", (1, 8), [X], {"across_channels": a, "normalize_variance": n}, {})
        for a in (0, 1)
        for n in (0, 1)
    ],
    ("MeanVarianceNormalization", (7,), [X], {}, {}),
    ("MeanVarianceNormalization", (9,), [X], {"axes": [2, 3]}, {}),
    ("ParametricSoftplus", (7,), [X], {"alpha": 0.7, "beta": 2.0}, {}),
    ("Scale", (7,), [X], {"scale": 2.5}, {}),
    ("Scale", (7,), [X], {}, {}),
    ("ScaledTanh", (7,), [X], {"alpha": 0.7, "beta": 2.0}, {}),
    # ---------------------------------------------------------------- additions, which are left as they are
    ("ThresholdedRelu", (1, 9, 10), [X], {}, {}),
    ("OneHot", (9, 11), [i64(-1, 0, 2, 3, -3, -4), i64(3), f32(0, 1)], {}, {}),
    ("PRelu", (7, 9), [X, random(3, 1, 1)], {}, {}),
    ("Gemm", (7, 9, 11), [random(2, 3), random(3, 4), random(4)], {}, {}),
    (
        "AveragePool",
        (7, 10, 11),
        [X],
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {},
    ),
    ("MaxPool", (1, 8, 10, 11), [X], {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}, {}),
    ("ConvTranspose", (1, 11), [X, random(3, 2, 3, 3)], {"strides": [2, 2], "output_shape": [8, 10]}, {}),
    ("LRN", (1, 13), [X], {"size": 3}, {}),
    ("DepthToSpace", (1, 11, 13), [random(1, 8, 2, 3)], {"blocksize": 2}, {}),
    ("LayerNormalization", (1, 16, 17), [X, random(5), random(5)], {}, {}),
]
FLAT = [
    pytest.param(op, opset, feeds, attributes, extra, id=f"{op}-{opset}-{i}")
    for i, (op, opsets, feeds, attributes, extra) in enumerate(CASES)
    for opset in opsets
]


@pytest.mark.parametrize(("op", "opset", "feeds", "attributes", "extra"), FLAT)
def test_raised_node_computes_the_same(
    op: str, opset: int, feeds: list[Any], attributes: dict[str, Any], extra: dict[str, Any]
) -> None:
    model = old_node(op, opset, feeds, attributes, extra.get("c", ()), extra.get("n", 1), extra.get("ranked", True))
    expected = run(model, fed(feeds))
    new = raised(model)
    check_valid(new)
    check_same(run(new, fed(feeds)), expected)


SHORT = [
    ("Softmax", 7, [random(4, 6, 1, 1)], {}, (), ["Softmax"]),
    ("Softmax", 7, [X], {"axis": 3}, (), ["Softmax"]),
    ("Softmax", 7, [X], {}, (), ["Flatten", "Softmax", "Shape", "Reshape"]),
    ("Resize", 10, [ROWS], {}, (f32(1, 1, 2, 3),), ["Resize"]),
    ("Resize", 10, [ROWS], {}, (f32(1, 1, 0.5, 0.3),), ["Resize"]),
    ("Resize", 10, [ROWS], {}, (f32(1, 1, 0.5, 2),), ["Resize", "Resize"]),
    ("Pad", 2, [X], {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 1.0}, (), ["Pad"]),
]


@pytest.mark.parametrize(("op", "opset", "feeds", "attributes", "constants", "expected"), SHORT)
def test_no_more_nodes_than_needed(
    op: str,
    opset: int,
    feeds: list[Any],
    attributes: dict[str, Any],
    constants: tuple[np.ndarray, ...],
    expected: list[str],
) -> None:
    new = raised(old_node(op, opset, feeds, attributes, constants))
    assert [node.op_type for node in new.graph.node] == expected


def test_inputs_that_say_nothing_are_left_out() -> None:
    clip = raised(old_node("Clip", 7, [X], {"min": -3.4028234663852886e38, "max": 6.0})).graph.node[0]
    assert [bool(name) for name in clip.input] == [True, False, True]
    resize = raised(old_node("Resize", 11, [ROWS], constants=[f32(), f32(1, 1, 2, 2)])).graph.node[0]
    assert list(resize.input) == ["x0", "", "x2"]
