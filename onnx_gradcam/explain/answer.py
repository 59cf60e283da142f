"""From a question to its explanation: the maps, and in plain data all that was learnt on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_gradcam.engine import rows
from onnx_gradcam.engine.evaluation import RunResult
from onnx_gradcam.explain.branches import make_branch_maps
from onnx_gradcam.explain.drawn import Progress, tell_nobody
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.preprocessing import naming_a_guessed_size
from onnx_gradcam.explain.provenance import provenance_of
from onnx_gradcam.explain.question import Question
from onnx_gradcam.explain.remarks import is_beside, warnings_of, words_of
from onnx_gradcam.results import doubts, notes
from onnx_gradcam.results.explanation import Explanation


def answer(
    network: Network,
    question: Question,
    labels_source: str,
    progress: Progress = tell_nobody,
    ahead: RunResult | None = None,
) -> Explanation:
    """Return the explanation that answers a question.

    Args:
        network: the opened model.
        question: what is explained.
        labels_source: where the class names come from.
        progress: is told how far a method is that runs the model many times.
        ahead: what the model gives for the question, where it has been run.

    Raises:
        OnnxGradcamError: as ``Explainer.explain``.
    """
    networks, context, recipe, choice = question.networks, question.context, question.recipe, question.choice
    with naming_a_guessed_size(choice, question.feeds[network.image_input.name].shape):
        maps = make_branch_maps(networks, question.task(progress), ahead)
    results, written = maps.results, maps.evaluation.score
    maps = replace(maps, rows=rows.with_class_boxes(context, written, maps.rows, results))
    map_rows = maps.rows
    probability = rows.probability(written, map_rows, results)
    words = words_of(context, maps, probability, choice, labels_source, network)
    return Explanation(
        method=recipe.name,
        recipe=recipe,
        image_index=rows.image_index(map_rows),
        view_index=rows.view_index(map_rows),
        class_index=rows.class_index(map_rows),
        score=rows.score(written, map_rows, results),
        probability=probability,
        is_blank=maps.is_blank,
        heatmap=maps.heatmap,
        seen=np.tile(np.array(maps.frame.region, np.int64), (len(map_rows), 1)),
        scale=maps.scale,
        layers=maps.layers,
        outputs={name: results[name] for name in maps.evaluation.output_names},
        labels=None if context.labels is None else tuple(context.labels),
        frame=maps.frame,
        provenance=provenance_of(networks, context.score, recipe, maps, choice, labels_source),
        cell=rows.cell(written, map_rows, results),
        box=question.frame.in_photo(rows.box(map_rows)),
        words=words,
        signed=recipe.signed,
        warnings=(
            *(choice.warnings if choice else ()),
            *question.notes,
            *doubts.sentences([each.doubt for each in words]),
            *warnings_of(network, maps, labels_source, context.labels),
            *rows.warnings(map_rows),
            *notes.beside_photo(is_beside(maps)),
        ),
        attribution=maps.attribution,
        attributed=maps.attributed,
        rectifiers=maps.rectifiers,
        completeness=maps.completeness,
    )
