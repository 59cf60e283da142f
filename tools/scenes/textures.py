"""Colours and textures: uint8 (H, W, 3) RGB."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]

HUES: Mapping[str, float] = {"red": 0.0, "yellow": 0.15, "green": 0.34, "cyan": 0.5, "blue": 0.64, "purple": 0.81}
COLOURS = tuple(HUES)
HUE_JITTER = 0.025
PERIOD = (0.055, 0.085)  # of a texture, in units of sqrt(H * W)


def _striped(u: Field, v: Field) -> Mask:
    return np.asarray(u % 1 < 0.5)


def _checked(u: Field, v: Field) -> Mask:
    return np.asarray((u % 1 < 0.5) ^ (v % 1 < 0.5))


def _dotted(u: Field, v: Field) -> Mask:
    return np.asarray((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.11)


PATTERNS: Mapping[str, Callable[[Field, Field], Mask]] = {"striped": _striped, "checked": _checked, "dotted": _dotted}
TEXTURES = tuple(PATTERNS)


def textured(rng: np.random.Generator, texture: str, colour: str, size: tuple[int, int], period: float) -> Image:
    """Return a texture in a colour of that name and a much lighter or darker shade of it, at a random angle.

    Args:
        rng: the source of randomness.
        texture: one of ``TEXTURES``.
        colour: one of ``COLOURS``.
        size: (H, W).
        period: the distance of two stripes or dots, in pixels.
    """
    height, width = size
    angle = rng.uniform(0, 2 * math.pi)
    c, s = np.float32(math.cos(angle) / period), np.float32(math.sin(angle) / period)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    u0, v0 = rng.uniform(0, 1, 2).astype(np.float32)
    pattern = PATTERNS[texture](c * x + s * y + u0, c * y - s * x + v0)
    return np.stack(shades(rng, colour))[pattern.view(np.uint8)]


def shades(rng: np.random.Generator, colour: str) -> tuple[Image, Image]:
    """Return a colour of that name and a much lighter or darker shade of it, in random order, uint8 (3,) each."""
    hue = HUES[colour] + rng.uniform(-HUE_JITTER, HUE_JITTER)
    full = _rgb(hue, rng.uniform(0.7, 1), rng.uniform(0.75, 1))
    light = rng.uniform() < 0.5
    other = _rgb(hue, rng.uniform(0.1, 0.3), 1) if light else _rgb(hue, rng.uniform(0.7, 1), rng.uniform(0.15, 0.35))
    return (full, other) if rng.uniform() < 0.5 else (other, full)


def _rgb(hue: float, saturation: float, value: float) -> Image:
    return np.array([round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value)], np.uint8)
