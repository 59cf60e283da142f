"""From files to arrays: photos and tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.photos import exif, headers
from onnx_gradcam.photos.dicom import DicomImage, is_dicom, read_dicom
from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.photos.window import WHITE, Window, windowed

Photo = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, upright."""
DeepPhoto = NDArray[np.float32]
"""(H, W, 3) float32 RGB from 0 to 255, not rounded, upright."""

MAX_PIXELS = 200_000_000
"""How many pixels a photo may have before it is decoded, unless the caller allows more."""
ROWS = 256
VOLUMES = (".nii", ".nii.gz")
"""The suffixes of files that are volumes and no photos: ``photos.volume`` reads them."""


def decode(source: object, max_pixels: int = MAX_PIXELS) -> Photo:
    """Return a photo as (H, W, 3) uint8 RGB, upright: the EXIF orientation is applied.

    Values of 16 bits become 8 bits (v / 257, rounded). Transparent pixels are drawn on white: the colour that is stored
    for them, often black, does not show.

    Args:
        source: the path of an image file, its bytes, a PIL image, or a uint8 array: (H, W, 3) RGB, (H, W, 4) RGBA or
            (H, W) grey. JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 and Netpbm files can be read as far as the
            installed OpenCV decodes them; of several frames the first is taken. DICOM files need pydicom: they are
            shown through the window that they declare.
        max_pixels: the largest number of pixels that is decoded. The header of a file says its size, so that a file
            that is too large is refused before anything is allocated for it.

    Raises:
        InputError: the file does not exist, is empty, cut off, corrupt, too large or not an image, or the array has
            another shape or dtype.
    """
    stored = read(source, max_pixels)
    if isinstance(source, np.ndarray) and source.dtype != np.uint8:
        hint = "uint8 RGB (H, W, 3) in 0..255; pass a prepared tensor to explain(), or as a .npy file"
        raise InputError(f"an image array must be uint8, not {source.dtype}", hint=hint, dtype=str(source.dtype))
    values = stored.values if stored.dicom is None else stored.dicom.shown
    if values.dtype.kind in "iu" and hasattr(source, "getexif"):  # Pillow holds 16-bit grey as int32, too
        values = values if values.dtype == np.uint8 else values.clip(0, 65535).astype(np.uint16)
    return _turn(_rgb(values, stored.name), stored.orientation)


def decode_window(source: object, window: Window, max_pixels: int = MAX_PIXELS) -> DeepPhoto:
    """Return a photo through a window, (H, W, 3) float32 RGB from 0 to 255, not rounded, upright.

    All bits of the file count: 16-bit PNG and TIFF, and TIFF with negative numbers or floats. Transparency is left out.

    Args:
        source: as for ``decode``; an array or a PIL image may have any numeric dtype.
        window: the centre and the width of what becomes black to white, in the values that are stored.
        max_pixels: as for ``decode``.

    Raises:
        InputError: as for ``decode``.
    """
    stored = read(source, max_pixels)
    values = stored.values[:, :, None] if stored.values.ndim == 2 else stored.values
    if values.dtype.kind not in "fiu" or values.ndim != 3 or values.shape[2] not in (1, 3, 4) or not values.size:
        what = f"{stored.name} is not a photo: shape {values.shape}, {values.dtype}"
        raise InputError(what, hint="numbers, (H, W), (H, W, 3) or (H, W, 4)", shape=values.shape)
    shown = windowed(values[:, :, :3], window)
    if stored.dicom is not None and stored.dicom.is_inverted:
        shown = np.float32(WHITE) - shown
    colours = np.broadcast_to(shown, (*values.shape[:2], 3))
    return _turn(colours, stored.orientation)


@dataclass(frozen=True, eq=False)
class Stored:
    """An image as its file stores it.

    Attributes:
        values: (H, W) or (H, W, channels), channels in the order RGB(A), of the dtype of the file.
        name: what messages call it.
        orientation: of its EXIF data, 1 for upright.
        dicom: what a DICOM file says beside its values; None for others.
    """

    values: NDArray[Any]
    name: str
    orientation: int = 1
    dicom: DicomImage | None = None


def read(source: object, max_pixels: int = MAX_PIXELS) -> Stored:
    """Return an image as its file stores it: with all its bits, and not turned.

    Args and errors are those of ``decode``.
    """
    if isinstance(source, np.ndarray):
        return Stored(source, "the array")
    if hasattr(source, "getexif") and hasattr(source, "convert"):
        return _from_pil(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), f"{len(bytes(source))} bytes", max_pixels)
    if isinstance(source, str | os.PathLike):
        if Path(source).name.lower().endswith(VOLUMES):
            hint = "explain MODEL SCAN, in Python explain_volume(explainer, scan); elsewhere an array as .npy"
            raise InputError(f"'{os.fspath(source)}' is a volume, and a photo is needed here", hint=hint, path=source)
        return _from_bytes(_read(Path(source)), f"'{os.fspath(source)}'", max_pixels)
    kind = type(source).__name__
    hint = "a path, bytes, a PIL image or a uint8 array"
    hint = f"explain_images(…) takes several photos; each is {hint}" if isinstance(source, list | tuple) else hint
    raise InputError(f"cannot use a {kind} as an image", hint=hint, kind=kind)


