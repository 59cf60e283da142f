"""Draws seeded scenes of a figure that carries a sign and wears a cap: data in which a cue may go with the class.

The class is the sign alone: a star or a cross. The cap is yellow or blue; how often its colour goes with the sign is an
argument, as in pictures of doctors and nurses the hair may go with the profession. Every pixel belongs to one of four
regions, so that the evidence of a map can be shared out among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from shapes import CLASSES as OUTLINED
from shapes import Image, Mask, Size, contrasting, draw_background, paint, rasterise

SIGNS = ("star", "cross")
CAPS = ("yellow", "blue")
REGIONS = ("cap", "sign", "figure", "ground")
CAP_COLOURS = np.array([[235, 195, 35], [35, 85, 215]], np.float32)
COLOUR_SPREAD = 25.0
GOES_WITH = 0.95
"""How often the cap goes with the sign in the training scenes of the biased model."""
EVEN = 0.5
SIDE = 96

Points = NDArray[np.float64]

# The figure in units of its height, upright, facing right: x to the right, y down, the waist at (0, 0).
BODY = np.array([[-0.2, -0.12], [0.2, -0.12], [0.25, 0.5], [-0.25, 0.5]])
ARM = np.array([[0.12, -0.1], [0.2, -0.1], [0.52, 0.26], [0.46, 0.32], [0.12, 0.05]])
POLE = np.array([[0.47, 0.1], [0.51, 0.1], [0.51, 0.52], [0.47, 0.52]])
HEAD, HEAD_RADIUS = np.array([0.0, -0.24]), 0.13
CAP = np.array([[-0.2, -0.28], [0.2, -0.28], [0.2, -0.33], [0.13, -0.33], [0.1, -0.5], [-0.1, -0.5], [-0.13, -0.33],
                [-0.2, -0.33]])  # fmt: skip
SIGN, SIGN_RADIUS = np.array([0.5, 0.0]), 0.2


@dataclass(frozen=True)
class Worker:
    """A scene with one figure.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        regions: int (H, W), an index into ``REGIONS`` for each pixel.
        sign: the class, an index into ``SIGNS``.
        cap: an index into ``CAPS``.
    """

    image: Image
    regions: NDArray[np.uint8]
    sign: int
    cap: int

    @property
    def group(self) -> str:
        """Return the group of the scene: the colour of the cap."""
        return CAPS[self.cap]

    def mask(self, region: str) -> Mask:
        """Return the pixels of a region, bool (H, W)."""
        return np.asarray(self.regions == REGIONS.index(region))


def draw_worker(rng: np.random.Generator, sign: int, cap: int, size: Size = (SIDE, SIDE)) -> Worker:
    """Return a figure at a random place, size and tilt, mirrored or not, on a busy background.

    Args:
        rng: the only source of randomness.
        sign: the class, an index into ``SIGNS``.
        cap: an index into ``CAPS``.
        size: (H, W).
    """
    height, width = size
    unit = rng.uniform(0.66, 0.84) * min(size)
    tilt, mirrored = rng.uniform(-0.2, 0.2), rng.integers(2) * 2 - 1
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    corners = np.concatenate([BODY, ARM, CAP, POLE, [SIGN + SIGN_RADIUS, SIGN - SIGN_RADIUS]])
    placed = corners * [mirrored, 1] @ turn.T * unit
    low, high = -placed.min(axis=0), [width, height] - placed.max(axis=0)
    origin = rng.uniform(np.minimum(low, high), np.maximum(low, high))

    def place(points: Points) -> Points:
        return np.asarray(points * [mirrored, 1] @ turn.T * unit + origin)

    canvas, regions = draw_background(rng, size), np.full(size, REGIONS.index("ground"), np.uint8)
    angle = np.arange(32) * math.tau / 32
    head = HEAD + HEAD_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for outline in (BODY, ARM, head, POLE):
        mask = _filled(place(outline), size)
        canvas[mask] = _texture(rng, canvas, mask)[mask]
        regions[mask] = REGIONS.index("figure")
    cap_mask = _filled(place(CAP), size)
    colour = CAP_COLOURS[cap] + rng.uniform(-COLOUR_SPREAD, COLOUR_SPREAD, 3)
    canvas[cap_mask] = np.clip(colour, 0, 255).astype(np.uint8)
    regions[cap_mask] = REGIONS.index("cap")
    x, y = place(SIGN[None])[0]
    outline_index = OUTLINED.index(SIGNS[sign])
    sign_mask = rasterise(outline_index, size, (x, y), SIGN_RADIUS * unit, rng.uniform(0, math.tau))
    canvas[sign_mask] = contrasting(rng, canvas[sign_mask].mean(axis=0, dtype=np.float32))[0].astype(np.uint8)
    regions[sign_mask] = REGIONS.index("sign")
    return Worker(canvas, regions, sign, cap)


def workers(seed: int, count: int, goes_with: float) -> Iterator[Worker]:
    """Yield scenes, as many of each sign; the cap goes with the sign in this share of them, at random otherwise not."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        sign = number % len(SIGNS)
        yield draw_worker(rng, sign, sign if rng.uniform() < goes_with else 1 - sign)


def _filled(outline: Points, size: Size) -> Mask:
    """Return the pixels of a polygon in pixels, bool (H, W)."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16 - 8).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def _texture(rng: np.random.Generator, canvas: Image, mask: Mask) -> Image:
    """Return a random pattern whose colours stand out from what lies behind a mask, uint8 (H, W, 3)."""
    behind = canvas[mask].mean(axis=0, dtype=np.float32)
    size = canvas.shape[0], canvas.shape[1]
    return paint(rng, size, *contrasting(rng, behind)).astype(np.uint8)
