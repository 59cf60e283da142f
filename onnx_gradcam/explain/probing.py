"""A model that is asked about changed copies of an image, as metrics hold them: channels first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.rows import class_probabilities
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.errors import LayerError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.image_form import ImageForm
from onnx_gradcam.photos.inputs import inputs_without_batch
from onnx_gradcam.targets import TOP1, class_target

Array = npt.NDArray[Any]


def class_scores(explainer: Explainer, feeds: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the score and the probability of each class for N images, (N, K) each.

    Where an output is no probability, the second are the scores again.

    Args:
        explainer: the model.
        feeds: arrays by the names of the model's inputs.
    """
    evaluation, count = explainer.network.evaluation(()), len(feeds[explainer.image_input.name])
    run = evaluation.evaluate(dict(feeds), [(class_target(TOP1),)] * count, False)
    scores = by_class(evaluation.score, run.results[evaluation.score.value.name or ""])
    probabilities = class_probabilities(evaluation.score, run.results)
    return scores, scores if np.isnan(probabilities).any() else probabilities


def feeds_of_images(explainer: Explainer, x: Array, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return what is fed for images (N, …): the other inputs are repeated, but those without a batch axis.

    Args:
        explainer: the model.
        x: (N, …), in the form of the model's input.
        inputs: arrays for the model's other inputs, by name, for one image.
    """
    specs, image = explainer.inputs, explainer.image_input
    shared = inputs_without_batch({image.name: x[:1], **inputs}, specs, image)
    repeated = {name: array if name in shared else np.concatenate([array] * len(x)) for name, array in inputs.items()}
    return {image.name: x, **repeated}


@dataclass(frozen=True, eq=False)
class ImageProbe:
    """A model, a method, and where an image lies in the model's input.

    Attributes:
        explainer: the model.
        method: the method of its maps.
        space: the axes of the input that are space.
        keywords: the keywords of ``explain`` beside target and method.
        inputs: arrays for the model's other inputs, for one image.
    """

    explainer: Explainer
    method: str
    space: tuple[int, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def form(self) -> ImageForm:
        """Return how images lie in the model's input."""
        return ImageForm(self.explainer.image_input, self.space)

    def scores(self, copies: Array) -> tuple[Array, Array]:
        """Return the score and the probability of each class, (N, K) each.

        Where an output is no probability, the second are the scores again.

        Args:
            copies: (N, C, *space).
        """
        return class_scores(self.explainer, self._feeds(copies))

    def maps(self, copies: Array, classes: Array) -> Array:
        """Return the map of one class on each copy, (N, *space), from 0 to 1; the classes are (N,)."""
        return self.maps_and_grid(copies, classes)[0]

    def maps_and_grid(self, copies: Array, classes: Array) -> tuple[Array, tuple[int, ...]]:
        """Return the same as ``maps``, and the extents of the finest grid on which the method drew them.

        Raises:
            LayerError: the maps do not lie on the images: on a grid of their own, or several for each image.
        """
        explanation = self.explainer.explain(self._feeds(copies), classes.tolist(), self.method, **self.keywords)
        heatmap = explanation.heatmap
        if heatmap.shape != (len(copies), *copies.shape[2:]):
            raise LayerError(
                f"the maps {heatmap.shape} do not lie on the images {copies.shape}: they cannot be measured there",
                where=", ".join(layer.name for layer in explanation.layers),
                hint="a layer on the grid of the image",
            )
        cams = [layer.cam.shape[1:] for layer in explanation.layers] if explanation.attribution is None else []
        return heatmap, tuple(map(max, *cams, cams[0])) if cams else heatmap.shape[1:]

    def gradients(self, copies: Array, class_index: int) -> Array:
        """Return the gradient of the score of a class at each copy, (N, C, *space)."""
        explanation = self.explainer.explain(self._feeds(copies), class_index, "saliency", signed=True)
        assert explanation.attribution is not None
        return self.form.arranged(explanation.attribution)

    def _feeds(self, copies: Array) -> dict[str, Array]:
        """Return what is fed for copies of one image."""
        return feeds_of_images(self.explainer, self.form.as_fed(copies), self.inputs)
