"""How far the input of a model may be changed so that it still is a photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.attack.steps import Room
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.preprocess.choice import InputSpec, Preprocess
from onnx_gradcam.photos.preprocess.presets import LAYOUTS
from onnx_gradcam.photos.window import WHITE

Array = npt.NDArray[Any]
OVERSHOOT = 25
"""By how many grey levels a photo that is resized without rounding may leave the pixels."""


def room_of_photos(spec: Preprocess, geometries: Sequence[Geometry] = ()) -> Room:
    """Return how far photos may be changed: each pixel from 0 to 255, and none of the padding.

    Args:
        spec: how a photo becomes the input.
        geometries: for each image where its photo lies in the input; none: it fills the input.
    """
    mean, std = np.array(spec.mean), np.array(spec.std)
    black, white = -mean / std, (WHITE * spec.scale - mean) / std
    low, high = (_along_channels(end, spec.layout) for end in (np.minimum(black, white), np.maximum(black, white)))
    unit = _along_channels((white - black) / WHITE, spec.layout)
    free = np.ones((1, 1, 1, 1), bool)
    if geometries:
        channels = LAYOUTS[spec.layout][0]
        free = np.expand_dims(np.stack([~geometry.padding for geometry in geometries]), channels)
    if spec.channels.endswith("A"):
        free = free & _along_channels(np.array([c != "A" for c in spec.channels]), spec.layout)
    return Room(unit, low, high, free)


def room_of_numbers(bounds: tuple[float, float] | None, ndim: int) -> Room:
    """Return how far numbers that are no pixels may be changed: within bounds, or by any amount."""
    low, high = bounds or (-np.inf, np.inf)
    shape = (1,) * ndim
    return Room(np.ones(shape), np.full(shape, float(low)), np.full(shape, float(high)), np.ones(shape, bool))


def pictures_of(x: Array, spec: Preprocess) -> Array:
    """Return inputs as pictures of what the model sees, (N, H, W, 3) uint8 RGB."""
    channels, *_ = LAYOUTS[spec.layout]
    values = np.moveaxis(x, channels, -1).astype(np.float64)
    levels = np.rint((values * np.array(spec.std) + np.array(spec.mean)) / spec.scale).clip(0, WHITE).astype(np.uint8)
    if spec.channels == "L":
        return np.repeat(levels, 3, axis=-1)
    return np.asarray(levels[..., [spec.channels.index(c) for c in "RGB"]])


def check_inside(x: Array, room: Room, spec: InputSpec) -> None:
    """Raise ``InputError`` where images lie outside of what the input may hold: they were prepared in another way."""
    slack = OVERSHOOT * np.abs(room.unit)
    outside = (x < room.low - slack) | (x > room.high + slack)
    if outside.any():
        raise InputError(
            f"{outside.mean():.1%} of the values of input {spec.name!r} are no pixels from 0 to 255 under its "
            "preprocessing",
            where=f"values from {x.min():.4g} to {x.max():.4g}, pixels from {room.low.min():.4g} to "
            f"{room.high.max():.4g}",
            hint="the preprocessing that made them, or preprocess=None: epsilon is in the numbers of the input then",
            name=spec.name,
        )


def _along_channels(values: Array, layout: str) -> Array:
    """Return one value for each channel in a form that broadcasts with the input."""
    shape = [1, 1, 1, 1]
    shape[LAYOUTS[layout][0]] = len(values)
    return values.reshape(shape)
