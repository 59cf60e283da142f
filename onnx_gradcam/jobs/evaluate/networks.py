"""The network that is evaluated, and the same network without what it learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.network import open_network
from onnx_gradcam.explain.opening import Opening
from onnx_gradcam.explain.probing import ImageProbe
from onnx_gradcam.explain.question import attempt
from onnx_gradcam.graph.randomised import WeightedLayer, weighted_layers, with_random_weights

Array = npt.NDArray[Any]
MOST_STEPS = 6
"""How many networks are made for each of the two checks with random layers."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The network as it is, and others made of it when they are first needed; they stay open.

    Attributes:
        trained: the network as it is.
        layer: the request for its target layers.
        opening: how it was opened.
        seed: what the order of weights is drawn from.
        stack: closes the others.
    """

    trained: ImageProbe
    layer: str | Sequence[str]
    opening: Opening
    seed: int
    stack: ExitStack
    _others: dict[tuple[WeightedLayer, ...], ImageProbe] = field(default_factory=dict)

    @cached_property
    def has_weights(self) -> bool:
        """Return whether there are weights that could be made random."""
        return not isinstance(attempt(weighted_layers, self.trained.explainer.source), OnnxGradcamError)

    @cached_property
    def layers(self) -> tuple[WeightedLayer, ...]:
        """Return the layers with weights, the last one first. Raises ``ModelError`` where there are none."""
        return weighted_layers(self.trained.explainer.source)

    def randomised(self, layers: tuple[WeightedLayer, ...]) -> ImageProbe:
        """Return the network in which these layers have random weights."""
        if layers not in self._others:
            explainer = self.trained.explainer
            source = with_random_weights(explainer.source, layers, self.seed)
            opening: Opening = {**self.opening, "check_forward": False}
            network = open_network(source, self.layer, **opening)
            other = self.stack.enter_context(Explainer(network, labels=explainer.labels))
            self._others[layers] = replace(self.trained, explainer=other)
        return self._others[layers]

    def all_random(self) -> ImageProbe:
        """Return the network in which every layer has random weights."""
        return self.randomised(self.layers)

    def maps_without_weights(self, x: Array, class_index: int) -> Mapping[str, Any]:
        """Return what makes the maps of an image (C, *space) by networks that lost weights, by what metrics need."""
        return {
            "randomised_from_top": partial(self._maps, x, class_index, from_top=True),
            "randomised_alone": partial(self._maps, x, class_index, from_top=False),
        }

    def _maps(self, x: Array, class_index: int, from_top: bool) -> Array:
        layers = self.layers
        ends = np.unique(np.rint(np.linspace(1, len(layers), min(MOST_STEPS, len(layers)))).astype(int)).tolist()
        chosen = [layers[:end] if from_top else layers[end - 1 : end] for end in ends]
        return np.concatenate([self.randomised(each).maps(x[None], np.array([class_index])) for each in chosen])
