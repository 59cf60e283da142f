"""Maps of the concepts in the activation of a layer, one for each image and concept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.rows import Row
from onnx_gradcam.engine.scores import probabilities
from onnx_gradcam.errors import MethodError
from onnx_gradcam.explain.backward_passes import TAIL
from onnx_gradcam.explain.drawn import Maps, MapTask, draw_cams
from onnx_gradcam.explain.layer_maps import count_views
from onnx_gradcam.explain.scored_copies import run_forward, values_of_image
from onnx_gradcam.explain.smoothing import Cams
from onnx_gradcam.methods.arrays import as_float32
from onnx_gradcam.methods.cam import require_space
from onnx_gradcam.methods.factorization import CONCEPT_METHODS
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.targets import RowTarget
from onnx_gradcam.targets.kinds import CLASS, CONCEPT

Array = npt.NDArray[Any]


def concept_maps(task: MapTask) -> Maps:
    """Return the maps of concepts that all images of a task share; the targets say only what is run.

    The weights of a row are the vector of its concept: the activation at its peak. Of a classifier each concept has the
    class that the head gives it where the whole layer is that vector.
    """
    network, recipe = task.network, task.recipe
    if len(network.layer_names) > 1:
        raise MethodError(
            f"method {recipe.method!r} finds concepts in one layer, and here are {len(network.layer_names)}",
            hint="one of them: --layer NAME",
            method=recipe.method,
        )
    evaluation, (layer,) = network.evaluation(network.layer_names, TAIL), network.layers_at(task.feeds)
    run = run_forward(evaluation, task, network.layer_names)
    if count_views(network.layers, run.results, network.image_input, task.x) > 1:
        raise MethodError(
            f"method {recipe.method!r} is for layers with one entry for each image, not for each view: {layer.name!r}",
            hint="another layer (--layer NAME)",
            method=recipe.method,
        )
    activation = as_float32(layer.arrange(run.results[layer.name]))
    require_space(activation)
    concepts = CONCEPT_METHODS[recipe.method](activation, **recipe.options)
    targets = _targets(task, evaluation, layer, run, concepts.vectors, concepts.shares)
    count = len(targets)
    rows = tuple(Row(image, target) for image in range(len(activation)) for target in targets)
    vectors = np.tile(concepts.vectors, (len(activation), 1)).reshape(len(rows), -1, *[1] * (activation.ndim - 2))
    cam = concepts.maps.reshape(len(rows), *activation.shape[2:])
    result = LayerResult(layer.name, activation.repeat(count, axis=0), None, vectors, cam)
    return draw_cams(task, evaluation, Cams(run.results, rows, [result], (), ("",) * len(rows)))


def _targets(
    task: MapTask, evaluation: Evaluation, layer: Layer, run: RunResult, vectors: Array, shares: Array
) -> list[RowTarget]:
    """Return what the row of each concept is of: its class, where the model is a classifier."""
    plain = [
        RowTarget(CONCEPT, -1, text=f"concept:{k}", title=f"concept {k} ({share:.0%})", score=share)
        for k, share in enumerate(map(float, shares), start=1)
    ]
    score = evaluation.score
    if score.dense is not None or score.kind != "classes":
        return plain
    value = values_of_image(evaluation, task, run, 0, run.rows[:1], [layer.name])
    array = np.asarray(value[layer.name])
    arranged = layer.arrange(array)
    everywhere = vectors.reshape(*vectors.shape, *[1] * (arranged.ndim - 2))
    copies = np.broadcast_to(everywhere, (len(vectors), *arranged.shape[1:]))
    every = [RowTarget(CLASS, c) for c in range(score.count)]
    tail = evaluation.tail(CLASS, layer.name)
    scores = tail.scores(layer.restore(copies.astype(array.dtype), array), value, every).astype(np.float32)
    p, best = probabilities(score, scores), scores.argmax(axis=1)
    return [
        replace(each, class_index=int(c), score=float(scores[k, c]), probability=float(p[k, c]))
        for k, (each, c) in enumerate(zip(plain, best, strict=True))
    ]
