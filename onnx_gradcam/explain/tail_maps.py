"""Maps of methods that change the activation of a layer and run only what comes behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.evaluation import RunResult
from onnx_gradcam.engine.rows import score as score_of_rows
from onnx_gradcam.errors import MethodError
from onnx_gradcam.explain.backward_passes import TAIL
from onnx_gradcam.explain.drawn import Maps, MapTask, draw_cams
from onnx_gradcam.explain.layer_maps import count_views
from onnx_gradcam.explain.scored_copies import Score, Values, counter, perturb, run_forward, scoring, values_of_image
from onnx_gradcam.explain.smoothing import Cams
from onnx_gradcam.methods.arrays import as_float32, relu
from onnx_gradcam.methods.cam import require_space
from onnx_gradcam.methods.perturbation.records import PerturbedMaps
from onnx_gradcam.methods.perturbation.table import TAIL_METHODS
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def tail_maps(task: MapTask) -> Maps:
    """Return the maps of a method that changes the activations of the target layers."""
    network = task.network
    evaluation = network.evaluation(network.layer_names, TAIL)
    layers = network.layers_at(task.feeds)
    run = run_forward(evaluation, task, network.layer_names)
    if count_views(layers, run.results, network.image_input, task.x) > 1:
        raise MethodError(
            f"method {task.recipe.method!r} changes the activation of one image at a time; {layers[0].name!r} has one "
            "for each view of an image",
            hint="a method that reads gradients ('gradcam'), or a layer with one entry for each image",
            method=task.recipe.method,
        )
    activations = {layer.name: as_float32(layer.arrange(run.results[layer.name])) for layer in layers}
    for activation in activations.values():
        require_space(activation)
    method, options = TAIL_METHODS[task.recipe.method], task.recipe.options
    runs = [method.copies(activations[layer.name].shape[1:], options) for layer in layers]
    tick = counter(task.progress, len(task.x) * sum(runs))
    scores = score_of_rows(evaluation.score, run.rows, run.results).astype(np.float64)
    parts: dict[str, list[PerturbedMaps]] = {layer.name: [] for layer in layers}
    for image in range(len(task.x)):
        numbers = [k for k, row in enumerate(run.rows) if row.image == image]
        rows = [run.rows[k] for k in numbers]
        values = values_of_image(evaluation, task, run, image, rows, network.layer_names)
        for layer in layers if rows else ():
            score = _of_layer(scoring(evaluation, layer.name, rows, values, tick), layer, values)
            part = perturb(task.recipe, (activations[layer.name][image],), scores[numbers], score)
            parts[layer.name].append(part)
    results = [
        result_of_layer(layer.name, activations[layer.name], parts[layer.name], run, task.recipe) for layer in layers
    ]
    return draw_cams(task, evaluation, Cams(run.results, run.rows, results, (), ()))


def _of_layer(score: Score, layer: Layer, values: Values) -> Score:
    """Return a scoring function of arranged copies (B, C, *space)."""
    value = np.asarray(values[layer.name])
    return lambda copies: score(layer.restore(copies.astype(value.dtype, copy=False), value))


def result_of_layer(
    name: str, activations: Array, parts: Sequence[PerturbedMaps], run: RunResult, recipe: Recipe
) -> LayerResult:
    """Return the result at a layer, with one entry for each row."""
    maps = np.concatenate([part.maps for part in parts]).astype(np.float32)
    weights = [part.weights for part in parts if part.weights is not None]
    return LayerResult(
        name,
        activations[[row.image for row in run.rows]],
        None,
        np.concatenate(weights) if weights else None,
        maps if recipe.signed else relu(maps),
    )
