"""From activations and gradients at the target layers to cams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.engine.rows import Rows
from onnx_gradcam.methods.cam import NEEDS, compute_cam
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def layer_result(
    layer: Layer,
    results: Mapping[str, Any],
    rows: Rows,
    gradients: Gradients | None,
    recipe: Recipe,
) -> LayerResult:
    """Return activation, gradient, weights and cam of one layer for each row (image, target).

    ``results`` has one entry per image, ``gradients`` one per row.
    """
    images = np.array([row.image for row in rows])
    activation = layer.arrange(results[layer.name])
    if len(images) != len(activation) or not np.array_equal(images, np.arange(len(images))):
        activation = activation[images]
    gradient = None if gradients is None else layer.arrange(gradients.of[layer.name])
    beside = {} if gradients is None else gradients.beside
    more = {name: layer.arrange(of[layer.name]) for name, of in beside.items() if name in NEEDS[recipe.method]}
    weights, cam = compute_cam(
        recipe.method,
        activation,
        gradient,
        more=more,
        counterfactual=recipe.counterfactual,
        signed=recipe.signed,
        combination=recipe.combination,
    )
    return LayerResult(layer.name, activation, gradient, weights, np.asarray(cam))
