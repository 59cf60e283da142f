"""Draws scenes of shapes in named colours, and writes what can be asked and said of them.

An object is an outline of ``shapes.py`` in one of ``COLOURS``, on a background without strong colours. In a scene no
outline and no colour stands twice, so that "the star" and "the red thing" name one object. Questions and sentences are
made of the objects' outlines, colours and centres alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from shapes import CLASSES, GAP, Image, Mask, Size, draw_background, paint, place

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "orange": (240, 140, 25),
    "yellow": (240, 225, 60),
    "green": (50, 170, 70),
    "blue": (45, 90, 215),
    "purple": (140, 60, 170),
}
NAMES = tuple(COLOURS)
JITTER, SHADE, MUTED = 12.0, 0.72, 0.25
APART = 0.1
"""How far two centres lie apart, as a share of the side, where one is left of the other, or above it."""
PAD, START, END = "<pad>", "<start>", "<end>"
RELATIONS = ("left", "right", "above", "below")
QUESTION_WORDS = (
    PAD,
    "what",
    "is",
    "the",
    "there",
    "a",
    "an",
    "colour",
    "shape",
    "of",
    "thing",
    *RELATIONS,
    *NAMES,
    *CLASSES,
)
ANSWERS = (*NAMES, *CLASSES, "yes", "no")
CAPTION_WORDS = (PAD, START, END, "a", "an", "left", "of", "above", *NAMES, *CLASSES)
QUESTION_LENGTH = 8


@dataclass(frozen=True)
class Thing:
    """An object: its outline and colour, as indices into ``CLASSES`` and ``NAMES``, and its centre (x, y) in [0, 1]."""

    outline: int
    colour: int
    centre: tuple[float, float]

    @property
    def words(self) -> tuple[str, str]:
        return NAMES[self.colour], CLASSES[self.outline]


@dataclass(frozen=True)
class NamedScene:
    """An image, uint8 (H, W, 3) RGB, the mask of each object, bool (n, H, W), and the objects."""

    image: Image
    masks: Mask
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the indices of the objects that it is about: none where the answer is no."""

    words: tuple[str, ...]
    answer: str
    about: tuple[int, ...]


# Scenes.


def muted_background(rng: np.random.Generator, size: Size) -> Image:
    """A busy background whose colours are near grey."""
    image = draw_background(rng, size).astype(np.float32)
    grey = image.mean(axis=2, keepdims=True)
    return np.asarray(grey + MUTED * (image - grey), np.uint8)


def coloured(rng: np.random.Generator, size: Size, colour: int) -> NDArray[np.float32]:
    """A pattern in two shades of a named colour, float32 (H, W, 3) in 0..255."""
    light = np.clip(np.array(COLOURS[NAMES[colour]], np.float32) + rng.uniform(-JITTER, JITTER, 3), 0, 255)
    return paint(rng, size, light.astype(np.float32), (light * rng.uniform(SHADE, 1)).astype(np.float32))


def draw_named(
    rng: np.random.Generator,
    count: int,
    size: Size = (96, 96),
    radius: tuple[float, float] = (0.13, 0.2),
    *,
    named: Sequence[tuple[int, int]] = (),
) -> NamedScene:
    """A scene of ``count`` objects, all of other outlines and colours, wholly inside and apart from each other.

    ``named``: the outline and the colour of each; none: at random.
    """
    canvas = muted_background(rng, size)
    gap = 2 * round(GAP * float(np.sqrt(size[0] * size[1]))) + 1
    outlines = [o for o, _ in named] or rng.choice(len(CLASSES), count, replace=False).tolist()
    colours = [c for _, c in named] or rng.choice(len(NAMES), count, replace=False).tolist()
    forbidden, masks = np.zeros(size, bool), np.zeros((count, *size), bool)
    for mask, outline, colour in zip(masks, outlines, colours, strict=True):
        mask[:] = place(rng, outline, forbidden, radius)
        canvas[mask] = coloured(rng, size, colour)[mask].astype(np.uint8)
        forbidden |= cv2.dilate(mask.astype(np.uint8), np.ones((gap, gap), np.uint8)).astype(bool)
    things = (Thing(o, c, centre_of(mask)) for o, c, mask in zip(outlines, colours, masks, strict=True))
    return NamedScene(canvas, masks, tuple(things))


def centre_of(mask: Mask) -> tuple[float, float]:
    """The middle (x, y) of the box around a mask, as shares of the width and the height."""
    x1, y1, x2, y2 = box_of(mask)
    height, width = mask.shape
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """The box x1, y1, x2, y2 around a mask, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def class_map(scene: NamedScene) -> NDArray[np.uint8]:
    """Each pixel's class, uint8 (H, W): 0 for the background, else 1 + the index of the outline."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for thing, mask in zip(scene.things, scene.masks, strict=True):
        labels[mask] = 1 + thing.outline
    return labels


