"""Scenes as files: photos and masks with a table, as ``onnx-gradcam evaluate`` takes them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from scenes.drawing import Scene
from scenes.textures import Image

COLUMNS = ("path", "label", "box", "mask")


def draw_many(draw: Callable[[np.random.Generator], Scene], count: int, seed: int) -> list[Scene]:
    """Return scenes, each drawn from a seed of its own, so that the first of many are those of few."""
    return [draw(np.random.default_rng([seed, k])) for k in range(count)]


def write_scenes(folder: Path, scenes: Sequence[Scene], objects: int = 1) -> Path:
    """Write scenes as PNG files, with a mask for each object, and return the path of their table.

    Args:
        folder: where to write; it is made where it does not exist.
        scenes: what is written.
        objects: how many objects of each scene get a line in the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "scenes.csv"
    with table.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(COLUMNS)
        for k, scene in enumerate(scenes):
            _write(folder / f"{k}.png", scene.image[..., ::-1])
            for which in range(objects):
                name = f"{k}-{which}-mask.png"
                _write(folder / name, scene.masks[which].astype(np.uint8) * 255)
                box = " ".join(f"{edge:g}" for edge in scene.boxes[which])
                rows.writerow((f"{k}.png", scene.items[which].name, box, name))
    return table


def _write(path: Path, pixels: Image) -> None:
    _, data = cv2.imencode(".png", pixels)
    path.write_bytes(data.tobytes())
