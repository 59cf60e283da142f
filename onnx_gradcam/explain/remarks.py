"""What must be said of the rows of an explanation: doubts about what the model says, and cautions for the pictures."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.engine import rows
from onnx_gradcam.explain.maps import Maps
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results import cautions, doubts
from onnx_gradcam.results.doubts import Doubt
from onnx_gradcam.results.records import Words
from onnx_gradcam.targets import Context, is_exclusive

IN_PADDING = 0.9  # a map that stays below this share of its maximum within the photo has its evidence beside it


def words_of(
    context: Context, maps: Maps, probability: np.ndarray, choice: Choice | UserFunction | None, labels_source: str
) -> tuple[Words, ...]:
    """Return each row in words: its target, the doubt about it, and its cautions.

    Args:
        context: the model, as targets see it.
        maps: the maps of R rows.
        probability: (R,), NaN where there is none.
        choice: how the photo became a tensor; None for arrays.
        labels_source: where the class names come from.
    """
    of_rows = zip(
        rows.words(maps.rows),
        _find_doubts(context, maps, probability),
        _find_cautions(maps, choice, labels_source),
        strict=True,
    )
    return tuple(Words(text, title, doubt=doubt, cautions=lines) for (text, title), doubt, lines in of_rows)


def _find_doubts(context: Context, maps: Maps, probability: np.ndarray) -> list[Doubt | None]:
    if context.kind == "regression":
        return [None] * len(probability)
    exclusive = is_exclusive(context.score) or context.kind == "binary"
    least = doubts.least_probability(context.kind, context.score.count, exclusive, None)
    top = rows.top_probability(maps.evaluation.score, maps.rows, maps.results)
    return doubts.find_doubts(context.kind, exclusive, least, top, probability)


def _find_cautions(maps: Maps, choice: Choice | UserFunction | None, labels_source: str) -> list[tuple[str, ...]]:
    count = len(maps.rows)
    return cautions.by_row(
        cautions.guessed_preprocessing(choice, count),
        cautions.guessed_labels(labels_source, count),
        cautions.beside_photo(is_beside(maps)),
        cautions.loose_places(rows.kinds(maps.rows), maps.layers),
    )


def is_beside(maps: Maps) -> np.ndarray:
    """Return (R,) bool, whether the strongest evidence of each row lies in the padding around the photo."""
    if maps.frame.geometry is None:
        return np.zeros(len(maps.rows), bool)
    faint: np.ndarray = np.abs(maps.heatmap).max(axis=(1, 2)) < IN_PADDING
    return faint & ~maps.is_blank
