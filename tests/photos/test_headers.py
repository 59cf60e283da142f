"""The size of an image is read before it is decoded, and too large an image never is."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos import headers
from onnx_gradcam.photos.decode import MAX_PIXELS, ROWS, decode, load_tensor

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
BY_PILLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "jpeg with EXIF and profile": ("JPEG", {"exif": b"Exif\0\0" + bytes(900), "icc_profile": bytes(70000)}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "extended webp": ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "deflated tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "big tiff": ("TIFF", {"big_tiff": True}),
    "jp2": ("JPEG2000", {}),
    "codestream": ("JPEG2000", {"no_jp2": True}),
    "ppm": ("PPM", {}),
}


@pytest.mark.parametrize("name", BY_PILLOW)
def test_size_of_what_pillow_writes(name: str) -> None:
    kind, options = BY_PILLOW[name]
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    data = buffer.getvalue()
    assert headers.size(data) == (53, 37)
    assert decode(data).shape == (37, 53, 3)
    for cut in range(0, 40, 3):  # never anything but a size or None
        assert headers.size(data[:cut]) in (None, (53, 37), (0, 0))


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jp2", ".ppm", ".pam", ".sr"]
)
def test_size_of_what_opencv_writes(suffix: str) -> None:
    if not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"OpenCV: built without {suffix}")
    data = cv2.imencode(suffix, PIXELS)[1].tobytes()
    assert headers.size(data) == (53, 37)
    assert decode(data).shape == (37, 53, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_upright(kind: str, orientation: int) -> None:
    if kind == "AVIF" and not (features.check("avif") and cv2.haveImageWriter("x.avif")):
        pytest.skip("AVIF: Pillow or OpenCV was built without it")
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32, 0] = pixels[20:, 32:, 2] = pixels[:20, 32:, 1] = 255
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **({} if kind in ("PNG", "TIFF") else {"quality": 95}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB"))
    photo = decode(buffer.getvalue())
    assert photo.shape == expected.shape == ((40, 64, 3) if orientation < 5 else (64, 40, 3))
    assert np.abs(photo.astype(int) - expected).mean() < 8


def test_old_forms() -> None:
    os2 = b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + struct.pack("<IHHHH", 12, 53, 37, 1, 24) + bytes(37 * 160)
    assert headers.size(os2) == (53, 37)
    upside_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 53, -37)
    assert headers.size(upside_down) == (53, 37)
    assert headers.size(b"P5\n# a comment\n 53\n# another\n37\n255\n") == (53, 37)
    tiled = b"MM\0*" + struct.pack(">IH", 8, 4)
    for tag, value in ((256, 53), (257, 37), (322, 4096), (323, 16)):
        tiled += struct.pack(">HHII", tag, 4, 1, value)
    assert headers.size(tiled) == (4096, 37)  # a tile is decoded whole
    assert headers.size(b"no picture at all") is None
    assert headers.size(b"") is None


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour, small as a file."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    blocks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in blocks
    )


def test_a_large_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = bomb(30_000, 30_000)
    (tmp_path / "large.png").write_bytes(data)

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("onnx_gradcam.photos.decode.cv2.imdecode", never)
    tracemalloc.start()
    with pytest.raises(InputError, match="30000 × 30000 pixels, more than the limit of 200,000,000") as error:
        decode(tmp_path / "large.png")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert "--max-pixels 900000000" in error.value.hint
    assert error.value.size == (30_000, 30_000)
    assert MAX_PIXELS == 200_000_000


def test_the_limit_is_the_callers() -> None:
    data = cv2.imencode(".png", PIXELS)[1].tobytes()
    assert decode(data, max_pixels=37 * 53).shape == (37, 53, 3)
    for source in (data, Image.fromarray(PIXELS)):
        with pytest.raises(InputError, match="53 × 37"):
            decode(source, max_pixels=37 * 53 - 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_rows_of_an_image_are_converted_a_few_at_a_time(kind: type[np.generic], channels: int) -> None:
    """With the values of the formulas for all rows at once."""
    shape = (2 * ROWS + 17, 5, channels)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)  # type: ignore[type-var]
    photo = decode(cv2.imencode(".png", pixels)[1].tobytes())
    wide = pixels[:, :, [2, 1, 0, 3][:channels]].astype(np.int64)
    eight = (wide + 128) // 257 if kind is np.uint16 else wide
    alpha = eight[:, :, 3:] if channels == 4 else np.full((*shape[:2], 1), 255)
    np.testing.assert_array_equal(photo, (eight[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255)


def test_an_array_that_is_cut_off_is_not_allocated(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**6)})
        file.write(bytes(100))
    with pytest.raises(InputError, match="cut off"):
        load_tensor(tmp_path / "x.npy")
