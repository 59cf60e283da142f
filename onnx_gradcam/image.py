"""Files ↔ arrays ↔ tensors, and the way back from the model's input to the photo.

This module, ``overlay`` and ``figure`` are the only ones that use cv2. Coordinates are continuous: pixel i spans
[i, i + 1), its centre is i + 0.5 (the half-pixel convention), and on each axis

    model = photo · scale + offset
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam import exif
from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.opencv import cv2
from onnx_gradcam.preprocess import Preprocess

Photo = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, upright."""
Pair = tuple[float, float]
"""(y, x)"""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".npy")
"""What a folder is searched for."""


# --- files → arrays -----------------------------------------------------------------------------------------


def list_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that ``paths`` name: files, folders (images and .npy files, sorted, not recursive), globs.

    A file that does not exist is passed on: it alone fails, later, and not the whole list. Each comes once.

    Raises:
        InputError: a folder without images, a glob without files, or no paths at all.
    """
    found = [file for path in paths for file in _expand(os.fspath(path))]
    if not found:
        raise InputError("no images given", hint="name a file, a folder or a glob such as 'photos/*.jpg'")
    return list(dict.fromkeys(found))


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES]
    elif path.exists() or not any(c in name for c in "*?["):
        return [path]
    else:  # shells on Windows leave globs to the program
        root = Path(path.anchor)
        found = list(root.glob(str(path.relative_to(root))))
    files = sorted(f for f in found if f.is_file() and not f.name.startswith("."))
    if not files:
        what = f"no images in folder '{name}'" if path.is_dir() else f"no file matches '{name}'"
        raise InputError(what, hint=f"images are files ending in {', '.join(SUFFIXES)}", path=name)
    return files


def decode(source: object) -> Photo:
    """A photo as (H, W, 3) uint8 RGB, upright: the EXIF orientation is applied.

    ``source`` is the path of a JPEG, PNG, WebP or BMP file, its bytes, a PIL image, or a uint8 array:
    (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey. 16 bits become 8 (v / 257, rounded). What is transparent
    is laid on white: the colour that happens to stand under it, often black, does not show.

    Raises:
        InputError: no such file, empty, cut off, corrupt, no image, or an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "getexif") and hasattr(source, "convert"):
        return _from_pil(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), f"{len(bytes(source))} bytes")
    if isinstance(source, str | os.PathLike):
        return _from_bytes(_read(Path(source)), f"'{os.fspath(source)}'")
    kind = type(source).__name__
    raise InputError(
        f"cannot take a {kind} for an image", hint="a path, bytes, a PIL image or a uint8 array", kind=kind
    )


