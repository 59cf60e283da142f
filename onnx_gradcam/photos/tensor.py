"""From a photo to the tensor that a model reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.decode import DeepPhoto, Photo
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.photos.preprocess.presets import Preprocess, Size
from onnx_gradcam.photos.resample import resample


def to_tensor(image: Photo | DeepPhoto, spec: Preprocess) -> tuple[NDArray[Any], Geometry]:
    """Return a photo as the tensor that the model reads, and where the photo lies in it.

    value = (pixel · scale − mean) / std. Resized pixels are rounded to 0..255, as in Pillow and OpenCV; those of a
    photo through a window are not.

    Args:
        image: (H, W, 3) RGB, uint8, or float32 from 0 to 255.
        spec: the preprocessing.

    Returns:
        (1, C, h, w) or (1, h, w, C) of ``spec.dtype``, and the geometry.
    """
    geometry = _find_geometry((image.shape[0], image.shape[1]), spec)
    planes = _select_channels(_draw(image, geometry, spec), spec.channels)
    values = _normalise(planes, spec) if planes.dtype != np.uint8 else _look_up(planes, spec)
    tensor = np.moveaxis(values, 0, -1) if spec.layout == "NHWC" else values
    return np.ascontiguousarray(tensor[None]), geometry


def _normalise(planes: NDArray[Any], spec: Preprocess) -> NDArray[Any]:
    """Return the values of pixels, (C, h, w) of ``spec.dtype``."""
    mean, std = (np.array(of_channels)[:, None, None] for of_channels in (spec.mean, spec.std))
    values = (planes * spec.scale - mean) / std
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        values = np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.asarray(values, dtype)


def _look_up(planes: NDArray[np.uint8], spec: Preprocess) -> NDArray[Any]:
    """Return the same of pixels of 8 bits, from a table of the values of all 256: several times faster."""
    levels = np.broadcast_to(np.arange(256)[:, None], (len(planes), 256, 1))
    table = _normalise(levels, spec)[:, :, 0]
    return np.stack([of_channel[plane] for of_channel, plane in zip(table, planes, strict=True)])


def _draw(image: Photo | DeepPhoto, geometry: Geometry, spec: Preprocess) -> NDArray[Any]:
    """Return the photo on the model's input, (h, w, 3) of its dtype; only the part that lands there is computed."""
    windows = []
    for n, m, scale, offset in zip(geometry.photo, geometry.model, geometry.scale, geometry.offset, strict=True):
        windows.append((max(0, int(offset)), min(m, int(offset) + round(n * scale))))
    (y1, y2), (x1, x2) = windows
    step = (1 / geometry.scale[0], 1 / geometry.scale[1])
    start = ((y1 - geometry.offset[0]) * step[0], (x1 - geometry.offset[1]) * step[1])
    canvas = np.moveaxis(np.full((3, *geometry.model), round(spec.pad), image.dtype), 0, -1)
    pixels = resample(image, (y2 - y1, x2 - x1), step, start, spec.interpolation)
    canvas[y1:y2, x1:x2] = (pixels if image.dtype.kind == "f" else np.rint(pixels)).clip(0, 255)
    return canvas


def _select_channels(pixels: NDArray[Any], channels: str) -> NDArray[Any]:
    """Return the channels of pixels (h, w, 3), (C, h, w)."""
    if channels == "L":
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY))[None]
    opaque = np.full(pixels.shape[:2], 255, pixels.dtype)
    return np.stack([opaque if channel == "A" else pixels[:, :, "RGB".index(channel)] for channel in channels])


def _find_geometry(photo: tuple[int, int], spec: Preprocess) -> Geometry:
    """Return the geometry of a photo (H, W) that is resized to whole pixels, placed on the model's input, cropped."""
    if spec.size is None:
        resized, model = _own_sizes(photo, spec)
    else:
        model = _in_proportion(photo, spec.size)
        resized = _RESIZED[spec.resize](photo, model, spec.shorter)
    if spec.resize == "letterbox-corner":
        offset = [0, 0]
    else:
        offset = [-round((r - m) / 2) if r >= m else (m - r) // 2 for r, m in zip(resized, model, strict=True)]
    scale = (resized[0] / photo[0], resized[1] / photo[1])
    return Geometry(photo, model, scale, (float(offset[0]), float(offset[1])))


def _own_sizes(photo: tuple[int, int], spec: Preprocess) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of a photo after ``shorter`` or ``longest``, and that of the model's input in whole multiples."""
    resized = _fill(photo, (spec.shorter, spec.shorter)) if spec.shorter else photo
    if spec.longest is not None and max(resized) > spec.longest:
        resized = _fit(resized, (spec.longest, spec.longest))
    is_padded = spec.resize.startswith("letterbox")
    counts = [-(-side // spec.multiple) if is_padded else max(1, round(side / spec.multiple)) for side in resized]
    model = (counts[0] * spec.multiple, counts[1] * spec.multiple)
    return (resized if is_padded else model), model


def _in_proportion(photo: tuple[int, int], size: Size) -> tuple[int, int]:
    """Return the size (H, W) of the model's input, an open side in the proportion of the photo."""
    height, width = size
    if height is None or width is None:
        factor = (height or 0) / photo[0] + (width or 0) / photo[1]
        return height or max(1, round(photo[0] * factor)), width or max(1, round(photo[1] * factor))
    return height, width


def _fill(photo: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the smallest copy of ``photo`` that fills ``box``; the longer side is rounded down, as in
    torchvision."""
    (h, w), (height, width) = photo, box
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
    "letterbox-corner": lambda photo, model, shorter: _fit(photo, model),
}
"""Resize mode → a function (photo, model, shorter) of the photo's size after resizing, before cropping and padding."""
