"""Files, bytes and arrays become pixels, or are refused by name."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from photos import (
    FORMATS,
    JPEG_LOSS,
    encoded,
    noise,
    smooth,
)
from PIL import Image, ImageOps

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import decode, load_tensor


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str) -> None:
    image = smooth(31, 47)
    decoded = decode(encoded(image, kind))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (31, 47, 3)
    assert abs(decoded.astype(int) - image).max() <= (JPEG_LOSS if kind == "JPEG" else 0)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_an_opened_file_is_turned_once(kind: str, orientation: int) -> None:
    """Pillow turns a TIFF by itself when it is loaded, other files never; both before and after that."""
    photo = smooth(9, 14)
    data = encoded(photo, kind, orientation)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened.copy() if kind == "TIFF" else opened).convert("RGB"))
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(decode(opened), expected)
        np.testing.assert_array_equal(decode(opened), expected)
    np.testing.assert_allclose(decode(data), expected, atol=JPEG_LOSS if kind == "JPEG" else 0)


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