def load_tensor(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in a .npy file; pickled objects are refused.

    Raises:
        InputError: no such file, not a .npy file, cut off, or not an array of numbers.
    """
    path = Path(path)
    _read_check(path)
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        hint = "numpy.save(path, array) writes one"
        raise InputError(f"cannot read '{path}' as a .npy array: {error}", hint=hint, path=path) from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"'{path}' holds {array.dtype}, not numbers", hint="save a numeric array", path=path)
    return np.asarray(array)


def _read_check(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"'{path}' is a folder, not a file", hint=f"name a file in it, or '{path}/*'", path=path)
    if not path.exists():
        siblings = sorted(f.name for f in path.parent.iterdir()) if path.parent.is_dir() else []
        hint = (
            f"in that folder: {nearest(path.name, siblings)}" if siblings else f"no folder '{path.parent}' with files"
        )
        raise InputError(f"no such file: '{path}'", hint=hint, path=path)


def _read(path: Path) -> bytes:
    _read_check(path)
    try:
        return path.read_bytes()  # and not cv2.imread, which cannot open non-ASCII names everywhere
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}", hint="check its permissions", path=path) from None


def _from_bytes(data: bytes, name: str) -> Photo:
    if not data:
        raise InputError(f"{name} is empty", hint="get the file again", source=name)
    blocks = list(exif.blocks(data))
    if blocks and blocks[-1][0] != b"end":
        raise InputError(f"{name} is cut off or corrupt", hint="get the file again, or save it anew", source=name)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(
            f"cannot decode {name}: {error.err}", hint="make it smaller, or save it anew", source=name
        ) from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        hint = "JPEG, PNG, WebP and BMP can be read; convert others, or save it anew if it is one of these"
        raise InputError(f"{name} is not an image, or it is cut off or corrupt", hint=hint, source=name)
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    return _turn(_rgb(pixels, name), exif.orientation(dict(blocks).get(b"exif", b"")))


_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
"""EXIF orientation → transpose, then flip vertically, then horizontally."""


def _turn(image: Photo, orientation: int) -> Photo:
    transpose, flip_y, flip_x = _TURNS.get(orientation, (0, 0, 0))
    image = image.swapaxes(0, 1) if transpose else image
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _rgb(pixels: NDArray[Any], name: str) -> Photo:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16 → (H, W, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        what = f"{name} is no photo: shape {pixels.shape}, {pixels.dtype}"
        hint = "uint8 or 16-bit pixels, (H, W), (H, W, 3) or (H, W, 4); a prepared tensor is passed as .npy"
        raise InputError(what, hint=hint, shape=pixels.shape, dtype=str(pixels.dtype))
    if pixels.shape[2] == 4 and pixels[:, :, 3].any():  # an alpha that is 0 everywhere means nothing
        alpha = pixels[:, :, 3:].astype(np.uint32)
        pixels = ((pixels[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels[:, :, :3], (*pixels.shape[:2], 3)))


def _from_array(array: NDArray[Any]) -> Photo:
    if array.dtype != np.uint8:
        hint = "uint8 RGB (H, W, 3) in 0..255; a prepared tensor goes to explain(), on the command line as .npy"
        raise InputError(f"an image array must be uint8, not {array.dtype}", hint=hint, dtype=str(array.dtype))
    return _rgb(array, "the array")


def _from_pil(image: Any) -> Photo:
    try:
        orientation, mode = image.getexif().get(0x0112, 1), image.mode
        if mode == "I" or mode.startswith("I;16"):  # 16-bit grey, which convert() would clip at 255
            pixels = np.asarray(image).clip(0, 65535).astype(np.uint16)
        elif mode == "F":
            pixels = np.asarray(image)
        else:
            has_alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the PIL image: {error}", hint="get the file again") from None
    return _turn(_rgb(pixels, f"the PIL image (mode {mode})"), orientation)


# --- geometry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Where the photo lies in the model's input: on each axis model = photo · scale + offset.

    Attributes: ``photo`` and ``model``, (H, W) in pixels; ``scale``, (y, x) in model pixels per photo pixel;
    ``offset``, (y, x) in model pixels.
    """

    photo: tuple[int, int]
    model: tuple[int, int]
    scale: Pair
    offset: Pair

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2): the photo's pixels whose centres the model saw, x2 and y2 exclusive."""
        (y1, y2), (x1, x2) = (
            (math.ceil(max(0.0, -o / s) - 0.5), math.ceil(min(float(n), (m - o) / s) - 0.5))
            for n, m, s, o in zip(self.photo, self.model, self.scale, self.offset, strict=True)
        )
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def corners_in_photo(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Boxes x1, y1, x2, y2 (R, 4) in pixels of the model's input, in the photo's."""
        offset, scale = (np.array([v[1], v[0]] * 2) for v in (self.offset, self.scale))
        return np.asarray((boxes - offset) / scale, np.float32)

    def to_model(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What lies over the photo, (H, W), as (h, w) float32 over the model's input: means of areas, 0 beside it."""
        step = (1 / self.scale[0], 1 / self.scale[1])
        return areas(values, self.model, step, (-self.offset[0] * step[0], -self.offset[1] * step[1]))

    def has_peak_beside(self, heatmap: NDArray[Any]) -> bool:
        """Whether a map over the model's input, (h, w), is largest in the padding beside the photo."""
        peak = np.unravel_index(np.abs(heatmap).argmax(), heatmap.shape)
        axes = zip(peak, heatmap.shape, self.model, self.offset, self.photo, self.scale, strict=True)
        return any(not o <= (at + 0.5) * m / n <= o + p * s for at, n, m, o, p, s in axes)

    def to_photo(self, heatmap: NDArray[Any]) -> NDArray[np.float32]:
        """A map over the model's input, (h, w) at any resolution, as (H, W) float32 over the photo.

        Linear, half-pixel, 0 outside ``seen``; border cells keep their value out to the border. A cam may
        come straight from the target layer: one interpolation, not two, and no peak is cut twice.
        """
        x1, y1, x2, y2 = self.seen
        cell = (
            heatmap.shape[0] / self.model[0],
            heatmap.shape[1] / self.model[1],
        )  # map cells per model pixel
        step = (self.scale[0] * cell[0], self.scale[1] * cell[1])
        start = (y1 * step[0] + self.offset[0] * cell[0], x1 * step[1] + self.offset[1] * cell[1])
        photo = np.zeros(self.photo, np.float32)
        values = _resample(heatmap, (y2 - y1, x2 - x1), step, start, "linear")
        photo[y1:y2, x1:x2] = values.clip(heatmap.min(), heatmap.max())  # rounding must not leave the map's range
        return photo


def _place(photo: tuple[int, int], spec: Preprocess) -> Geometry:
    """The photo is resized to whole pixels and centred on the model's input; what sticks out is cropped."""
    if spec.size is None:
        resized = _fill(photo, (spec.shorter, spec.shorter)) if spec.shorter else photo
        model = resized
    else:
        model = spec.size
        resized = _RESIZED[spec.resize](photo, model, spec.shorter)
    offset = [-round((r - m) / 2) if r >= m else (m - r) // 2 for r, m in zip(resized, model, strict=True)]
    scale = (resized[0] / photo[0], resized[1] / photo[1])
    return Geometry(photo, model, scale, (float(offset[0]), float(offset[1])))


def _fill(photo: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The smallest copy of ``photo`` that covers ``target``, the longer side rounded down (torchvision)."""
    (h, w), (height, width) = photo, target
    if height * w >= width * h:
        return height, max(width, w * height // h)
    return max(height, h * width // w), width


def _stretch(model: tuple[int, int], shorter: int | None) -> tuple[int, int]:
    factor = shorter / min(model) if shorter else 1.0
    return round(model[0] * factor), round(model[1] * factor)


def _fit(photo: tuple[int, int], model: tuple[int, int]) -> tuple[int, int]:
    factor = min(model[0] / photo[0], model[1] / photo[1])
    return max(1, round(photo[0] * factor)), max(1, round(photo[1] * factor))


_Size = tuple[int, int]
_RESIZED: dict[str, Callable[[_Size, _Size, int | None], _Size]] = {
    "crop": lambda photo, model, shorter: _fill(photo, (shorter, shorter) if shorter else model),
    "stretch": lambda photo, model, shorter: _stretch(model, shorter),
    "letterbox": lambda photo, model, shorter: _fit(photo, model),
}
"""(photo, model, shorter) → the photo's size after resizing, before it is laid on the model's input."""


# --- photo → tensor -----------------------------------------------------------------------------------------


def preprocess(image: Photo, spec: Preprocess) -> tuple[NDArray[Any], Geometry]:
    """``image`` (H, W, 3) uint8 RGB as (1, C, H, W) or (1, H, W, C) in ``spec.dtype``, and its geometry.

    value = (pixel · scale − mean) / std. Resized pixels are rounded to 0..255, as Pillow and OpenCV do.
    """
    geometry = _place((image.shape[0], image.shape[1]), spec)
    pixels = _channels(_lay(image, geometry, spec), spec.channels)
    values = (pixels * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        values = np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    tensor = values if spec.layout == "NHWC" else values.transpose(2, 0, 1)
    return np.ascontiguousarray(tensor[None], dtype), geometry


def _lay(image: Photo, geometry: Geometry, spec: Preprocess) -> Photo:
    """The photo on the model's input, (H, W, 3) uint8: only the part that lands there is ever computed."""
    windows = []
    for n, m, scale, offset in zip(geometry.photo, geometry.model, geometry.scale, geometry.offset, strict=True):
        windows.append((max(0, int(offset)), min(m, int(offset) + round(n * scale))))
    (y1, y2), (x1, x2) = windows
    step = (1 / geometry.scale[0], 1 / geometry.scale[1])
    start = ((y1 - geometry.offset[0]) * step[0], (x1 - geometry.offset[1]) * step[1])
    laid = np.full((*geometry.model, 3), round(spec.pad), np.uint8)
    pixels = _resample(image, (y2 - y1, x2 - x1), step, start, spec.interpolation)
    laid[y1:y2, x1:x2] = np.rint(pixels).clip(0, 255)
    return laid


def _channels(pixels: Photo, channels: str) -> NDArray[np.uint8]:
    if channels == "L":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None]
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([pixels, opaque], axis=2)[:, :, ["RGBA".index(c) for c in channels]]


# --- resampling ---------------------------------------------------------------------------------------------


def _cubic(d: NDArray[Any], width: float) -> NDArray[Any]:
    """Keys 1981, a = −1/2."""
    x = abs(d) / width
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


_FILTERS: dict[str, tuple[Callable[[NDArray[Any], float], NDArray[Any]], bool]] = {
    "linear": (lambda d, width: np.maximum(0, 1 - abs(d) / width), True),
    "linear-aliased": (lambda d, width: np.maximum(0, 1 - abs(d)), False),
    "cubic": (_cubic, True),
    "lanczos": (lambda d, width: np.sinc(d / width) * np.sinc(d / (3 * width)) * (abs(d) < 3 * width), True),
    "area": (lambda d, width: np.clip((width + 1) / 2 - abs(d), 0, 1), True),
    "nearest": (lambda d, width: (d > -0.5) & (d <= 0.5), False),
}
"""Name → kernel of the distance in pixels, whether it widens when it shrinks (else fine detail aliases)."""


def _resample(
    array: NDArray[Any], shape: tuple[int, int], step: Pair, start: Pair, interpolation: str
) -> NDArray[np.float32]:
    """(h, w, ...) → (H, W, ...): output pixel i is centred on (i + ½) · step + start, axis by axis."""
    rows = _resample_rows(array, shape[0], step[0], start[0], interpolation)
    turned = np.ascontiguousarray(rows.swapaxes(0, 1))
    return _resample_rows(turned, shape[1], step[1], start[1], interpolation).swapaxes(0, 1)


def areas(values: NDArray[Any], shape: tuple[int, int], step: Pair, start: Pair = (0.0, 0.0)) -> NDArray[np.float32]:
    """(h, w) → (H, W) float32: pixel i is the mean from start + i · step to start + (i + 1) · step, of 0 outside."""
    rows, columns = (
        np.stack([covered(a + i * d, a + (i + 1) * d, n) / d for i in range(m)]).astype(np.float32)
        for n, m, d, a in zip(values.shape, shape, step, start, strict=True)
    )
    found: NDArray[np.float32] = rows @ values.astype(np.float32) @ columns.T
    return found


def covered(start: float, end: float, count: int) -> NDArray[np.float64]:
    """(count,): the share of each of ``count`` pixels in a row that lies between ``start`` and ``end``."""
    edges = np.arange(count + 1)
    found: NDArray[np.float64] = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    return found


def _resample_rows(
    array: NDArray[Any], count: int, step: float, start: float, interpolation: str
) -> NDArray[np.float32]:
    """out_i = Σ_j k(j + ½ − c_i, w) · array_j / Σ_j k(…), c_i = (i + ½) · step + start, w = max(1, step)."""
    kernel, widens = _FILTERS[interpolation]
    width = max(1.0, step) if widens else 1.0
    centre = np.round((np.arange(count) + 0.5) * step + start, 9)  # rounding errors must not decide ties
    weights = kernel(np.arange(len(array)) + 0.5 - centre[:, None], width)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    out = np.empty((count, *array.shape[1:]), np.float32)
    for i in range(0, count, 16):  # the weights are a narrow band: some rows at a time skip most of the zeros
        used = np.flatnonzero(weights[i : i + 16].any(axis=0))
        band = slice(int(used[0]), int(used[-1]) + 1)
        out[i : i + 16] = np.tensordot(weights[i : i + 16, band], array[band], 1)
    return out