def load_tensor(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array in a .npy file; pickled objects are not loaded.

    Raises:
        InputError: the file does not exist, is not a .npy file, is cut off, or holds no numbers.
    """
    path = Path(path)
    check_file(path)
    try:
        with path.open("rb") as file:
            _check_length(file)
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        hint = "numpy.save(path, array) writes one"
        raise InputError(f"cannot read '{path}' as a .npy array: {error}", hint=hint, path=path) from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"'{path}' holds {array.dtype}, not numbers", hint="save a numeric array", path=path)
    return np.asarray(array)


def _check_length(file: BinaryIO) -> None:
    """Raise ``ValueError`` for a .npy file that is shorter than its header says, before an array is allocated."""
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version in header:
        shape, _, dtype = header[version](file)
        size = math.prod(shape) * dtype.itemsize
        if size > os.fstat(file.fileno()).st_size - file.tell() and not dtype.hasobject:
            raise ValueError(f"its header says {size} bytes of values, and the file has fewer: it is cut off")
    file.seek(0)


def check_file(path: Path) -> None:
    """Raise ``InputError`` unless there is such a file, which can be read and read again."""
    if path.is_dir():
        raise InputError(f"'{path}' is a folder, not a file", hint=f"name a file in it, or '{path}/*'", path=path)
    if not path.exists():
        siblings = sorted(f.name for f in path.parent.iterdir()) if path.parent.is_dir() else []
        hint = (
            f"in that folder: {nearest(path.name, siblings)}" if siblings else f"no folder '{path.parent}' with files"
        )
        raise InputError(f"no such file: '{path}'", hint=hint, path=path)
    if not path.is_file():
        what = f"'{path}' is no regular file, but a pipe, a socket or a device"
        raise InputError(what, hint="write what comes out of it to a file first", path=path)


def _read(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()  # and not cv2.imread, which cannot open non-ASCII names everywhere
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}", hint="check its permissions", path=path) from None


def _from_bytes(data: bytes, name: str, max_pixels: int) -> Stored:
    if is_dicom(data):
        image = read_dicom(data, name, lambda size: _check_size(size, name, max_pixels))
        return Stored(image.values, name, dicom=image)
    if not data:
        raise InputError(f"{name} is empty", hint="copy or download the file again", source=name)
    blocks = list(exif.blocks(data))
    if blocks and blocks[-1][0] != b"end":
        raise InputError(f"{name} is cut off or corrupt", hint="copy or download the file again", source=name)
    size = headers.size(data)
    if size is not None:
        _check_size(size, name, max_pixels)
    try:
        pixels = None if size is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(
            f"cannot decode {name}: {error.err}", hint="make the image smaller, or save it again", source=name
        ) from None
    if pixels is None:
        hint = "JPEG, PNG, WebP, GIF, BMP and TIFF can be read: convert other formats, or save the file again"
        raise InputError(f"{name} is not an image, or it is cut off or corrupt", hint=hint, source=name)
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    lies = exif.orientation(dict(blocks)[b"exif"]) if b"exif" in dict(blocks) else headers.avif_orientation(data)
    return Stored(pixels, name, lies)


def _check_size(size: headers.Size, name: str, max_pixels: int) -> None:
    """Raise ``InputError`` for an image that is too large to be decoded."""
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            f"{name} has {width} × {height} pixels, more than the limit of {max_pixels:,}",
            hint=f"a smaller copy, or --max-pixels {width * height} (in Python max_pixels={width * height})",
            source=name,
            size=size,
            max_pixels=max_pixels,
        )


_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
"""EXIF orientation → transpose, then flip vertically, then horizontally."""


def _turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    transpose, flip_y, flip_x = _TURNS.get(orientation, (0, 0, 0))
    image = image.swapaxes(0, 1) if transpose else image
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _rgb(pixels: NDArray[Any], name: str) -> Photo:
    """Convert (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16, to (H, W, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = _by_rows(pixels, pixels.shape, lambda rows: (rows + 128) // 257)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        what = f"{name} is not a photo: shape {pixels.shape}, {pixels.dtype}"
        hint = "uint8 or 16-bit pixels, (H, W), (H, W, 3) or (H, W, 4); pass a prepared tensor as a .npy file"
        raise InputError(what, hint=hint, shape=pixels.shape, dtype=str(pixels.dtype))
    if pixels.shape[2] == 4 and pixels[:, :, 3].any():  # an alpha of 0 everywhere carries no information
        pixels = _by_rows(pixels, (*pixels.shape[:2], 3), _on_white)
    return np.ascontiguousarray(np.broadcast_to(pixels[:, :, :3], (*pixels.shape[:2], 3)))


def _on_white(rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
    alpha = rows[:, :, 3:]
    return (rows[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255


def _by_rows(
    pixels: NDArray[Any], shape: tuple[int, ...], compute: Callable[[NDArray[np.uint32]], NDArray[np.uint32]]
) -> Photo:
    """Return what is computed in whole numbers of the rows of an image, a few at a time: large images need the room."""
    result = np.empty(shape, np.uint8)
    for start in range(0, len(pixels), ROWS):
        result[start : start + ROWS] = compute(pixels[start : start + ROWS].astype(np.uint32))
    return result


def _from_pil(image: Any, max_pixels: int) -> Stored:
    _check_size(image.size, "the PIL image", max_pixels)
    try:
        image.load()  # Pillow turns a TIFF when it is loaded, and takes the orientation out of its EXIF data
        orientation, mode = image.getexif().get(0x0112, 1), image.mode
        if mode in ("I", "F") or mode.startswith("I;16"):  # deep grey, which convert() would clip at 255
            pixels = np.asarray(image)
        else:
            has_alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the PIL image: {error}", hint="copy or download the file again") from None
    return Stored(pixels, f"the PIL image (mode {mode})", orientation)
