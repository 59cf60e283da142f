"""A photo that a camera stored sideways is decoded upright."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from photos import (
    JPEG_LOSS,
    encoded,
    smooth,
    stored_sideways,
)
from PIL import Image, ImageOps

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import decode


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
