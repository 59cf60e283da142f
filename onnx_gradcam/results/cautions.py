"""Cautions: short lines that must stand in the picture of a row, since they change how its map is read.

Functions of R rows return one line for each, "" for a row that they have nothing to say of. What a user should know
beside that stands in the warnings (``notes``), in whole sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.notes import says_little_of_places

Array = npt.NDArray[Any]
GUESSED_PREPROCESSING, GUESSED_LABELS = "guessed preprocessing", "guessed labels"
BESIDE = "the strongest evidence lies outside the photo"
LOOSE = "this map says little about the place"
TAUTOLOGICAL = "tautological: no larger than the last kernel before the cell"
TIED = "several classes have the highest score"
LEAST = 1e-6
FEW_CELLS = 6
"""A map with fewer cells than so many on each side is called coarse: a cell covers more than a sixth of it."""


def by_row(*cautions: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each row all that there is to say of it; each of the ``cautions`` has one line a row."""
    return [tuple(dict.fromkeys(filter(None, lines))) for lines in zip(*cautions, strict=True)]


def guessed_preprocessing(choice: Choice | UserFunction | None, rows: int) -> list[str]:
    """Return the line for photos whose way to a tensor is guessed, in part or as a whole."""
    return [GUESSED_PREPROCESSING if choice is not None and choice.guessed else ""] * rows


def guessed_labels(source: str, rows: int) -> list[str]:
    """Return the line for class names that are not the model's own."""
    return [GUESSED_LABELS if source.startswith("guessed") else ""] * rows


def beside_photo(is_beside: Array) -> list[str]:
    """Return the line for rows, (R,) bool, whose strongest evidence lies in the padding around the photo."""
    return [BESIDE if beside else "" for beside in is_beside]


def loose_places(kinds: Sequence[str], layers: Sequence[LayerResult]) -> list[str]:
    """Return the line for rows whose map says little about places, by the kind of the target of each."""
    loose = says_little_of_places(frozenset(kinds), layers)
    return [LOOSE if kind in loose else "" for kind in kinds]


def within_last_kernel(is_within: Array) -> list[str]:
    """Return the line for rows, (R,) bool, whose map covers no more than the last kernel before its cell."""
    return [TAUTOLOGICAL if within else "" for within in is_within]


def joined(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Return one line for each row of two; one of them may be empty, where there is nothing to say of any row."""
    if not first or not second:
        return tuple(first or second)
    return tuple("; ".join(filter(None, lines)) for lines in zip(first, second, strict=True))


def incomplete(total: Array, expected: Array, tolerance: float) -> list[str]:
    """Return the line for attributions whose sum (R,) misses what it should be (R,) by more than a share of it."""
    is_off = np.abs(total - expected) > tolerance * np.maximum(np.abs(expected), LEAST)
    return [
        f"incomplete: the map adds up to {t:.3g}, not to {e:.3g}" if off else ""
        for t, e, off in zip(total, expected, is_off, strict=True)
    ]


def no_curvature(count: int, layers: Sequence[str]) -> list[str]:
    """Return the line for the second-order maps of ``count`` rows that have no second order, in some layers."""
    return ["the second order is zero: this is the map of Grad-CAM" if layers else ""] * count


def tied(scores: Array, images: Array, classes: Array) -> list[str]:
    """Return the line for rows, (R,) images and (R,) classes, whose class shares the highest of the scores (N, K)."""
    is_highest = scores == scores.max(axis=1, keepdims=True)
    return [
        TIED if label >= 0 and is_highest[image, label] and is_highest[image].sum() > 1 else ""
        for image, label in zip(images, classes, strict=True)
    ]


def coarse_map(layers: Sequence[LayerResult], is_cam: bool) -> list[str]:
    """Return the line for a cam with few cells, each of which covers a large part of the photo; none for others."""
    if not (layers and is_cam):
        return []
    finest = max((layer.cam.shape[1:] for layer in layers), key=math.prod)
    return [f"coarse map: {' × '.join(map(str, finest))} cells"] if math.prod(finest) < FEW_CELLS ** len(finest) else []


def clipped(is_clipped: bool, scale: float) -> list[str]:
    """Return the line for a map with values above its scale; none for others."""
    return [f"values above {scale:.3g} have the same colour"] if is_clipped else []
