"""The model that is explained: its score, its input, its layers, and the sessions that evaluate them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy import layers as layer_choice
from onnx_gradcam.anatomy.biases import Bias, biases
from onnx_gradcam.anatomy.dense.scores import Dense
from onnx_gradcam.anatomy.grids import grids
from onnx_gradcam.anatomy.layers import Layer, at_size
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.anatomy.tokens import Grid
from onnx_gradcam.autodiff.rectifiers.gating import DECONVOLUTION, GUIDED
from onnx_gradcam.engine.evaluation import Evaluation
from onnx_gradcam.engine.passes import Backward
from onnx_gradcam.engine.session import Options
from onnx_gradcam.errors import LayerError
from onnx_gradcam.explain.inputs import input_specs
from onnx_gradcam.graph.flow import FirstFloat, downstream, first_float, upstream
from onnx_gradcam.graph.load import ModelLike, load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.graph.quantization import is_quantized
from onnx_gradcam.photos import inputs

Array = npt.NDArray[Any]
BACKWARD: Mapping[str, Backward] = {
    "gradient": Backward(),
    "curvature": Backward(second_order=True),
    "guided": Backward(GUIDED),
    "guided counterfactual": Backward(GUIDED, sign=-1),
    "deconvolution": Backward(DECONVOLUTION),
    "deconvolution counterfactual": Backward(DECONVOLUTION, sign=-1),
}


class Subject:
    """A prepared model with score, image input and target layers; ``Explainer`` says what the arguments mean.

    Evaluations are made when first asked for and kept.

    Raises ``ModelError``, ``ScoreError``, ``LayerError``, ``InputError``.
    """

    def __init__(
        self,
        model: ModelLike,
        target_layer: str | Sequence[str],
        score: str,
        grid: str | None,
        image_input: str | None,
        options: Options,
        check_forward: bool,
    ) -> None:
        self.source = load(model)
        self.prepared = prepare(self.source.model)
        graph = self.prepared.graph
        self.score = find_score(graph, score)
        names = [target_layer] if isinstance(target_layer, str) else list(target_layer)
        if not names:
            raise LayerError("no target layer was named", hint='target_layer="auto", or one or several value names')
        self.grid = None if grid is None else Grid.parse(grid)
        self._automatic = names == ["auto"]
        self.inputs = input_specs(graph)
        self.image_input = inputs.image_input(self.inputs, image_input)
        self.alike = [] if image_input else inputs.image_like(self.inputs)
        self.branch = "logits"
        self._branches: dict[str, Subject] = {}
        self._names = names
        if not self._automatic:
            _ = self.layers
        self._placed: list[Layer] = []
        self._sizes: dict[str, tuple[int, ...]] | None = None
        self.options, self.check_forward = options, check_forward
        self._evaluations: dict[tuple[tuple[str, ...], str], Evaluation] = {}

    def on_branch(self, branch: str) -> Subject:
        """The same model with the layers of another branch of a detector (``Dense.branch``), unless layers were named.

        What the boxes are made of, the class scores may not depend on.
        """
        dense = self.score.dense
        if branch == self.branch or not self._automatic or dense is None:
            return self
        if branch not in self._branches:
            self._branches[branch] = self._on(branch, dense)
        return self._branches[branch]

    def _on(self, branch: str, dense: Dense) -> Subject:
        other = copy.copy(self)
        other.branch = branch
        other.__dict__.pop("layers", None)
        other._sizes = None
        return other

    def close(self) -> None:
        """Free the sessions; the next evaluation opens them again."""
        for evaluation in self._evaluations.values():
            evaluation.close()

    def evaluation(self, names: tuple[str, ...], backward: str = "gradient") -> Evaluation:
        """That of the values ``names``, by what ``BACKWARD`` calls ``backward``."""
        key = names, backward
        if key not in self._evaluations:
            self._evaluations[key] = Evaluation(
                self.source,
                self.prepared,
                self.score,
                names,
                self.image_input.name,
                self.options,
                self.check_forward,
                BACKWARD[backward],
            )
        return self._evaluations[key]

    @cached_property
    def layers(self) -> list[Layer]:
        """The target layers; those of "auto" are found when first asked for: methods of the input do without.

        Raises ``LayerError``.
        """
        score, image = self.score, self.image_input.name
        return layer_choice.choose(
            self.prepared.graph, score.value, self._names, self.grid, image, score.dense, self.branch
        )

    @property
    def at_layers(self) -> Evaluation:
        """That of the target layers."""
        return self.evaluation(self.layer_names)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the target layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def by_level(self) -> bool:
        """Whether there is one layer for each level of a detector, of which the cell's own is drawn."""
        levels = () if self.score.dense is None else self.score.dense.branch(self.branch)
        return self._automatic and len(self.layers) == len(levels)

    @cached_property
    def is_quantized(self) -> bool:
        """Whether the model computes with integers that stand for real numbers."""
        return is_quantized(self.prepared.graph)

    @cached_property
    def entrance(self) -> FirstFloat:
        """The image input, or the first floating-point value that is made of it."""
        return first_float(self.prepared.graph, self.image_input.name, self.score.value)

    @cached_property
    def biases(self) -> tuple[tuple[Bias, tuple[int, ...] | None], ...]:
        """The biases between ``entrance`` and the score, with the axes (N, C, *space) of those on a grid over the
        image."""
        graph = self.prepared.graph
        nodes = list(graph)
        values = [*graph.inputs, *(v for node in nodes for v in node.outputs)]
        begin = [v for v in values if v.name == self.entrance.name]
        path = downstream(nodes, begin) & upstream(nodes, self.score.value)
        on_grid = grids(nodes)
        return tuple((bias, on_grid.get(bias.value)) for bias in biases(nodes) if bias.value in path)

    def layers_at(self, feeds: Mapping[str, np.ndarray]) -> list[Layer]:
        """The target layers, with the tokens where they lie in inputs of these sizes."""
        sizes = {name: (self.inputs[name].shape[0] or 2, *x.shape[1:]) if x.ndim else () for name, x in feeds.items()}
        if sizes != self._sizes:
            self._placed = [at_size(self.prepared.graph, layer, sizes) for layer in self.layers]
            self._sizes = sizes
        return self._placed
