"""Pixels become the tensor that a model takes: resized, cut, normalised."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import (
    MODEL_SIZES,
    MODES,
    PHOTO_SIZES,
    RAW,
    Array,
    by_pillow,
    encoded,
    noise,
)
from PIL import Image, ImageOps

from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.listing import list_images
from onnx_gradcam.photos.preprocess.choice import PRESETS, Preprocess
from onnx_gradcam.photos.tensor import to_tensor

# --- resizing, against slow loops, Pillow and OpenCV


def slow_kernel(name: str, x: float) -> float:
    x = abs(x)
    if name == "linear":
        return max(0.0, 1 - x)
    if name == "cubic":  # Keys, a = −1/2
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
    if x == 0:
        return 1.0
    a = math.pi * x  # lanczos 3
    return 3 * math.sin(a) * math.sin(a / 3) / a**2 if x < 3 else 0.0


def slow_resize_line(line: Array, count: int, name: str) -> list[float]:
    """One line of pixels, by the definition, pixel by pixel."""
    ratio, out = len(line) / count, []
    for i in range(count):
        total = weight = 0.0
        for j, value in enumerate(line):
            if name == "area":  # the overlap of [j, j + 1) with the output pixel, at least one pixel wide
                middle, half = (i + 0.5) * ratio, max(1.0, ratio) / 2
                w = max(0.0, min(j + 1, middle + half) - max(j, middle - half))
            elif name == "linear-aliased":
                w = slow_kernel("linear", j + 0.5 - (i + 0.5) * ratio)
            else:
                w = slow_kernel(name, (j + 0.5 - (i + 0.5) * ratio) / max(1.0, ratio))
            total, weight = total + w * float(value), weight + w
        out.append(total / weight)
    return out


@pytest.mark.parametrize("name", ["linear", "linear-aliased", "cubic", "lanczos", "area"])
@pytest.mark.parametrize("size", [(5, 4), (9, 31), (23, 7), (13, 17)])
def test_resize_is_the_definition(name: str, size: tuple[int, int]) -> None:
    image = noise(13, 17, low=60, high=190)
    tensor, _ = to_tensor(image, replace(RAW, size=size, interpolation=name))
    for c in range(3):
        columns = np.array([slow_resize_line(line, size[0], name) for line in image[:, :, c].T]).T
        both = np.array([slow_resize_line(line, size[1], name) for line in columns])
        assert abs(tensor[0, c] - both).max() <= 0.5 + 1e-3  # rounded to whole pixels


PILLOW = {"linear": 2, "cubic": 3, "lanczos": 1}


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("size", [(224, 224), (31, 97), (300, 301)])
def test_resize_is_pillows(name: str, size: tuple[int, int]) -> None:
    """Pillow rounds between its passes, hence two levels; low contrast, so that it clips nothing there."""
    image = noise(201, 255, low=90, high=160)
    tensor, _ = to_tensor(image, replace(RAW, size=size, interpolation=name))
    reference = np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[name])).transpose(2, 0, 1)
    assert abs(tensor[0] - reference.astype(float)).max() <= (1 if name == "linear" else 2)


@pytest.mark.parametrize(("name", "flag"), [("linear-aliased", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)])
def test_resize_is_opencvs(name: str, flag: int) -> None:
    image = noise(201, 255)
    for size in ((97, 31), (100, 85), (201, 255)):
        tensor, _ = to_tensor(image, replace(RAW, size=size, interpolation=name))
        reference = cv2.resize(image, size[::-1], interpolation=flag).transpose(2, 0, 1)
        assert abs(tensor[0] - reference.astype(float)).max() <= 1


def test_nearest_is_exact_at_ties() -> None:
    """Pixel floor((i + ½) · n / m), in fractions: 576 → 224 and 768 → 224 hit borders between pixels."""
    rows = np.arange(576 * 768, dtype=np.uint32).reshape(576, 768)
    image = np.dstack([rows >> 16, rows >> 8 & 255, rows & 255]).astype(np.uint8)
    tensor, _ = to_tensor(image, replace(RAW, size=(224, 224), interpolation="nearest"))
    y = [math.floor(Fraction(2 * i + 1, 2) * Fraction(576, 224)) for i in range(224)]
    x = [math.floor(Fraction(2 * i + 1, 2) * Fraction(768, 224)) for i in range(224)]
    np.testing.assert_array_equal(tensor[0].transpose(1, 2, 0), image[np.ix_(y, x)])


def test_linear_does_not_alias() -> None:
    """One-pixel stripes become nearly even grey, without the wider filter bands from black to white."""
    image = np.repeat(np.tile(np.array([0, 255], np.uint8), 450)[None, :, None], 3, axis=2).repeat(90, axis=0)
    spec = replace(RAW, size=(90, 401))
    spread = {}
    for name in ("linear", "linear-aliased"):
        tensor, _ = to_tensor(image, replace(spec, interpolation=name))
        spread[name] = np.ptp(tensor[:, :, :, 4:-4])
    assert spread["linear"] < 16
    assert spread["linear-aliased"] > 200


@pytest.mark.parametrize("mode", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("photo", PHOTO_SIZES)
def test_resize_modes_are_the_usual_ones(mode: str, photo: tuple[int, int]) -> None:
    for size in ((56, 56), (55, 55), (57, 57)):
        spec = replace(RAW, size=size, **MODES[mode])
        tensor, _ = to_tensor(noise(*photo), spec)
        assert abs(tensor[0].transpose(1, 2, 0) - by_pillow(noise(*photo), spec).astype(float)).max() <= 1


def test_crop_larger_than_the_photo_is_padded() -> None:
    tensor, geometry = to_tensor(np.full((10, 20, 3), 200, np.uint8), replace(RAW, resize="crop", shorter=8, pad=7.0))
    assert geometry.seen == (0, 0, 20, 10)
    np.testing.assert_array_equal(tensor[0, :, [3, 4, 11, 12], 5], np.array([7, 200, 200, 7])[:, None].repeat(3, 1))
    np.testing.assert_array_equal(np.unique(tensor[0, 0, :4]), [7])


def test_own_size() -> None:
    image = noise(10, 23)
    tensor, geometry = to_tensor(image, replace(RAW, size=None))
    np.testing.assert_array_equal(tensor[0].transpose(1, 2, 0), image)
    assert geometry.to_photo(np.eye(10, 23)).tolist() == np.eye(10, 23).tolist()
    assert to_tensor(image, replace(RAW, size=None, shorter=5))[0].shape == (1, 3, 5, 11)


@pytest.mark.parametrize(("mode", "size"), list(itertools.product(MODES, MODEL_SIZES)))
def test_extreme_photos(mode: str, size: tuple[int, int]) -> None:
    for photo in ((1, 1), (1, 3000), (3000, 1), (2, 3)):
        tensor, geometry = to_tensor(np.full((*photo, 3), 9, np.uint8), replace(RAW, size=size, pad=9.0, **MODES[mode]))
        np.testing.assert_array_equal(tensor, np.full((1, 3, *size), 9, np.float32))
        x1, y1, x2, y2 = geometry.seen
        assert 0 <= x1 < x2 <= photo[1]
        assert 0 <= y1 < y2 <= photo[0]
        heatmap = geometry.to_photo(np.ones((7, 7), np.float32))
        expected = np.zeros(photo, np.float32)
        expected[y1:y2, x1:x2] = 1
        np.testing.assert_array_equal(heatmap, expected)


# --- values


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("channels", "red", "green", "blue"),
    [
        ("RGB", [255, 0, 0], [0, 255, 0], [0, 0, 255]),
        ("BGR", [0, 0, 255], [0, 255, 0], [255, 0, 0]),
        ("L", [76], [150], [29]),
        ("RGBA", [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]),
        ("BGRA", [0, 0, 255, 255], [0, 255, 0, 255], [255, 0, 0, 255]),
    ],
)
def test_channel_order(channels: str, layout: str, red: list[int], green: list[int], blue: list[int]) -> None:
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, [0, 1, 2], [0, 1, 2]] = 255
    n = len(red)
    spec = replace(RAW, size=(1, 3), channels=channels, layout=layout, mean=(0.0,) * n, std=(1.0,) * n)
    tensor, _ = to_tensor(decode(encoded(image, "PNG")), spec)
    pixels = np.array([[red, green, blue]])
    np.testing.assert_array_equal(tensor[0], pixels if layout == "NHWC" else pixels.transpose(2, 0, 1))


def test_normalisation() -> None:
    """value = (pixel · scale − mean) / std, by hand, in each dtype."""
    image = np.array([[[0, 100, 255]]], np.uint8)
    spec = Preprocess((1, 1), "stretch", None, 1 / 255, (0.5, 0.0, 0.25), (0.5, 1.0, 0.1), "RGB", "NCHW", "float32")
    tensor, _ = to_tensor(image, spec)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor.ravel(), np.array([-1.0, 100 / 255, 7.5], np.float32))
    half = to_tensor(image, replace(spec, dtype="float16"))[0]
    np.testing.assert_array_equal(half.ravel(), np.array([-1.0, 100 / 255, 7.5], np.float16))
    assert half.dtype == np.float16
    caffe = to_tensor(image, replace(PRESETS["imagenet-caffe"], size=(1, 1), shorter=None))[0]
    np.testing.assert_allclose(caffe.ravel(), [255 - 103.939, 100 - 116.779, -123.68], rtol=1e-6)
    whole = replace(spec, scale=1.0, mean=(128.0, 99.4, 0.0), std=(1.0, 1.0, 1.0), dtype="int8")
    assert to_tensor(image, whole)[0].ravel().tolist() == [-128, 1, 127]  # 0.6 rounded, 255 clipped
    assert to_tensor(image, replace(RAW, size=(1, 1), dtype="uint8"))[0].ravel().tolist() == [0, 100, 255]


def test_letterbox_padding_is_normalised() -> None:
    spec = replace(PRESETS["zero-one"], size=(4, 8), resize="letterbox", pad=114.0)
    tensor, _ = to_tensor(np.full((10, 10, 3), 255, np.uint8), spec)
    np.testing.assert_array_equal(tensor[0, 0, 0], np.array([114 / 255] * 2 + [1] * 4 + [114 / 255] * 2, np.float32))


def test_real_photos(zoo: Path) -> None:
    """Decoded as Pillow decodes them, prepared as torchvision does with Pillow, within one level."""
    spec = replace(PRESETS["imagenet"], scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    for path in list_images([str(zoo / "images")]):
        image = decode(path)
        with Image.open(path) as opened:
            reference = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        assert abs(image.astype(int) - reference).max() <= 1, path
        tensor, _ = to_tensor(image, spec)
        assert abs(tensor[0].transpose(1, 2, 0) - by_pillow(image, spec).astype(float)).max() <= 1, path
