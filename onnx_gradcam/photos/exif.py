"""The blocks of a JPEG, PNG, WebP or BMP file: its EXIF data, and whether the file is complete."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator


def blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the blocks (name, content) of a JPEG, PNG, WebP or BMP file that matter here.

    They are "start", "exif" (its content is a TIFF block) and "end". Where "end" is missing, the file is cut off or
    corrupt. Other kinds of files have no blocks.
    """
    if data[:2] == b"\xff\xd8":
        walk = _jpeg_blocks(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        walk = _png_blocks(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        walk = _webp_blocks(data)
    elif data[:2] == b"BM":
        walk = _bmp_blocks(data)
    else:
        return
    yield b"start", b""
    yield from walk


def _jpeg_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 2
    while data[at : at + 1] == b"\xff":
        marker, size = data[at + 1 : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xda":  # the scan: every 0xff in it is escaped, so this end marker is the true one
            if data.find(b"\xff\xd9", at) >= 0:
                yield b"end", b""
            return
        if marker == b"\xe1" and data[at + 4 : at + 10] == b"Exif\0\0":
            yield b"exif", data[at + 10 : at + 2 + size]
        at += 1 if marker == b"\xff" else 2 + size


def _png_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body, check = data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        is_critical = name[:1].isupper()
        if is_critical and zlib.crc32(name + body).to_bytes(4, "big") != check:
            return
        if name == b"eXIf":
            yield b"exif", body
        if name == b"IEND":
            yield b"end", b""
        at += 12 + size


def _webp_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    end, at = 8 + int.from_bytes(data[4:8], "little"), 12
    while at + 8 <= min(end, len(data)):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            yield b"exif", data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
        at += 8 + size + size % 2
    if end <= len(data):
        yield b"end", b""


def _bmp_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    try:
        start, header = struct.unpack_from("<II", data, 10)
        if header == 12:  # of OS/2
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = 0
        else:
            width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    except struct.error:
        return
    rows = 0 if compression in _RUN_LENGTHS else abs(height)
    if start + (width * bits + 31) // 32 * 4 * rows <= len(data):
        yield b"end", b""


_RUN_LENGTHS = (1, 2)  # compressions of BMP whose rows have no fixed size


def orientation(exif: bytes) -> int:
    """Return the orientation in a TIFF block (tag 0x0112), 1 to 8.

    It is 1 (upright) where the block has no such tag or is damaged.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        tags = dict(struct.unpack_from(f"{order}H6xH", exif, at + 2 + 12 * i) for i in range(count))
    except struct.error:
        return 1
    return int(tags.get(0x0112, 1))
