"""Scenes: a cluttered background, objects on it, and where each of them lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import shapes
from numpy.typing import NDArray

from scenes.outlines import OUTLINES, irregular, known
from scenes.textures import COLOURS, PERIOD, TEXTURES, Image, Mask, shades, textured

Size = tuple[int, int]
Array = NDArray[np.float64]

SIZE = (128, 128)
GAP = 0.03  # between two objects, in units of sqrt(H * W), as all lengths
ONE, TWO = (0.16, 0.34), (0.16, 0.23)  # the radius of an object: of one, of each of two
TRIES = 200  # to place the objects of a scene
SPREAD = 70.0  # of a background's colours around their mean, in each channel
SHIFT = 4  # contours are handed to cv2 in sixteenths of a pixel


@dataclass(frozen=True)
class Item:
    """What an object is: words of ``OUTLINES``, ``TEXTURES`` and ``COLOURS``."""

    outline: str
    texture: str
    colour: str

    @property
    def name(self) -> str:
        """Return the name of its class."""
        return f"{self.texture} {self.outline}"

    @property
    def label(self) -> int:
        """Return the index of its class in ``CLASSES``."""
        return OUTLINES.index(self.outline) * len(TEXTURES) + TEXTURES.index(self.texture)


CLASSES = tuple(Item(outline, texture, "").name for outline in OUTLINES for texture in TEXTURES)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and what is in it.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        masks: bool (n, H, W), the pixels of each object; masks never overlap.
        items: what each object is.
    """

    image: Image
    masks: Mask
    items: tuple[Item, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the class index of each object."""
        return tuple(item.label for item in self.items)

    @cached_property
    def boxes(self) -> Array:
        """Return the box of each object, (n, 4): x1, y1, x2, y2 in pixels; x2 and y2 are exclusive."""
        corners = [cv2.boundingRect(mask.view(np.uint8)) for mask in self.masks]
        return np.array([[x, y, x + w, y + h] for x, y, w, h in corners], np.float64).reshape(-1, 4)


def item_of(label: int, colour: str) -> Item:
    """Return an object of the class with this index, in this colour."""
    outline, texture = divmod(label, len(TEXTURES))
    return Item(OUTLINES[outline], TEXTURES[texture], colour)


def random_items(rng: np.random.Generator, count: int) -> list[Item]:
    """Return objects of different classes, in any colours."""
    labels = rng.choice(len(CLASSES), count, replace=False)
    return [item_of(int(label), COLOURS[rng.integers(len(COLOURS))]) for label in labels]


# Backgrounds.


def draw_background(rng: np.random.Generator, size: Size = SIZE) -> Image:
    """Return a cluttered background without objects: patches of colour, textures, outlines, strokes and grain."""
    height, width = size
    unit = math.sqrt(height * width)
    base = rng.uniform(0, 255, 3)
    cells = int(rng.integers(2, 7))
    coarse = np.clip(base + rng.uniform(-SPREAD, SPREAD, (cells, cells, 3)), 0, 255).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    strength = rng.uniform(0, 70)
    fine = (strength * rng.random((height // 2, width // 2, 1), np.float32)).astype(np.uint8)
    grain = cv2.resize(np.repeat(fine, 3, axis=2), (width, height))
    canvas = np.asarray(cv2.subtract(cv2.add(smooth, grain), np.full(4, strength / 2)), np.uint8)
    _strokes(rng, canvas, base, unit)
    for _ in range(rng.integers(0, 4)):
        colour, texture = COLOURS[rng.integers(len(COLOURS))], TEXTURES[rng.integers(len(TEXTURES))]
        inside = _piece(rng, size, irregular(rng), rng.uniform(0.12, 0.3) * unit)
        _fill(rng, canvas, inside, texture, colour, rng.uniform(*PERIOD) * unit)
    for _ in range(rng.integers(0, 3)):
        plain, _ = shades(rng, COLOURS[rng.integers(len(COLOURS))])
        canvas[_piece(rng, size, known(rng), rng.uniform(0.08, 0.2) * unit)] = plain
    return canvas


def _strokes(rng: np.random.Generator, canvas: Image, base: Array, unit: float) -> None:
    """Draw thin open curves in colours near the background's."""
    height, width = canvas.shape[:2]
    for _ in range(rng.integers(0, 10)):
        steps = rng.normal(0, 0.09, (rng.integers(2, 6), 2)).cumsum(axis=0) * unit
        points = np.round(steps + rng.uniform(0, 1, 2) * [width, height]).astype(np.int32)
        colour = np.clip(base + rng.uniform(-110, 110, 3), 0, 255).tolist()
        cv2.polylines(canvas, [points], False, colour, max(1, round(rng.uniform(0.008, 0.022) * unit)))


def _piece(rng: np.random.Generator, size: Size, contour: Array, radius: float) -> Mask:
    """Return the pixels, bool (H, W), within a contour in the unit circle at a random place and angle."""
    height, width = size
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = contour @ turn.T * radius + rng.uniform(0, 1, 2) * [width, height]
    inside = np.zeros(size, np.uint8)
    cv2.fillPoly(inside, [np.round(points * 2**SHIFT).astype(np.int32)], 1, shift=SHIFT)
    return inside.view(bool)


def _fill(rng: np.random.Generator, canvas: Image, mask: Mask, texture: str, colour: str, period: float) -> None:
    """Paint a texture on the pixels of a mask; it is made for their bounding box alone."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    if width and height:
        paper = textured(rng, texture, colour, (height, width), period)
        np.copyto(canvas[box], paper, where=mask[box][..., None])


# Objects.


def _places(rng: np.random.Generator, count: int, size: Size, radius: tuple[float, float]) -> Array:
    """Return x, y and the radius of circles that lie inside the image and apart from each other, (count, 3)."""
    height, width = size
    unit = math.sqrt(height * width)
    first, second = np.triu_indices(count, 1)
    r = np.minimum(rng.uniform(*radius, (TRIES, count)) * unit, min(size) / 2)
    x, y = rng.uniform(r, width - r), rng.uniform(r, height - r)
    between = np.hypot(x[:, first] - x[:, second], y[:, first] - y[:, second]) - r[:, first] - r[:, second]
    fitting = np.flatnonzero((between >= GAP * unit).all(axis=1))
    if len(fitting):
        return np.asarray(np.stack([x, y, r], axis=2)[fitting[0]])
    raise ValueError(f"no room for {count} objects of radius {radius} in a scene of {height}x{width}")


def paint(rng: np.random.Generator, canvas: Image, items: Sequence[Item], radius: tuple[float, float]) -> Scene:
    """Return the scene of objects on a background: wholly inside it and apart from each other.

    Args:
        rng: the source of randomness.
        canvas: the background, uint8 (H, W, 3) RGB; it is not changed.
        items: the objects.
        radius: smallest and largest radius of the circle around an object, in units of sqrt(H * W).

    Raises:
        ValueError: the objects do not fit.
    """
    size = canvas.shape[0], canvas.shape[1]
    image = canvas.copy()
    masks = np.zeros((len(items), *size), bool)
    period = rng.uniform(*PERIOD, len(items)) * math.sqrt(size[0] * size[1])
    for k, (x, y, r) in enumerate(_places(rng, len(items), size, radius)):
        angle = rng.uniform(0, 2 * math.pi)
        masks[k] = shapes.rasterise(shapes.CLASSES.index(items[k].outline), size, (x, y), r, angle)
        _fill(rng, image, masks[k], items[k].texture, items[k].colour, period[k])
    return Scene(image, masks, tuple(items))


def draw_scene(
    rng: np.random.Generator, items: Sequence[Item], size: Size = SIZE, radius: tuple[float, float] = TWO
) -> Scene:
    """Return a scene with these objects on a background of its own; equal states of ``rng`` give equal scenes.

    Args:
        rng: the source of randomness.
        items: the objects; none draws an empty scene.
        size: (H, W).
        radius: smallest and largest radius of the circle around an object, in units of sqrt(H * W).

    Raises:
        ValueError: the objects do not fit.
    """
    return paint(rng, draw_background(rng, size), items, radius)


def one_object(rng: np.random.Generator, size: Size = SIZE, radius: tuple[float, float] = ONE) -> Scene:
    """Return a scene with one object of a random class, at any place."""
    return draw_scene(rng, random_items(rng, 1), size, radius)


def two_objects(rng: np.random.Generator, size: Size = SIZE, radius: tuple[float, float] = TWO) -> Scene:
    """Return a scene with two objects of different classes."""
    return draw_scene(rng, random_items(rng, 2), size, radius)
