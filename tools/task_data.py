"""Training data of the tasks as tensors: images that are drawn once, questions that are asked anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from shapes import CLASSES
from task_scenes import (
    CAPTION_WORDS,
    END,
    NAMES,
    PAD,
    QUESTION_LENGTH,
    QUESTION_WORDS,
    START,
    NamedScene,
    Thing,
    box_of,
    class_map,
    describe,
    draw_named,
)

COUNTS = (0.15, 0.5, 0.35)
"""How often a scene holds one, two, three objects."""
CAPTION_LENGTH = 9
"""The start and the longest sentence: what the model of captions reads."""
Boxes = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images uint8 (N, 3, H, W), their class maps uint8 (N, H, W), and the objects and boxes (in [0, 1]) of each."""

    images: torch.Tensor
    maps: torch.Tensor
    things: tuple[tuple[Thing, ...], ...]
    boxes: tuple[Boxes, ...]

    def part(self, index: torch.Tensor) -> Batch:
        numbers = index.tolist()
        return Batch(
            self.images[index],
            self.maps[index],
            tuple(self.things[n] for n in numbers),
            tuple(self.boxes[n] for n in numbers),
        )


def draw_batch(seed: int, count: int) -> Batch:
    """``count`` scenes of one to three objects."""
    rng = np.random.default_rng(seed)
    return as_batch([draw_named(rng, int(rng.choice(3, p=COUNTS)) + 1) for _ in range(count)])


def as_batch(scenes: Sequence[NamedScene]) -> Batch:
    side = scenes[0].image.shape[0]
    images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
    return Batch(
        torch.from_numpy(images.copy()),
        torch.from_numpy(np.stack([class_map(scene) for scene in scenes])),
        tuple(scene.things for scene in scenes),
        tuple(tuple(tuple(v / side for v in box_of(m)) for m in scene.masks) for scene in scenes),
    )


def turned(batch: Batch, generator: torch.Generator) -> Batch:
    """One of the 8 symmetries of the square."""
    turns, flip = torch.randint(4, (2,), generator=generator).tolist()
    images, maps, things, boxes = batch.images, batch.maps, batch.things, batch.boxes
    for _ in range(turns):
        images, maps = torch.rot90(images, 1, (2, 3)), torch.rot90(maps, 1, (1, 2))
        things = tuple(tuple(replace(t, centre=(t.centre[1], 1 - t.centre[0])) for t in each) for each in things)
        boxes = tuple(tuple((y1, 1 - x2, y2, 1 - x1) for x1, y1, x2, y2 in each) for each in boxes)
    if flip % 2:
        images, maps = images.flip(3), maps.flip(2)
        things = tuple(tuple(replace(t, centre=(1 - t.centre[0], t.centre[1])) for t in each) for each in things)
        boxes = tuple(tuple((1 - x2, y1, 1 - x1, y2) for x1, y1, x2, y2 in each) for each in boxes)
    return Batch(images, maps, things, boxes)


def question_tokens(words: Sequence[str]) -> list[int]:
    tokens = [QUESTION_WORDS.index(word) for word in words]
    return tokens + [QUESTION_WORDS.index(PAD)] * (QUESTION_LENGTH - len(tokens))


def caption_tokens(things: Sequence[Thing]) -> list[int]:
    """The sentence between start and end, padded."""
    tokens = [CAPTION_WORDS.index(word) for word in (START, *describe(things).words, END)]
    return tokens + [CAPTION_WORDS.index(PAD)] * (CAPTION_LENGTH + 1 - len(tokens))


def presence(batch: Batch) -> torch.Tensor:
    """1 for each outline and each colour that is there, float32 (N, 14)."""
    target = torch.zeros(len(batch.things), len(CLASSES) + len(NAMES))
    for row, things in zip(target, batch.things, strict=True):
        for thing in things:
            row[thing.outline] = row[len(CLASSES) + thing.colour] = 1
    return target


def assigned(batch: Batch, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which cells a detector's boxes are learned at, and what: classes (N, cells², 8) and numbers (N, cells², 4).

    A cell is an object's where its middle lies within one cell of the middle of the object's box; other cells have no
    class. The numbers are those of ``Finder.raw``.
    """
    classes = torch.zeros(len(batch.things), cells, cells, len(CLASSES))
    numbers = torch.zeros(len(batch.things), cells, cells, 4)
    for n, (things, boxes) in enumerate(zip(batch.things, batch.boxes, strict=True)):
        for thing, box in zip(things, boxes, strict=True):
            x1, y1, x2, y2 = (v * cells for v in box)
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            for row in range(max(0, round(cy - 1.5)), min(cells, round(cy + 0.5) + 1)):
                for column in range(max(0, round(cx - 1.5)), min(cells, round(cx + 0.5) + 1)):
                    if max(abs(column + 0.5 - cx), abs(row + 0.5 - cy)) < 1:
                        size = np.log([x2 - x1, y2 - y1])
                        classes[n, row, column] = 0
                        classes[n, row, column, thing.outline] = 1
                        numbers[n, row, column] = torch.tensor([cx - column - 0.5, cy - row - 0.5, *size])
    return classes.flatten(1, 2), numbers.flatten(1, 2)
