"""Whether an image file holds several images: only the first is explained, and the user is told."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

SEVERAL = "{name} holds several images: only the first is explained"
REDUCED, MASK = 1, 4  # bits of TIFF's NewSubfileType: such a page is no image of its own


def several_note(source: object) -> tuple[str, ...]:
    """Return a sentence where a photo, as ``decode`` takes it, is one of several in its file; nothing else."""
    if isinstance(source, bytes | bytearray | memoryview):
        return (SEVERAL.format(name="the file"),) if has_several(bytes(source)) else ()
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return (SEVERAL.format(name=f"'{path}'"),) if has_several(path.read_bytes()) else ()
    return (SEVERAL.format(name="the PIL image"),) if getattr(source, "n_frames", 1) > 1 else ()


def has_several(data: bytes) -> bool:
    """Tell whether a GIF, PNG, WebP, TIFF or AVIF file holds more than one image: an animation, or pages."""
    for beginning, count in _COUNTERS:
        if re.match(beginning, data, re.DOTALL):
            try:
                return count(data)
            except (struct.error, IndexError):
                return False
    return False


def _gif(data: bytes) -> bool:
    at, images = 13 + _colours(data[10]), 0
    while at < len(data) and data[at] in (0x21, 0x2C):
        if data[at] == 0x2C:
            images += 1
            at += 11 + _colours(data[at + 9])
        else:
            at += 2
        while data[at]:  # blocks of data, each behind its length
            at += 1 + data[at]
        at += 1
    return images > 1


def _colours(flags: int) -> int:
    """Return the bytes of the table of colours that flags describe."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png(data: bytes) -> bool:
    at = 8
    while data[at + 4 : at + 8] != b"IDAT":
        length, name, frames = struct.unpack_from(">I4sI", data, at)
        if name == b"acTL":
            return bool(frames > 1)
        at += 12 + length
    return False


def _webp(data: bytes) -> bool:
    at, images = 12, 0
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        images += name == b"ANMF"
        at += 8 + length + length % 2
    return images > 1


def _tiff(data: bytes) -> bool:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    after = _after_page(data, order, start)
    (following,) = struct.unpack_from(f"{order}I", data, after)
    if not following:
        return False
    (count,) = struct.unpack_from(f"{order}H", data, following)
    fields = dict(struct.unpack_from(f"{order}H6xI", data, following + 2 + 12 * i) for i in range(count))
    return not fields.get(254, 0) & (REDUCED | MASK)


def _after_page(data: bytes, order: str, start: int) -> int:
    (count,) = struct.unpack_from(f"{order}H", data, start)
    return int(start + 2 + 12 * count)


_COUNTERS: tuple[tuple[bytes, Callable[[bytes], bool]], ...] = (
    (rb"GIF8[79]a", _gif),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"RIFF....WEBP", _webp),
    (rb"II\*\0|MM\0\*", _tiff),
    (rb"....ftypavis", lambda data: True),
)
