"""From changed copies of an image to how much of the boxes that are explained a detector still finds in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.rows import Row
from onnx_gradcam.explain.drawn import MapTask
from onnx_gradcam.explain.scored_copies import Score
from onnx_gradcam.methods.perturbation.rise import similarity
from onnx_gradcam.photos.inputs import spatial_axes
from onnx_gradcam.targets import Context, ForwardPass
from onnx_gradcam.targets.proposals import boxes_of, proposal_of, rivals

Array = npt.NDArray[Any]


def box_scoring(
    evaluation: Evaluation, task: MapTask, run: RunResult, rows: Sequence[Row], tick: Callable[[int], None]
) -> Score:
    """Return a function from copies of one image, as they are fed, to the similarity of each row's box, (B, K) float64.

    Args:
        evaluation: what runs the model.
        task: what maps are made of.
        run: what the model gave for the images as they are.
        rows: the rows of the image.
        tick: is told after each run of how many copies it was.

    Raises:
        MethodError: a row is about no box, or the boxes are not known.
    """
    network = task.network
    size = tuple(task.x.shape[k] for k in spatial_axes(network.image_input, 2))
    context = Context(network.score, None, size)
    written = evaluation.score.dense
    names = {} if written is None else {attribute: v.name or "" for attribute, v in written.detection.items()}
    ranking = np.zeros((len(task.x), 0)) if written is None else np.asarray(run.results[written.ranking.name or ""])
    forward = ForwardPass(run.results, _dense(run.results, names), ranking)
    proposals = [proposal_of(context, forward, row.image, row.target) for row in rows]

    def score(copies: Array) -> Array:
        dense = _dense(evaluation.values(_feeds(task, rows[0].image, copies), list(names.values())), names)
        scores = np.empty((len(copies), len(rows)))
        for copy in range(len(copies)):
            boxes = boxes_of(context, proposals[0].layout, dense, copy)
            for k, proposal in enumerate(proposals):
                found = rivals(context, proposal, boxes, dense, copy)
                scores[copy, k] = similarity(found.overlap, found.classes, found.objectness, proposal.classes)
        tick(len(copies))
        return scores

    return score


def _dense(results: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Array]:
    return {attribute: np.asarray(results[name]) for attribute, name in names.items()}


def _feeds(task: MapTask, image: int, copies: Array) -> dict[str, Array]:
    """Return what is fed for copies of an image: the other inputs are repeated for each."""
    others = {
        name: array if name in task.shared else array[[image]].repeat(len(copies), axis=0)
        for name, array in task.feeds.items()
    }
    return {**others, task.network.image_input.name: copies}
