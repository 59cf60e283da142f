from __future__ import annotations

import io
import itertools
import math
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import decode, list_images, load_tensor
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.preprocess.choice import PRESETS, Preprocess
from onnx_gradcam.photos.tensor import to_tensor

Array = NDArray[Any]
JPEG_LOSS = 6  # colours are rounded twice on the way to YCbCr and back, times 1.8
RAW = replace(PRESETS["raw"], size=(16, 16))
FORMATS: dict[str, Any] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
}


def noise(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> Array:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int) -> Array:
    """No two corners alike, and soft enough for JPEG."""
    return np.asarray(Image.fromarray(noise(4, 5)).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Array | Image.Image, kind: str, orientation: int | None = None, **options: Any) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **{**FORMATS[kind], **options})
    return buffer.getvalue()


def stored_sideways(upright: Array, orientation: int) -> Array:
    """What a camera stores beside ``orientation``: the viewer's turn makes it ``upright`` again."""
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


# --- decoding


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str) -> None:
    image = smooth(31, 47)
    decoded = decode(encoded(image, kind))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (31, 47, 3)
    assert abs(decoded.astype(int) - image).max() <= (JPEG_LOSS if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    upright = smooth(21, 34)
    data = encoded(stored_sideways(upright, orientation), kind, orientation)
    with Image.open(io.BytesIO(data)) as opened:
        reference = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        np.testing.assert_array_equal(decode(opened), reference)  # the PIL image itself, tag and all
    assert abs(reference.astype(int) - upright).max() <= (JPEG_LOSS if kind == "JPEG" else 0)
    assert abs(decode(data).astype(int) - reference).max() <= (1 if kind == "JPEG" else 0)


def tiff_block(order: str, orientation: int) -> bytes:
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    packed = b"".join(struct.pack(order + "HHI", *e[:3]) + e[3] for e in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(entries)) + packed + bytes(4)


@pytest.mark.parametrize("order", "<>")
def test_exif_byte_order_and_position(order: str) -> None:
    """Behind another APP1 (XMP) and fill bytes; a thumbnail's end marker is not the photo's."""
    image = smooth(12, 20)
    jpeg = encoded(image, "JPEG")
    exif = b"Exif\0\0" + tiff_block(order, 6) + b"thumbnail \xff\xd8\xff\xd9"
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(b) + 2) + b for b in (xmp, exif))
    data = jpeg[:2] + segments.replace(b"\xff\xe1", b"\xff\xff\xff\xe1") + jpeg[2:]
    np.testing.assert_array_equal(decode(data), np.rot90(decode(jpeg), -1))
    with pytest.raises(InputError, match="bytes is cut off"):
        decode(data[:-2])


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", tiff_block("<", 77), tiff_block("<", 6)[:20]]
)
def test_damaged_exif_is_upright(exif: bytes) -> None:
    png = encoded(smooth(5, 8), "PNG")
    chunk = b"eXIf" + exif

    body = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    np.testing.assert_array_equal(decode(png[:33] + body + png[33:]), decode(png))


def test_grey_palette_and_one_bit() -> None:
    colour = smooth(9, 14)
    for mode in ("L", "P", "1", "LA", "CMYK"):
        picture = Image.fromarray(colour).convert(mode)
        expected = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(decode(picture), expected)
        if mode != "CMYK":
            np.testing.assert_array_equal(decode(encoded(picture, "PNG")), expected)
    np.testing.assert_array_equal(decode(colour[:, :, 0]), np.repeat(colour[:, :, :1], 3, axis=2))


