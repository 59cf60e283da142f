"""Draws seeded scenes of coloured, textured shapes with known masks: the ground truth of localisation tests.

A scene is a busy background with zero or more objects painted over it, one mask for each. Colour and texture
are drawn independently of the class, so only the outline tells what an object is. Edges are hard: a pixel
belongs to an object or to the background, never to both. Lengths are fractions of sqrt(H·W), so that a scene
looks alike at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]
Size = tuple[int, int]

MAX_RADIUS = 0.21  # of two objects: a disc of this radius covers 13.9 % of the scene, so none covers 15 %
MIN_CONTRAST = 110.0  # Euclidean distance in RGB between an object's colours and what lies behind it
GAP = 0.03  # between two objects
MAX_TRIES = 1000


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    ``image`` is uint8 (H, W, 3) RGB; ``masks`` is bool (n, H, W), the pixels of each object; ``labels`` holds
    the class index of each, into ``CLASSES``. Masks never overlap.
    """

    image: Image
    masks: Mask
    labels: tuple[int, ...]


# Outlines: closed contours in the unit circle, each without holes so that a point near its middle is on it.


def _polar(radii: Sequence[float]) -> Array:
    """The closed polygon with these radii at equal angles."""
    angle = np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1)


def _cross(half_width: float = 0.4) -> Array:
    a, b = half_width, math.sqrt(1 - half_width**2)
    quarter = np.array([[a, a], [a, b], [-a, b]])
    turns = [np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) for t in np.arange(4) * math.pi / 2]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _heart() -> Array:
    t = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    points = np.stack([16 * np.sin(t) ** 3, y + 2.6], axis=1)
    return np.asarray(points / np.linalg.norm(points, axis=1).max())


def _drop(radius: float = 0.55) -> Array:
    """A disc that touches the unit circle on the left, with its two tangents from (1, 0)."""
    touch = math.acos(radius / (2 - radius))
    angle = np.linspace(touch, 2 * math.pi - touch, 64)
    disc = np.stack([radius * np.cos(angle) + radius - 1, radius * np.sin(angle)], axis=1)
    return np.concatenate([disc, [[1.0, 0.0]]])


def _arrow() -> Array:
    """A head of 90 degrees on a shaft."""
    half = np.array([[1.0, 0.0], [0.1, 0.9], [0.1, 0.36], [-0.9, 0.36]])
    return np.concatenate([half, half[:0:-1] * [1, -1]])


OUTLINES: dict[str, Array] = {
    "circle": _polar([1.0] * 64),
    "square": _polar([1.0] * 4),
    "triangle": _polar([1.0] * 3),
    "star": _polar([1.0, 0.46] * 5),
    "cross": _cross(),
    "heart": _heart(),
    "drop": _drop(),
    "arrow": _arrow(),
}
CLASSES = tuple(OUTLINES)


def rasterise(label: int, size: Size, centre: tuple[float, float], radius: float, angle: float) -> Mask:
    """The pixels, bool (H, W), whose centre lies inside the outline.

    ``centre`` is (x, y) in pixels, (0, 0) the upper left corner of the image; ``radius`` in pixels; ``angle``
    in radians, clockwise on the screen. Along each row, every crossing of the outline toggles what follows.
    """
    height, width = size
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    row_centres = np.arange(height)[:, None] + 0.5
    toggles = np.zeros((height, width + 1), np.int64)
    start = OUTLINES[CLASSES[label]] @ turn.T * radius + centre
    stop = np.roll(start, -1, axis=0)
    row, edge = np.nonzero((start[:, 1] > row_centres) != (stop[:, 1] > row_centres))
    (x, y), (dx, dy) = start[edge].T, (stop - start)[edge].T
    crossing = x + (row_centres[row, 0] - y) / dy * dx
    np.add.at(toggles, (row, np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)), 1)
    return np.asarray(toggles[:, :-1].cumsum(axis=1) % 2 == 1)


# Patterns: float32 (H, W) in [0, 1], the blend of two colours.


def _grid(rng: np.random.Generator, size: Size) -> tuple[Field, Field]:
    """Coordinates along and across a random direction, in units of sqrt(H * W), with a random origin."""
    height, width = size
    unit = math.sqrt(height * width)
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(unit)
    angle = rng.uniform(0, 2 * math.pi)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u0, v0 = rng.uniform(0, 1, 2).astype(np.float32)
    return c * x + s * y + u0, c * y - s * x + v0


def _flat(rng: np.random.Generator, size: Size) -> Field:
    return np.full(size, rng.uniform(), np.float32)


def _gradient(rng: np.random.Generator, size: Size) -> Field:
    u, _ = _grid(rng, size)
    return np.asarray((u - u.min()) / (u.max() - u.min()), np.float32)


def _stripes(rng: np.random.Generator, size: Size) -> Field:
    u, _ = _grid(rng, size)
    return np.asarray(np.mod(u / rng.uniform(0.05, 0.16), 1) < rng.uniform(0.35, 0.65), np.float32)


def _waves(rng: np.random.Generator, size: Size) -> Field:
    u, v = _grid(rng, size)
    period, bend = rng.uniform(0.06, 0.2), rng.uniform(0.02, 0.06)
    wave = np.sin((u + bend * np.sin(v * (2 * math.pi / 0.3))) * (2 * math.pi / period))
    return np.asarray(0.5 + 0.5 * wave, np.float32)


def _checks(rng: np.random.Generator, size: Size) -> Field:
    u, v = _grid(rng, size)
    cell = rng.uniform(0.04, 0.12)
    return np.asarray(np.mod(np.floor(u / cell) + np.floor(v / cell), 2), np.float32)


