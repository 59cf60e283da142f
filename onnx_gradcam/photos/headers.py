"""The size of an image as the header of its file says it: read before a single pixel is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

Size = tuple[int, int]
"""(width, height) in pixels."""


def size(data: bytes) -> Size | None:
    """Return (width, height) as an image file declares them, before it is turned upright.

    Where a file declares several sizes (tiles, a thumbnail and its image), it is the largest extent of each axis: no
    decoder needs more room.

    Returns:
        None where the file is of no kind that can be read, or its header is cut off or damaged.
    """
    for beginning, read in _READERS:
        if beginning.match(data):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError):
                return None
    return None


def _jpeg(data: bytes) -> Size | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, and no table
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of a TIFF field that hold whole numbers
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)  # tags of the image and of its tiles


def _tiff(data: bytes) -> Size:
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    count_code, start_code, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (start,) = struct.unpack_from(order + start_code, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + count_code, data, start)
    first = start + struct.calcsize(count_code)
    values: dict[int, int] = {}
    for at in range(first, min(first + entry * count, len(data)), entry):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if kind in _TIFF_NUMBERS:
            (values[tag],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, at + entry - (8 if is_big else 4))
    return max(values.get(t, 0) for t in _TIFF_WIDTHS), max(values.get(t, 0) for t in _TIFF_HEIGHTS)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the boxes of an ISO media file, as AVIF and JPEG 2000 have them."""
    at = start
    while at + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1:
            (length,), header = struct.unpack_from(">Q", data, at + 8), 16
        stop = end if length == 0 else min(at + length, end)
        if stop < at + header:
            return
        yield name, at + header, stop
        at = stop


_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0}  # boxes of boxes → bytes before the first


def _nested_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of all boxes, those inside of others too."""
    for name, inside, stop in _boxes(data, start, end):
        if name in _CONTAINERS:
            yield from _nested_boxes(data, inside + _CONTAINERS[name], stop)
        else:
            yield name, inside, stop


def _avif(data: bytes) -> Size | None:
    """Read the sizes of all images (ispe) and of all tracks (tkhd, in 1/65536 of a pixel)."""
    sizes: list[Size] = []
    for name, inside, stop in _nested_boxes(data, 0, len(data)):
        if name == b"ispe":
            sizes.append(struct.unpack_from(">II", data, inside + 4))
        elif name == b"tkhd":
            width, height = struct.unpack_from(">II", data, stop - 8)
            sizes.append((width >> 16, height >> 16))
    return (max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None


_AVIF = re.compile(rb"....ftyp(?=.{0,64}(?:avif|avis|mif1|msf1))", re.DOTALL)
_TURNED = {  # quarter turns to the left, then the axis of a mirror → orientation as EXIF counts it
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


def avif_orientation(data: bytes) -> int:
    """Return how an AVIF image lies, 1 to 8 as EXIF counts it; 1 for other files.

    It stands in the boxes "irot" and "imir", which OpenCV does not apply.
    """
    if not _AVIF.match(data):
        return 1
    first: dict[bytes, int] = {}
    try:
        for name, inside, _ in _nested_boxes(data, 0, len(data)):
            if name in (b"irot", b"imir"):
                first.setdefault(name, data[inside])
    except (struct.error, IndexError):
        return 1
    mirror = first.get(b"imir")
    return _TURNED[first.get(b"irot", 0) & 3, None if mirror is None else mirror & 1]


def _jp2(data: bytes) -> Size | None:
    for name, inside, _ in _boxes(data, 0, len(data)):
        if name == b"jp2c":
            return _codestream(data[inside : inside + 64])
    return None


def _codestream(data: bytes) -> Size:
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    return max(right - left, 0), max(bottom - top, 0)


def _sun(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 4)
    return width, height


_NETPBM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)")


def _netpbm(data: bytes) -> Size | None:
    match = _NETPBM.match(data[:4096])
    return (int(match[1]), int(match[2])) if match else None


def _pam(data: bytes) -> Size | None:
    fields = dict(re.findall(rb"^(WIDTH|HEIGHT)[ \t]+(\d+)", data[:4096].partition(b"ENDHDR")[0], re.MULTILINE))
    return (int(fields[b"WIDTH"]), int(fields[b"HEIGHT"])) if len(fields) == 2 else None


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Size | None]], ...] = tuple(
    (re.compile(beginning, re.DOTALL), read)
    for beginning, read in (
        (rb"\xff\xd8", _jpeg),
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"RIFF....WEBP", _webp),
        (rb"GIF8[79]a", _gif),
        (rb"BM", _bmp),
        (rb"II[*+]\0|MM\0[*+]", _tiff),
        (_AVIF.pattern, _avif),
        (rb"\0\0\0\x0cjP  \r\n\x87\n", _jp2),
        (rb"\xff\x4f\xff\x51", _codestream),
        (rb"P[1-6]\s", _netpbm),
        (rb"P7\s", _pam),
        (rb"\x59\xa6\x6a\x95", _sun),
    )
)
