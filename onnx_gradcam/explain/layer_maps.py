"""From activations and gradients at the target layers to cams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.methods.cam import NEEDS, compute_cam
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def layer_result(
    layer: Layer,
    results: Mapping[str, Any],
    rows: Sequence[tuple[int, int]],
    gradients: Mapping[str, np.ndarray] | None,
    recipe: Recipe,
) -> LayerResult:
    """The cam of one layer, one for each row (image, class); ``results`` has one entry per image, ``gradients`` one per
    row: ``grad/<layer>``, and ``grad/<what>/<layer>`` for what else the method needs."""
    images = np.array([image for image, _ in rows])
    activation = layer.arrange(results[layer.name])
    if len(images) != len(activation) or not np.array_equal(images, np.arange(len(images))):
        activation = activation[images]
    gradient = None if gradients is None else layer.arrange(gradients[f"grad/{layer.name}"])
    more = {name: layer.arrange((gradients or {})[f"grad/{name}/{layer.name}"]) for name in NEEDS[recipe.method][2:]}
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