# Where one object lies, seen from another one.


def side(first: Thing, second: Thing) -> str:
    """Where the first lies, seen from the second: along the axis on which they are further apart."""
    dx, dy = (a - b for a, b in zip(first.centre, second.centre, strict=True))
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def distance(first: Thing, second: Thing) -> float:
    """How far apart two centres are along the axis of ``side``."""
    return max(abs(a - b) for a, b in zip(first.centre, second.centre, strict=True))


# Questions.


def ask_colour(rng: np.random.Generator, things: Sequence[Thing]) -> Asked:
    k = int(rng.integers(len(things)))
    colour, outline = things[k].words
    return Asked(("what", "colour", "is", "the", outline), colour, (k,))


def ask_shape(rng: np.random.Generator, things: Sequence[Thing]) -> Asked:
    k = int(rng.integers(len(things)))
    colour, outline = things[k].words
    return Asked(("what", "shape", "is", "the", colour, "thing"), outline, (k,))


def ask_presence(rng: np.random.Generator, things: Sequence[Thing]) -> Asked:
    """Half of them are answered with yes. A no is about no object: half of those mix two objects that are there."""
    if rng.uniform() < 0.5:
        k = int(rng.integers(len(things)))
        return Asked(("is", "there", *with_article(_named(rng, things[k].words))), "yes", (k,))
    if len(things) > 1 and rng.uniform() < 0.5:
        a, b = rng.choice(len(things), 2, replace=False)
        return Asked(("is", "there", *with_article((things[a].words[0], things[b].words[1]))), "no", ())
    colours, outlines = zip(*(thing.words for thing in things), strict=True)
    absent = [[w for w in NAMES if w not in colours], [w for w in CLASSES if w not in outlines]]
    colour, outline = (words[rng.integers(len(words))] for words in absent)
    return Asked(("is", "there", *with_article(_named(rng, (colour, outline)))), "no", ())


def _named(rng: np.random.Generator, words: tuple[str, str]) -> tuple[str, ...]:
    """An object by its colour, by its outline, or by both."""
    colour, outline = words
    return ((colour, outline), (colour, "thing"), (outline,))[rng.integers(3)]


def with_article(words: Sequence[str]) -> tuple[str, ...]:
    return ("an" if words[0][0] in "aeiou" else "a", *words)


def ask_place(rng: np.random.Generator, things: Sequence[Thing]) -> Asked:
    """What lies on one side of an object, where exactly one does and is clearly apart; else a question of colour."""
    pairs = [
        (k, n, side(a, b))
        for k, a in enumerate(things)
        for n, b in enumerate(things)
        if k != n and distance(a, b) >= APART
    ]
    single = [(k, n, s) for k, n, s in pairs if sum((m, t) == (n, s) for _, m, t in pairs) == 1]
    if not single:
        return ask_colour(rng, things)
    k, n, where = single[rng.integers(len(single))]
    middle = (where, "of") if where in ("left", "right") else (where,)
    return Asked(("what", "is", *middle, "the", things[n].words[1]), things[k].words[1], (k,))


Question = Callable[[np.random.Generator, Sequence[Thing]], Asked]
QUESTIONS: dict[str, Question] = {
    "colour": ask_colour,
    "shape": ask_shape,
    "presence": ask_presence,
    "place": ask_place,
}


def about_objects(rng: np.random.Generator, things: Sequence[Thing]) -> dict[str, Asked]:
    """One question of each kind whose answer is about an object: a no is about none."""
    asked = {kind: ask(rng, things) for kind, ask in QUESTIONS.items()}
    while not asked["presence"].about:
        asked["presence"] = ask_presence(rng, things)
    return asked


# Sentences.


@dataclass(frozen=True)
class Sentence:
    """The words of a caption, and for each the index of the object that it names, or None."""

    words: tuple[str, ...]
    about: tuple[int | None, ...]


def describe(things: Sequence[Thing]) -> Sentence:
    """What is said of one object or two: "a red star left of a blue heart", the left or the upper one first."""
    if len(things) == 1:
        return Sentence(with_article(things[0].words), (None, 0, 0))
    first = 0 if side(things[0], things[1]) in ("left", "above") else 1
    second = 1 - first
    middle = ("left", "of") if side(things[first], things[second]) == "left" else ("above",)
    words = (*with_article(things[first].words), *middle, *with_article(things[second].words))
    return Sentence(words, (None, first, first, *[None] * (len(middle) + 1), second, second))