def test_sixteen_bits_are_rounded() -> None:
    values = np.array([[0, 128, 129, 257, 257 * 100 + 128, 257 * 100 + 129, 65406, 65407, 65535]], np.uint16)
    expected = np.array([[math.floor(int(v) / 257 + 0.5) for v in values[0]]])
    picture = Image.fromarray(values)
    for decoded in (decode(encoded(picture, "PNG")), decode(picture), decode(picture.convert("I"))):
        np.testing.assert_array_equal(decoded, np.repeat(expected[:, :, None], 3, axis=2))
    colour = np.dstack([values, values[:, ::-1], values // 2])  # RGB
    png = cv2.imencode(".png", colour[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode(png), np.floor(colour / 257 + 0.5))


def test_transparency_is_laid_on_white() -> None:
    pixels = np.array([[[0, 0, 0, 0], [200, 0, 100, 255], [10, 20, 30, 128], [255, 0, 0, 51]]], np.uint8)
    # v·a + 255·(1 − a), by hand: a = 128/255 and 51/255 = 1/5
    expected = [[[255, 255, 255], [200, 0, 100], [132, 137, 142], [255, 204, 204]]]
    for source in (
        encoded(pixels, "PNG"),
        encoded(pixels, "WEBP", exact=True),
        Image.fromarray(pixels),
        pixels,
    ):
        np.testing.assert_array_equal(decode(source), expected)
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((1, 0), 1)
    transparent = encoded(palette, "PNG", transparency=0)
    np.testing.assert_array_equal(decode(transparent), [[[255, 255, 255], [9, 8, 7]]])
    with Image.open(io.BytesIO(transparent)) as opened:
        np.testing.assert_array_equal(decode(opened), [[[255, 255, 255], [9, 8, 7]]])


def test_alpha_that_is_zero_everywhere_means_nothing() -> None:
    pixels = np.dstack([noise(3, 4), np.zeros((3, 4), np.uint8)])
    np.testing.assert_array_equal(decode(pixels), pixels[:, :, :3])


def test_non_ascii_path(tmp_path: Path) -> None:
    path = tmp_path / "Grüße 猫.png"
    path.write_bytes(encoded(noise(4, 4), "PNG"))
    for name in (path, str(path)):
        np.testing.assert_array_equal(decode(name), noise(4, 4))


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off_files_are_refused_in_silence(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(smooth(60, 80), kind)
    for cut in (1, 8, 30, len(data) // 3, len(data) // 2, len(data) - 20, len(data) - 2, len(data) - 1):
        with pytest.raises(InputError, match="cut off"):
            decode(data[:cut])
    assert capfd.readouterr() == ("", "")


def test_corrupt_png_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encoded(smooth(60, 80), "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InputError, match="corrupt"):
        decode(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_a_bmp_of_os2_is_read() -> None:
    rows = bytes([1, 1, 1, 2, 2, 2, 0, 0]) + bytes([3, 3, 3, 4, 4, 4, 0, 0])  # the lowest row first
    data = b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 2, 1, 24) + rows
    np.testing.assert_array_equal(decode(data), [[[3] * 3, [4] * 3], [[1] * 3, [2] * 3]])
    with pytest.raises(InputError, match="cut off"):
        decode(data[:-1])


def test_decoding_leaves_the_log_of_opencv_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.utils.logging, "setLogLevel", None)
    decode(encoded(noise(4, 4), "PNG"))
    with pytest.raises(InputError):
        decode(b"no picture")


def test_trailing_data_is_allowed() -> None:
    """Phones append a video; its bytes look like any marker."""
    jpeg = encoded(smooth(20, 30), "JPEG")
    np.testing.assert_array_equal(decode(jpeg + b"\xff\xda" + bytes(99)), decode(jpeg))


def test_files_that_are_no_photos(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    for name, what in {
        "cat.jpg": "is empty",
        "notes.txt": "not an image",
        "cta.jpg": "no such file",
        ".": "is a folder",
    }.items():
        with pytest.raises(InputError, match=what) as caught:
            decode(tmp_path / name)
        assert str(tmp_path / name) in caught.value.what
        assert caught.value.hint
    with pytest.raises(InputError) as caught:
        decode(tmp_path / "cta.jpg")
    assert "'cat.jpg'" in caught.value.hint
    with pytest.raises(InputError, match="no such file") as caught:
        decode(tmp_path / "nowhere" / "cat.jpg")
    assert "nowhere" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8, not float32"),
        (np.zeros((4, 4, 3), np.uint16), "must be uint8, not uint16"),
        (np.zeros((3, 4, 4, 1), np.uint8), r"shape \(3, 4, 4, 1\)"),
        (np.zeros((3, 5, 6), np.uint8), r"shape \(3, 5, 6\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (Image.new("F", (3, 3)), "float32"),
        (b"", "is empty"),
        (7, "cannot use a int as an image"),
    ],
)
def test_sources_that_are_no_photos(source: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        decode(source)


def test_truncated_pil_image() -> None:
    data = encoded(smooth(60, 80), "JPEG")
    with (
        Image.open(io.BytesIO(data[: len(data) // 2])) as opened,
        pytest.raises(InputError, match="truncated"),
    ):
        decode(opened)


# --- lists of files, tensors


def test_list_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.JPG", "a.png", "c.npy", "notes.txt", "._a.png", "x[1].png"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.webp").touch()
    folder = [tmp_path / n for n in ("a.png", "b.JPG", "c.npy", "x[1].png")]
    assert list_images([str(tmp_path)]) == folder
    assert list_images([str(tmp_path / "*.png")]) == [tmp_path / "a.png", tmp_path / "x[1].png"]
    assert list_images([str(tmp_path / "**" / "*.webp")]) == [tmp_path / "sub" / "d.webp"]
    assert list_images([str(tmp_path / "x[1].png")]) == [tmp_path / "x[1].png"]  # a file of that name, no glob
    assert list_images([str(tmp_path / "notes.txt"), str(tmp_path / "gone.png")]) == [
        tmp_path / "notes.txt",
        tmp_path / "gone.png",
    ]
    assert list_images([str(tmp_path / "b.JPG"), str(tmp_path)]) == [folder[1], folder[0], *folder[2:]]
    monkeypatch.chdir(tmp_path)
    assert list_images(["*.png"]) == [Path("a.png"), Path("x[1].png")]
    (tmp_path / "empty").mkdir()
    for paths, what in {
        ("empty",): "no images in folder 'empty'",
        ("*.gif",): r"'\*.gif'",
        (): "no images",
    }.items():
        with pytest.raises(InputError, match=what):
            list_images(paths)


def test_load_tensor(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float16).reshape(1, 2, 3)
    np.save(tmp_path / "x.npy", x)
    loaded = load_tensor(tmp_path / "x.npy")
    assert loaded.dtype == np.float16
    np.testing.assert_array_equal(loaded, x)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-3])
    np.save(tmp_path / "pickled.npy", np.array([{}], object))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.savez(tmp_path / "many.npz", x)
    for name, what in {
        "text.npy": "cannot read",
        "empty.npy": "cannot read",
        "cut.npy": "cannot read",
        "pickled.npy": "Object arrays",
        "words.npy": "not numbers",
        "many.npz": "cannot read",
        "gone.npy": "no such file",
    }.items():
        with pytest.raises(InputError, match=what) as caught:
            load_tensor(tmp_path / name)
        assert name in caught.value.what


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


# --- crop, stretch, letterbox


def by_pillow(image: Array, spec: Preprocess) -> Array:
    """torchvision's Resize(shorter) + CenterCrop, and a letterbox, written with Pillow's calls."""
    h, w = image.shape[:2]
    assert spec.size is not None
    height, width = spec.size
    if spec.resize == "crop":
        assert spec.shorter is not None
        s = spec.shorter
        new = (s, int(s * w / h)) if h <= w else (int(s * h / w), s)
        top, left = round((new[0] - height) / 2.0), round((new[1] - width) / 2.0)
    elif spec.resize == "stretch":
        new, top, left = (height, width), 0, 0
    else:
        r = min(height / h, width / w)
        new = (round(h * r), round(w * r))
        top, left = -round((height - new[0]) / 2 - 0.1), -round((width - new[1]) / 2 - 0.1)
    resized = Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (width, height), (114, 114, 114))
    canvas.paste(resized, (-left, -top))
    return np.asarray(canvas)


MODES = {
    "crop": {"resize": "crop", "shorter": 61},
    "fill": {"resize": "crop", "shorter": None},
    "stretch": {"resize": "stretch", "shorter": None},
    "stretch and cut": {"resize": "stretch", "shorter": 62},
    "letterbox": {"resize": "letterbox", "shorter": None},
}
PHOTOS = [(97, 61), (61, 97), (40, 211), (53, 53)]
MODELS = [(56, 56), (45, 33), (48, 80)]


@pytest.mark.parametrize("mode", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("photo", PHOTOS)
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


@pytest.mark.parametrize(("mode", "size"), list(itertools.product(MODES, MODELS)))
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


# --- geometry: the way back


def slow_to_photo(heatmap: Array, geometry: Geometry) -> Array:
    """Bilinear at each photo pixel's centre, border cells extended, 0 where the centre was not seen."""
    out = np.zeros(geometry.photo)
    for y, x in np.ndindex(*geometry.photo):
        place = []
        for at, s, o, m, n in zip((y, x), geometry.scale, geometry.offset, geometry.model, heatmap.shape, strict=True):
            model = (at + 0.5) * s + o
            if not 0 <= model < m:
                break
            place.append(min(max(model * n / m - 0.5, 0.0), n - 1.0))
        else:
            v, u = place
            i, j = min(int(v), max(heatmap.shape[0] - 2, 0)), min(int(u), max(heatmap.shape[1] - 2, 0))
            f, g = v - i, u - j
            i2, j2 = min(i + 1, heatmap.shape[0] - 1), min(j + 1, heatmap.shape[1] - 1)
            top = (1 - g) * heatmap[i, j] + g * heatmap[i, j2]
            out[y, x] = (1 - f) * top + f * ((1 - g) * heatmap[i2, j] + g * heatmap[i2, j2])
    return out


@pytest.mark.parametrize(("mode", "photo"), list(itertools.product(MODES, PHOTOS[:3])))
def test_to_photo_is_bilinear(mode: str, photo: tuple[int, int]) -> None:
    for size, grid in zip(MODELS, ((7, 7), (5, 3), (1, 4)), strict=True):
        _, geometry = to_tensor(noise(*photo), replace(RAW, size=size, **MODES[mode]))
        heatmap = np.random.default_rng(1).random(grid, np.float32)
        result = geometry.to_photo(heatmap)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, slow_to_photo(heatmap, geometry), atol=2e-6)
        x1, y1, x2, y2 = geometry.seen
        outside = result.copy()
        outside[y1:y2, x1:x2] = 0
        assert not outside.any()


def test_seen_by_hand() -> None:
    image = noise(300, 451)
    cases = {  # torchvision: 300 × 451 → 256 × 384, at (16, 80): 80/384·451 = 93.96 … 304/384·451 = 357.04
        "imagenet": (replace(PRESETS["imagenet"]), (94, 19, 357, 281)),
        "stretch": (PRESETS["tf"], (0, 0, 451, 300)),
        "letterbox": (replace(PRESETS["tf"], resize="letterbox"), (0, 0, 451, 300)),
        "fill": (
            replace(PRESETS["imagenet"], shorter=None),
            (75, 0, 376, 300),
        ),  # 224 × 336, at 56: 75.2 … 375.8
    }
    for name, (spec, seen) in cases.items():
        assert to_tensor(image, spec)[1].seen == seen, name


def test_to_photo_averages_when_the_photo_is_smaller() -> None:
    """A lone pixel of a large map is not lost between the samples: each axis weighs it (1 − d/8) / 8."""
    _, geometry = to_tensor(noise(8, 8), replace(RAW, size=(64, 64)))
    for y, x in ((31, 32), (37, 27), (20, 43)):
        heatmap = np.zeros((64, 64), np.float32)
        heatmap[y, x] = 1
        result = geometry.to_photo(heatmap)
        weight = [(1 - abs(v + 0.5 - (v // 8 * 8 + 4)) / 8) / 8 for v in (y, x)]
        assert result[y // 8, x // 8] == result.max() == pytest.approx(weight[0] * weight[1], rel=1e-5)
        assert result.sum() == pytest.approx(1 / 64, rel=1e-5)


def pooled(x: Array, grid: tuple[int, int]) -> Array:
    """The average of each cell."""
    return x.reshape(grid[0], x.shape[0] // grid[0], grid[1], -1).mean(axis=(1, 3))


GRIDS = [((56, 56), (7, 7)), ((45, 33), (5, 3)), ((48, 80), (6, 10))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_bright_dot_comes_back_to_its_place(orientation: int) -> None:
    """20 positions × resize modes × odd sizes; brightness is the map, in full and on a grid of cells."""
    rng = np.random.default_rng(orientation)
    found, hidden = 0, 0
    for photo in ((97, 61), (61, 133)):
        for dot in rng.uniform([2, 2], [photo[0] - 2, photo[1] - 2], (10, 2)).astype(int):
            upright = np.zeros((*photo, 3), np.uint8)
            upright[dot[0] - 1 : dot[0] + 2, dot[1] - 1 : dot[1] + 2] = 255
            image = decode(encoded(stored_sideways(upright, orientation), "PNG", orientation))
            for (size, grid), mode in itertools.product(GRIDS, MODES):
                tensor, geometry = to_tensor(image, replace(RAW, size=size, pad=0.0, **MODES[mode]))
                brightness, pixel = tensor[0].mean(axis=0), 1 / np.array(geometry.scale)
                x1, y1, x2, y2 = geometry.seen
                beyond = np.maximum([y1, x1] - dot, dot - [y2 - 1, x2 - 1])
                if (beyond > 2 + 2 * np.maximum(pixel, 1)).any():
                    assert brightness.max() == 0, "what the crop hid is in the model's input"
                    hidden += 1
                if (beyond > -2).any():
                    continue
                cell = pixel * size / grid
                for heatmap, reach in ((brightness, pixel + 1), (pooled(brightness, grid), cell)):
                    peak = np.unravel_index(geometry.to_photo(heatmap).argmax(), photo)
                    assert (abs(np.array(peak) - dot) <= reach).all(), (mode, photo, size, dot, peak)
                    found += 1
    assert found > 300
    assert hidden > 10


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


def test_a_broken_opencv_names_the_command_that_mends_it(tmp_path: Path) -> None:
    """Two distributions own cv2 and one has overwritten the other."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "m.packages_distributions = lambda: {'cv2': ['opencv-python', 'opencv-python-headless']}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import onnx_gradcam"], env=env, capture_output=True, text=True, check=False
    )
    assert "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless" in done.stderr
    assert "libGL.so.1" in done.stderr
