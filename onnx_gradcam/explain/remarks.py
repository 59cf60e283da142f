"""What must be said of the rows of an explanation: doubts about what the model says, and cautions for the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.engine import rows
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.errors import TargetError
from onnx_gradcam.explain.drawn import Maps
from onnx_gradcam.explain.network import Network
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results import cautions, doubts, notes
from onnx_gradcam.results.doubts import Doubt
from onnx_gradcam.results.records import Words
from onnx_gradcam.targets import Context, RowTarget, family_of, is_exclusive
from onnx_gradcam.targets.kinds import CONCEPT

IN_PADDING = 0.9  # a map that stays below this share of its maximum within the photo has its evidence beside it


def words_of(
    context: Context,
    maps: Maps,
    probability: np.ndarray,
    choice: Choice | UserFunction | None,
    labels_source: str,
    network: Network,
) -> tuple[Words, ...]:
    """Return each row in words: its target, the doubt about it, and its cautions.

    Args:
        context: the model, as targets see it.
        maps: the maps of R rows.
        probability: (R,), NaN where there is none.
        choice: how the photo became a tensor; None for arrays.
        labels_source: where the class names come from.
        network: the opened model.
    """
    of_rows = zip(
        [_in_words(context, row.target) for row in maps.rows],
        rows.made_of(maps.rows),
        _find_doubts(context, maps, probability),
        _find_cautions(maps, choice, labels_source, network),
        strict=True,
    )
    return tuple(Words(text, title, product, doubt, lines) for (text, title), product, doubt, lines in of_rows)


def _in_words(context: Context, target: RowTarget) -> tuple[str, str]:
    """Return what a row explains, as ``--target`` has it, and as a title; that of a concept ends in its class."""
    has_class = target.kind is CONCEPT and target.class_index >= 0
    return target.text, target.title + f": {context.label(target.class_index)}" * has_class


def least_probability(score: Score, threshold: float | None) -> float:
    """Return the probability below which a model is doubted; ``threshold``: what the user set.

    Raises:
        TargetError: the threshold is no probability.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise TargetError(f"a threshold of {threshold}", hint="a probability, from 0 to 1", target=threshold)
    return doubts.least_probability(family_of(score), score.count, _is_exclusive(score), threshold)


def _is_exclusive(score: Score) -> bool:
    return is_exclusive(score) or score.kind == "binary"


def _find_doubts(context: Context, maps: Maps, probability: np.ndarray) -> list[Doubt | None]:
    top = rows.top_probability(maps.evaluation.score, maps.rows, maps.results)
    return doubts.find_doubts(context.kind, _is_exclusive(context.score), context.threshold, top, probability)


def _find_cautions(
    maps: Maps, choice: Choice | UserFunction | None, labels_source: str, network: Network
) -> list[tuple[str, ...]]:
    count, nothing = len(maps.rows), [""] * len(maps.rows)
    return cautions.by_row(
        cautions.guessed_preprocessing(choice, count),
        cautions.guessed_labels(labels_source, count),
        cautions.beside_photo(is_beside(maps)),
        cautions.loose_places(rows.kinds(maps.rows), maps.layers),
        maps.cautions or nothing,
        _tied(maps) if network.is_quantized else nothing,
        *([layer.caution] * count for layer in (network.layers if maps.layers else ())),
    )


def _tied(maps: Maps) -> list[str]:
    written = maps.evaluation.score
    scores = by_class(written, maps.results[written.value.name or ""])
    return cautions.tied(scores, rows.image_index(maps.rows), rows.class_index(maps.rows))


def is_beside(maps: Maps) -> np.ndarray:
    """Return (R,) bool, whether the strongest evidence of each row lies in the padding around the photo."""
    if maps.frame.geometry is None:
        return np.zeros(len(maps.rows), bool)
    faint: np.ndarray = np.abs(maps.heatmap).max(axis=(1, 2)) < IN_PADDING
    return faint & ~maps.is_blank


def warnings_of(network: Network, maps: Maps, source: str, labels: Sequence[str] | None) -> list[str]:
    """Return what the user should know of the model and its run, one sentence each."""
    written = maps.evaluation.score
    scores = by_class(written, maps.results[written.value.name or ""])
    return [
        *(notes.tied_scores(scores) if network.is_quantized else []),
        *notes.image_inputs(network.alike, network.image_input.name),
        *notes.other_heads(*network.choice_of_head),
        *notes.lost_probabilities(network.lost_probabilities),
        *(notes.mean_of_flattened(maps.layers) if maps.layers and network.is_flattened else []),
        *(layer.note for layer in (network.layers if maps.layers else ()) if layer.note),
        *notes.forward_difference(maps.evaluation.apart),
        *maps.evaluation.warnings,
        *notes.guessed_labels(source),
        *notes.few_labels(0 if labels is None else len(labels), network.score.count),
        *maps.notes,
    ]
