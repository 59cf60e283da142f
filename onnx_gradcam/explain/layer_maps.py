"""From activations and gradients at the target layers to cams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.engine.rows import Rows
from onnx_gradcam.errors import LayerError
from onnx_gradcam.methods.cam import NEEDS, compute_cam
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.inputs import has_views
from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def layer_result(
    layer: Layer,
    results: Mapping[str, Any],
    rows: Rows,
    gradients: Gradients | None,
    recipe: Recipe,
) -> LayerResult:
    """Return activation, gradient, weights and cam of one layer for each row (image, target, view).

    ``results`` has one entry for each view of each image, ``gradients`` one for each row.
    """
    views = 1 + max(row.view for row in rows)
    entries = np.array([row.image * views + row.view for row in rows])
    activation = layer.arrange(results[layer.name])
    if len(entries) != len(activation) or not np.array_equal(entries, np.arange(len(entries))):
        activation = activation[entries]
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
        options=recipe.options,
    )
    return LayerResult(layer.name, activation, gradient, weights, np.asarray(cam))


def count_views(layers: Sequence[Layer], results: Mapping[str, Any], image: InputSpec, x: Array) -> int:
    """Return how many entries the layers have for each image: 1, or one for each of its views or frames.

    Args:
        layers: the target layers.
        results: what the forward pass gave.
        image: the input that is explained.
        x: what was fed to it, (N, …).

    Raises:
        LayerError: the first axis of a layer is neither that of the images nor that of their views.
    """
    counts = {layer.name: layer.arrange(results[layer.name]).shape[0] / len(x) for layer in layers}
    for name, count in counts.items():
        if count != 1 and not (count.is_integer() and has_views(image, x.shape, int(count))):
            raise LayerError(
                f"{name!r} has {count * len(x):.0f} entries for {len(x)} image{'s' * (len(x) > 1)} of shape "
                f"{x.shape[1:]}: its first axis is neither that of the images nor that of their views",
                where=f"shape {results[name].shape}",
                hint="a layer with one entry for each image: `onnx-gradcam inspect MODEL` lists them",
                name=name,
            )
    if len(set(counts.values())) > 1:
        raise LayerError(
            f"layers with one map for each image, and with one for each view: {', '.join(counts)}",
            hint="layers of one kind",
            names=tuple(counts),
        )
    return int(next(iter(counts.values())))
