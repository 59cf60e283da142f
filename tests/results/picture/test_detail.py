"""Attributions as pictures, in the pixels of the photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.results.drawing import draw_attribution
from onnx_gradcam.results.picture import detail

CHANNELS = ["RGB", "BGR"]


@pytest.mark.parametrize(("channels", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0]), ("RGBA", [0, 1, 2])])
@pytest.mark.parametrize("last", [False, True])
def test_colours(channels: str, order: list[int], last: bool) -> None:
    planes = np.random.default_rng(0).standard_normal((len(channels), 4, 5))
    given = planes.transpose(1, 2, 0) if last else planes
    found = detail.colours(given, (0, 1) if last else (1, 2), channels)
    np.testing.assert_array_equal(found, planes[order].transpose(1, 2, 0))


def test_other_than_three_channels_are_grey() -> None:
    planes = np.random.default_rng(0).standard_normal((2, 4, 5))
    found = detail.colours(planes, (1, 2))
    for k in range(3):
        np.testing.assert_allclose(found[:, :, k], planes.mean(axis=0))


def test_the_picture_by_hand() -> None:
    """Seen are two pixels of ± 1: mean 0, deviation 1, so 0.4 and 0.6; outside all is grey, whatever is there."""
    values = np.array([[-1.0, 1.0, 50.0]])[:, :, None].repeat(3, axis=2)
    found = detail.picture(values, (0, 0, 2, 1))
    np.testing.assert_array_equal(found[0, :, 0], [102, 153, 128])
    np.testing.assert_array_equal(detail.picture(values * 1e-9, (0, 0, 2, 1))[0, :, 0], [102, 153, 128])
    np.testing.assert_array_equal(detail.picture(np.zeros((2, 2, 3)), (0, 0, 2, 2)), 128)
    far = np.zeros((20, 20, 3))
    far[0, 0] = 1, -1, 0
    assert detail.picture(far, (0, 0, 20, 20))[0, 0].tolist() == [255, 0, 128]


def spots(channels_last: bool) -> Any:
    """The score is the red of one pixel, the green of another and the blue of a third, so that is the gradient."""
    weight = np.zeros((1, 3, 8, 8), np.float32)
    for channel, (y, x) in enumerate(PIXELS):
        weight[0, channel, y, x] = 1
    net = Net()
    x = net.input("x", ["N", 8, 8, 3] if channels_last else ["N", 3, 8, 8])
    x = net.op("Transpose", x, perm=[0, 3, 1, 2]) if channels_last else x
    x = net.op("Mul", net.op("Relu", x, out="relu"), net.array(weight))
    x = net.op("Conv", x, net.array(np.ones((2, 3, 1, 1), np.float32)), out="map")
    net.op("Flatten", net.op("GlobalAveragePool", x), out="logits")
    return net.model({"logits": ["N", 2]})


PIXELS = [(1, 4), (4, 2), (6, 3)]  # (y, x) of red, green and blue
CENTRES = {  # a point of 8 × 8 → that of the photo, of 60 rows and 40 columns
    "crop": lambda y, x: ((y + 2) * 5, x * 5),  # 12 × 8, 2 rows cut off above and below
    "stretch": lambda y, x: (y * 7.5, x * 5),
    "letterbox": lambda y, x: (y * 7.5, (x - 1) * 8),  # 8 × 5, one empty column on the left
}


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
def test_in_the_pixels_of_the_photo(tmp_path: Path, channels: str, layout: str, resize: str) -> None:
    """A photo of 40 × 60, rotated by its EXIF data in the file: red, green and blue lie where the model saw them."""
    spec = {
        "size": [8, 8], "resize": resize, "scale": 1 / 255, "mean": [0, 0, 0], "std": [1, 1, 1],
        "channels": channels, "layout": layout, "dtype": "float32",
    }  # fmt: skip
    photo = np.full((40, 60, 3), 200, np.uint8)
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), photo)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: 60 × 40, upright
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    height, width = 60, 40
    with ogc.Explainer(spots(layout == "NHWC"), target_layer="map", providers=["cpu"]) as explainer:
        found = explainer.explain_image(path, 0, "guided-backprop", preprocess=spec)
    assert found.attribution is not None
    values, heatmap = draw_attribution(found.frame, found.attribution[0]), found.heatmap[0]
    assert values.shape == (height, width, 3)
    assert heatmap.shape == (height, width)
    for k, (y, x) in enumerate(PIXELS if channels == "RGB" else PIXELS[::-1]):
        at = CENTRES[resize](y + 0.5, x + 0.5)
        peak = np.argwhere(values[:, :, k] > 0.999 * values[:, :, k].max()).mean(axis=0) + 0.5
        np.testing.assert_allclose(peak, at, atol=1)
        np.testing.assert_allclose(heatmap[int(at[0]), int(at[1])], heatmap.max(), atol=0.2)
    x1, y1, x2, y2 = found.seen[0]
    outside = np.ones((height, width), bool)
    outside[y1:y2, x1:x2] = False
    assert not values[outside].any()
    assert (found.detail()[outside] == 128).all()
