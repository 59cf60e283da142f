"""Whole networks with operators that read, resize or pool in unusual ways: prepared, differentiated and verified."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_gradcam.verify import verify

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.meshgrid(np.linspace(-1.1, 1, 9), np.linspace(-1, 1.2, 8), indexing="ij")


def normal(*shape: int) -> np.ndarray:
    return 0.3 * RNG.standard_normal(shape)


Net = tuple[str, dict[str, np.ndarray], int]  # what makes m of a, its constants, the opset
NETS: dict[str, Net] = {
    "fixed-grid": (
        'm = GridSample <mode = "bilinear"> (a, grid)',
        {"grid": np.stack([COLUMNS + 0.05 * ROWS, ROWS], -1)[None]},
        17,
    ),
    "spatial-transformer": (
        """pooled = GlobalAveragePool (a)
        flat = Flatten (pooled)
        raw = Gemm <transB = 1> (flat, wt, bt)
        theta = Reshape (raw, shape)
        places = AffineGrid (theta, size)
        m = GridSample <mode = "linear", padding_mode = "border"> (a, places)""",
        {
            "wt": normal(6, 4),
            "bt": np.array([1, 0.1, 0, -0.1, 1, 0]),
            "shape": np.array([-1, 2, 3]),
            "size": np.array([1, 4, 10, 9]),
        },
        20,
    ),
    "deformable": (
        """moves = Conv <pads = [1, 1, 1, 1]> (a, wo)
        raw = Conv <pads = [1, 1, 1, 1]> (a, wm)
        mask = Sigmoid (raw)
        m = DeformConv <pads = [1, 1, 1, 1]> (a, wd, moves, bd, mask)""",
        {"wo": normal(18, 4, 3, 3), "wm": normal(9, 4, 3, 3), "wd": normal(4, 4, 3, 3), "bd": np.zeros(4)},
        19,
    ),
    "regions": (
        "m = RoiAlign <output_height = 4, output_width = 5, sampling_ratio = 2> (a, boxes, images)",
        {"boxes": np.array([[1.0, 2, 15, 17]]), "images": np.array([0])},
        16,
    ),
    "norm-pool": ("m = LpPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", {}, 18),
    "ceil-into-padding": (
        """half = MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1> (a)
        wide = Conv <pads = [1, 1, 1, 1]> (half, w9)
        m = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1> (wide)""",
        {"w9": normal(4, 4, 3, 3)},
        17,
    ),
    "unpool": (
        """half, places = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        m = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (half, places)""",
        {},
        18,
    ),
    "antialias": ('m = Resize <mode = "linear", antialias = 1> (a, , , size)', {"size": np.array([1, 4, 11, 7])}, 18),
    "fractional-corners": (
        'm = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (a, none, scales)',
        {"none": np.zeros(0), "scales": np.array([1, 1, 1.27, 0.63])},
        13,
    ),
    "crop": (
        'm = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"> (a, roi, , size)',
        {"roi": np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8]), "size": np.array([1, 4, 11, 7])},
        18,
    ),
    "computed-weights": (
        """pooled = GlobalAveragePool (a)
        kernel = Mul (wk, pooled)
        m = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (a, kernel)""",
        {"wk": normal(4, 4, 3, 3)},
        17,
    ),
    "upsample-7": ('m = Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 1.5]> (a)', {}, 7),
    "upsample-9": ('m = Upsample <mode = "nearest"> (a, scales)', {"scales": np.array([1, 1, 2, 2.0])}, 9),
    "resize-10": ('m = Resize <mode = "linear"> (a, scales)', {"scales": np.array([1, 1, 2, 1.5])}, 10),
}
JUMPING = {"unpool"}  # where a place moves the score jumps, and no step is safe from that


def network(net: Net) -> onnx.ModelProto:
    middle, constants, opset = net
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    net (float[1, 3, 20, 18] x) => (float[1, 5] logits) {{
        first = Conv <pads = [1, 1, 1, 1]> (x, w1)
        a = Relu (first)
        {middle}
        second = Conv <pads = [1, 1, 1, 1]> (m, w2)
        active = Relu (second)
        mean = GlobalAveragePool (active)
        features = Flatten (mean)
        logits = Gemm <transB = 1> (features, w3, b3)
    }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    shapes = {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (5, 6), "b3": (5,)}
    weights = {name: 0.3 * rng.standard_normal(shape) for name, shape in shapes.items()}
    for name, array in (weights | constants).items():
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_it_is_verified(name: str) -> None:
    """Forward pass, every node, and the gradient through the whole network at the layer and at the image."""
    x = np.random.default_rng(2).standard_normal((1, 3, 20, 18)).astype(np.float32)
    report = verify(network(NETS[name]), target_layer="a", x=x)
    found = {check.name: check.status for check in report.checks}
    if name in JUMPING and found["gradient at 'a'"] == "undecided":
        del found["gradient at 'a'"]
    assert set(found.values()) == {"pass"}
    assert len(found) >= 3