def _noise(rng: np.random.Generator, size: Size) -> Field:
    height, width = size
    cell = rng.uniform(0.012, 0.1) * math.sqrt(height * width)
    coarse = rng.uniform(0, 1, (math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)


PATTERNS: tuple[Callable[[np.random.Generator, Size], Field], ...] = (
    _flat, _gradient, _stripes, _waves, _checks, _noise,
)  # fmt: skip


def paint(rng: np.random.Generator, size: Size, first: Field, second: Field) -> Field:
    """A random pattern in two colours, float32 (H, W, 3) in 0..255."""
    blend = PATTERNS[rng.integers(len(PATTERNS))](rng, size)[..., None]
    return first + (second - first) * blend


def _colour(rng: np.random.Generator, near: Field | None = None, spread: float = 128.0) -> Field:
    """A random colour in 0..255, or one at most ``spread`` per channel away from ``near``."""
    if near is None:
        return rng.uniform(0, 255, 3).astype(np.float32)
    return np.clip(near + rng.uniform(-spread, spread, 3), 0, 255).astype(np.float32)


def contrasting(rng: np.random.Generator, behind: Field) -> tuple[Field, Field]:
    """Two similar colours, each at least ``MIN_CONTRAST`` away from ``behind``."""
    while True:
        first = _colour(rng)
        second = _colour(rng, first, 60.0)
        if min(np.linalg.norm(first - behind), np.linalg.norm(second - behind)) >= MIN_CONTRAST:
            return first, second


def _strokes(rng: np.random.Generator, image: Field, base: Field) -> None:
    """Clutter: thin open curves in colours near the background's, drawn into ``image``."""
    height, width = image.shape[:2]
    unit = math.sqrt(height * width)
    for _ in range(rng.integers(0, 12)):
        steps = rng.normal(0, 0.09, (rng.integers(2, 6), 2)).cumsum(axis=0) * unit
        points = np.round(steps + rng.uniform(0, 1, 2) * [width, height]).astype(np.int32)
        thickness = max(1, round(rng.uniform(0.008, 0.022) * unit))
        cv2.polylines(image, [points], False, _colour(rng, base, 100.0).tolist(), thickness)


def draw_background(rng: np.random.Generator, size: Size) -> Image:
    """A busy background without objects: a pattern, clutter strokes and grain. uint8 (H, W, 3) RGB."""
    base = _colour(rng)
    image = np.ascontiguousarray(paint(rng, size, base, _colour(rng, base, 60.0)))
    _strokes(rng, image, base)
    grain = _noise(rng, size)[..., None] - 0.5
    return np.clip(image + grain * rng.uniform(0, 60), 0, 255).astype(np.uint8)


# Scenes.


def _central(size: Size) -> tuple[slice, slice]:
    """The one, two or four pixels around the centre point."""
    height, width = size
    return slice((height - 1) // 2, height // 2 + 1), slice((width - 1) // 2, width // 2 + 1)


def place(rng: np.random.Generator, label: int, forbidden: Mask, radius: tuple[float, float]) -> Mask:
    """An object at a random place, angle and size, inside the image and off the ``forbidden`` pixels."""
    size = height, width = forbidden.shape[0], forbidden.shape[1]
    for _ in range(MAX_TRIES):
        r = rng.uniform(*radius) * math.sqrt(height * width)
        if 2 * r > min(height, width):
            continue
        centre = rng.uniform(r, width - r), rng.uniform(r, height - r)
        mask = rasterise(label, size, centre, r, rng.uniform(0, 2 * math.pi))
        if not (mask & forbidden).any():
            return mask
    raise ValueError(f"no room for a {CLASSES[label]} of radius {radius} in a scene of {height}x{width}")


def draw_scene(
    rng: np.random.Generator,
    labels: Sequence[int],
    size: Size = (96, 96),
    radius: tuple[float, float] = (0.14, MAX_RADIUS),
    *,
    centre_free: bool = False,
    background: Image | None = None,
) -> Scene:
    """One object for each of ``labels``, wholly inside the image, apart from each other, on ``background``.

    Args:
        rng: the only source of randomness: the same state gives the same pixels.
        labels: class indices into ``CLASSES``; none draws an empty scene.
        size: (H, W).
        radius: smallest and largest radius of the circle around an object, in units of sqrt(H * W).
        centre_free: leaves the pixels around the centre point uncovered.
        background: uint8 (H, W, 3) RGB to paint on; drawn when None.

    Raises:
        ValueError: the objects do not fit.
    """
    canvas = draw_background(rng, size) if background is None else background.copy()
    gap = 2 * round(GAP * math.sqrt(size[0] * size[1])) + 1
    forbidden = np.zeros(size, bool)
    if centre_free:
        forbidden[_central(size)] = True
    masks = np.zeros((len(labels), *size), bool)
    for mask, label in zip(masks, labels, strict=True):
        mask[:] = place(rng, label, forbidden, radius)
        behind = canvas[mask].mean(axis=0, dtype=np.float32)
        texture = paint(rng, size, *contrasting(rng, behind))
        canvas[mask] = texture[mask].astype(np.uint8)
        forbidden |= cv2.dilate(mask.astype(np.uint8), np.ones((gap, gap), np.uint8)).astype(bool)
    return Scene(canvas, masks, tuple(int(label) for label in labels))


def single_object(rng: np.random.Generator, size: Size = (96, 96), radius: tuple[float, float] = (0.12, 0.38)) -> Scene:
    """A scene with one object of a random class, at any place."""
    return draw_scene(rng, [int(rng.integers(len(CLASSES)))], size, radius)


def two_objects(rng: np.random.Generator, size: Size = (96, 96)) -> Scene:
    """A scene with two objects of different classes, each on at most 15 % of it, neither at its centre."""
    labels = rng.choice(len(CLASSES), 2, replace=False)
    return draw_scene(rng, labels.tolist(), size, centre_free=True)
