"""From activations and gradients at the target layers to cams, and from these to one heatmap per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.cam import heatmap as maps
from onnx_gradcam.cam.methods import compute_cam
from onnx_gradcam.explanation import LayerResult
from onnx_gradcam.graph.layers import Layer
from onnx_gradcam.recipe import Recipe

Array = npt.NDArray[Any]


def layer_result(
    layer: Layer,
    results: Mapping[str, Any],
    rows: Sequence[tuple[int, int]],
    gradients: Mapping[str, np.ndarray] | None,
    recipe: Recipe,
) -> LayerResult:
    """The cam of one layer, one for each row (image, class); ``results`` has one entry per image, ``gradients`` one per
    row."""
    images = np.array([image for image, _ in rows])
    activation = layer.arrange(results[layer.name])
    if len(images) != len(activation) or not np.array_equal(images, np.arange(len(images))):
        activation = activation[images]
    gradient = None if gradients is None else layer.arrange(gradients[f"grad/{layer.name}"])
    weights, cam = compute_cam(
        recipe.method, activation, gradient, counterfactual=recipe.counterfactual, signed=recipe.signed
    )
    return LayerResult(layer.name, activation, gradient, weights, np.asarray(cam))


def draw(found: Sequence[LayerResult], size: Sequence[int], fusion: str, level: Array | None) -> Array:
    """The heatmap (R, *size) of the layers: fused, or, where ``level`` (R,) tells which layer, that one's."""
    if len(found) == 1:
        return maps.normalise(maps.upsample(found[0].cam, size))
    if level is not None:
        drawn = np.stack([maps.upsample(found[k].cam[r : r + 1], size)[0] for r, k in enumerate(level)])
        return maps.normalise(drawn)
    return maps.normalise(maps.fuse([layer.cam for layer in found], size, fusion))
