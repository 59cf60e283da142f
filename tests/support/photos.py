"""Photos for tests: drawn, encoded, stored sideways, and prepared with Pillow."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnx_gradcam.photos.preprocess.choice import PRESETS, Preprocess

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
    """Return a photo with no two corners alike, soft enough for JPEG."""
    return np.asarray(Image.fromarray(noise(4, 5)).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Array | Image.Image, kind: str, orientation: int | None = None, **options: Any) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **{**FORMATS.get(kind, {}), **options})
    return buffer.getvalue()


def stored_sideways(upright: Array, orientation: int) -> Array:
    """Return what a camera stores beside ``orientation``: the viewer's turn makes it ``upright`` again."""
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


def by_pillow(image: Array, spec: Preprocess) -> Array:
    """Return torchvision's Resize(shorter) + CenterCrop, or a letterbox, written with Pillow's calls."""
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
PHOTO_SIZES = [(97, 61), (61, 97), (40, 211), (53, 53)]
MODEL_SIZES = [(56, 56), (45, 33), (48, 80)]
