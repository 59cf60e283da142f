"""The opened model: its score, its inputs, its layers, and the sessions that run it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Unpack

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy import layers as layer_choice
from onnx_gradcam.anatomy.attention import AttentionMaps, attention_maps
from onnx_gradcam.anatomy.biases import Bias, biases
from onnx_gradcam.anatomy.dense.mixing import last_kernel
from onnx_gradcam.anatomy.dense.rounding import lost_probabilities
from onnx_gradcam.anatomy.dense.tensors import sources
from onnx_gradcam.anatomy.grids import grids
from onnx_gradcam.anatomy.layer import Layer, Verdict
from onnx_gradcam.anatomy.layers import at_size
from onnx_gradcam.anatomy.linear_head import has_linear_head, is_flattened
from onnx_gradcam.anatomy.paths import upstream_of_any
from onnx_gradcam.anatomy.score import Score, choose_head, find_heads, find_score
from onnx_gradcam.anatomy.tokens import TokenGrid
from onnx_gradcam.autodiff.relevance.settings import RelevanceSettings
from onnx_gradcam.engine.evaluation import Evaluation
from onnx_gradcam.engine.passes import Backward
from onnx_gradcam.engine.session import Options, Session, versions
from onnx_gradcam.errors import InputError, LayerError, ScoreError
from onnx_gradcam.explain.backward_passes import backward_pass
from onnx_gradcam.explain.inputs import input_specs
from onnx_gradcam.explain.opening import Opening, options_of, spelled_out
from onnx_gradcam.graph.flow import FirstFloat, beginnings, downstream, first_float, is_float, upstream
from onnx_gradcam.graph.load import ModelLike, Source, load
from onnx_gradcam.graph.lowering.spelled import spell_out
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.graph.quantization import is_quantized
from onnx_gradcam.graph.unknown import refuse_unknown, unknown_before
from onnx_gradcam.photos import inputs
from onnx_gradcam.photos.preprocess.choice import InputSpec, labels_from
from onnx_gradcam.targets import WrittenScore, write_score


@spelled_out
def open_network(
    model: ModelLike | Source | Network, target_layer: str | Sequence[str] = "auto", **opening: Unpack[Opening]
) -> Network:
    """Open a model, or return the network itself where it is open already.

    Args:
        model: path, bytes, ``onnx.ModelProto``, a loaded ``Source``, or a ``Network``.
        target_layer: value or node name(s), or module paths where the exporter left these ("layer4.2"); several are
            fused. "auto": the end of the last convolutional stage, or the input of the last block of tokens.
        **opening: see ``Opening``. A ``Network`` has its own layer and options, and takes no others here.

    Raises:
        ModelError: the model cannot be read.
        InputError: there is no such input, or a ``Network`` comes with options.
        LayerError: a named layer does not exist.
    """
    if isinstance(model, Network):
        changed = [*(["target_layer"] if target_layer != "auto" else []), *opening]
        if changed:
            raise InputError(
                f"the network is open already: {', '.join(changed)} cannot be changed",
                hint="open another Network with these options",
                options=tuple(changed),
            )
        return model
    return Network(
        model,
        target_layer,
        opening.get("score", "auto"),
        opening.get("head", "auto"),
        opening.get("grid"),
        opening.get("image_input"),
        options_of(opening),
    )


class Network:
    """An opened model: prepared, with its score, its image input and its target layers.

    ``Explainer``, ``verify``, ``layers`` and ``compare`` all take a network, so that a model is opened only once.
    Sessions are opened when first needed and kept open. What a network tells about its model does not depend on an
    image.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> network = ogc.Network(files("onnx_gradcam.models") / "shapes-resnet.onnx")
    >>> network.layer_names
    ('relu_6',)

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        layer: value or node name(s), module paths, or "auto".
        score: see ``Opening``.
        head: see ``Opening``.
        grid: see ``Opening``.
        image_input: see ``Opening``.
        options: how sessions are opened.

    Raises:
        ModelError: the file or its graph cannot be used.
        InputError: there is no such ``image_input``.
        LayerError: a named layer does not exist, or the list of layers is empty.
    """

    def __init__(
        self,
        model: ModelLike | Source,
        layer: str | Sequence[str] = "auto",
        score: str | Sequence[str] = "auto",
        head: str = "auto",
        grid: str | None = None,
        image_input: str | None = None,
        options: Options = Options(),  # noqa: B008 (frozen)
    ) -> None:
        self.source = load(model)
        self.prepared = prepare(self.source.model)
        self.options = options
        self.layer_request = [layer] if isinstance(layer, str) else list(layer)
        if not self.layer_request:
            raise LayerError("no target layer was named", hint='target_layer="auto", or one or several value names')
        self.grid = None if grid is None else TokenGrid.parse(grid)
        self.inputs = input_specs(self.prepared.graph)
        self.image_input: InputSpec = inputs.image_input(self.inputs, image_input)
        self.alike = [] if image_input else inputs.image_candidates(self.inputs)
        self.branch = "logits"
        self.score_request, self.head_request = score, head
        self._branches: dict[str, Network] = {}
        self._evaluations: dict[tuple[tuple[str, ...], str | RelevanceSettings], Evaluation] = {}
        self._placed: list[Layer] = []
        self._sizes: dict[str, tuple[int, ...]] | None = None
        self._attention: tuple[dict[str, tuple[int, ...]], AttentionMaps] | None = None
        if not self.is_automatic:
            with suppress(ScoreError):  # the first run may yet show what holds the score
                _ = self.layers

    def __repr__(self) -> str:
        return f"Network({self.source.name!r})"

    @property
    def is_automatic(self) -> bool:
        """Return whether the target layers are chosen automatically, and not named by the user."""
        return self.layer_request == ["auto"]

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata properties of the model file."""
        return dict(self.source.model.metadata_props)

    @cached_property
    def sha256(self) -> str:
        """Return the sha256 of the model file, or of the model's bytes, as hex digits."""
        return self.source.sha256

    @cached_property
    def versions(self) -> dict[str, str]:
        """Return the versions of the tool, onnx, NumPy and the runtime, looked up once: that takes milliseconds."""
        return versions()

    @cached_property
    def score(self) -> Score:
        """Return the score that is explained. Raises ``ScoreError`` where the model has none."""
        if self.score_request != "auto":
            return find_score(self.prepared.graph, self.score_request)
        return choose_head(self.prepared.graph, self.heads, self.head_request)

    @cached_property
    def heads(self) -> tuple[Score, ...]:
        """Return the scores of all heads of the model; the first is explained where none is named."""
        return find_heads(self.prepared.graph, len(labels_from(self.metadata) or ()))

    @property
    def choice_of_head(self) -> tuple[str, tuple[str, ...]]:
        """Return the output that is explained, and those of other heads, where nobody chose; else no others."""
        if (self.score_request, self.head_request) != ("auto", "auto"):
            return self.score.output, ()
        return self.score.output, tuple(score.output for score in self.heads[1:])

    @cached_property
    def lost_probabilities(self) -> dict[str, float]:
        """Return the outputs in which the deployed model rounds every probability to 0, each with its step."""
        dense = self.score.dense
        return {} if dense is None else lost_probabilities(self.prepared.graph, dense)

    @cached_property
    def _written(self) -> tuple[ir.Model, WrittenScore]:
        refuse_unknown(unknown_before(self.prepared.graph, self.score.sinks), self.score.value)
        return write_score(self.prepared, self.score)

    @property
    def scored_model(self) -> ir.Model:
        """Return the prepared model with the tensors of its score in it. Raises ``ScoreError``."""
        return self._written[0]

    @property
    def written_score(self) -> WrittenScore:
        """Return the score with its tensors in ``scored_model``. Raises ``ScoreError``."""
        return self._written[1]

    @cached_property
    def layers(self) -> list[Layer]:
        """Return the target layers; those of "auto" are found on first use, since methods of the input need none.

        Raises ``ScoreError``, ``LayerError``.
        """
        score, image = self.score, self.image_input.name
        return layer_choice.choose(self.prepared.graph, score, self.layer_request, self.grid, image, self.branch)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return the names of the target layers."""
        return tuple(layer.name for layer in self.layers)

    def on_branch(self, branch: str) -> Network:
        """Return the network with the layers of another branch of a detector, unless layers were named.

        The values that boxes are made of may have nothing to do with the class scores (``DenseScores.branch``).
        """
        if branch == self.branch or not self.is_automatic or self.score.dense is None:
            return self
        if branch not in self._branches:
            self._branches[branch] = self._copy_for(branch)
        return self._branches[branch]

    def _copy_for(self, branch: str) -> Network:
        other = copy.copy(self)
        other.branch = branch
        for name in ("layers", "has_linear_head", "is_flattened", "last_kernels"):
            other.__dict__.pop(name, None)
        other._sizes = None
        return other

    def evaluation(self, names: tuple[str, ...], backward: str | RelevanceSettings = "gradient") -> Evaluation:
        """Return the evaluation of the values ``names``, with a ``backward_pass`` from the score to them."""
        return self.kept((names, backward), lambda: self.new_evaluation(names, backward_pass(backward)))

    def kept(self, key: tuple[tuple[str, ...], str | RelevanceSettings], make: Callable[[], Evaluation]) -> Evaluation:
        """Return the evaluation of this key; it is made when first asked for, and ``close`` frees its sessions."""
        if key not in self._evaluations:
            self._evaluations[key] = make()
        return self._evaluations[key]

    def new_evaluation(self, names: tuple[str, ...], backward: Backward, model: ir.Model | None = None) -> Evaluation:
        """Return a new evaluation of the values ``names`` in ``model``, another form of ``scored_model``, or that."""
        model = model or self.scored_model
        axes = {layer.name: layer.axes[0] for layer in self.__dict__.get("layers", ())}
        score = self.written_score.on(values_by_name(model.graph))
        return Evaluation(self.source, model, score, names, self.image_input.name, self.options, backward, axes)

    @cached_property
    def untouched(self) -> Session:
        """Return a session of the deployed model as it is."""
        return Session(self.source.deployed, self.options)

    @property
    def at_layers(self) -> Evaluation:
        """Return the evaluation of the target layers and their gradients."""
        return self.evaluation(self.layer_names)

    def close(self) -> None:
        """Free the sessions; the next evaluation opens them again."""
        self.__dict__.pop("untouched", None)
        for evaluation in self._evaluations.values():
            evaluation.close()

    def forget(self) -> None:
        """Forget what was found by the shapes of the prepared model: they have changed."""
        self.close()
        found = (
            "score",
            "heads",
            "_written",
            "layers",
            "has_linear_head",
            "is_flattened",
            "last_kernels",
            "entrance",
            "differentiable_inputs",
            "biases",
            "written_out",
        )
        for name in found:
            self.__dict__.pop(name, None)
        self._branches, self._evaluations, self._sizes, self._attention = {}, {}, None, None

    @property
    def is_by_level(self) -> bool:
        """Return whether each level of a detector has its own layer; then only the level of the cell is drawn."""
        levels = () if self.score.dense is None else self.score.dense.branch(self.branch)
        return self.is_automatic and len(self.layers) == len(levels) and not self.is_summed

    @property
    def has_levels(self) -> bool:
        """Return whether it is a detector of several levels, each with layers of its own that nobody named."""
        levels = () if self.score.dense is None else self.score.dense.branch(self.branch)
        return self.is_automatic and len(levels) > 1 and {layer.level for layer in self.layers} == {*range(len(levels))}

    @property
    def is_summed(self) -> bool:
        """Return whether the layers are the ends of parallel parts, each of which holds a part of the score."""
        return any(layer.verdict is Verdict.PARALLEL for layer in self.layers)

    @cached_property
    def is_quantized(self) -> bool:
        """Return whether the model computes with integers that stand for real numbers."""
        return is_quantized(self.prepared.graph)

    @cached_property
    def has_linear_head(self) -> bool:
        """Return whether global average pooling and one linear layer lead from each target layer to the score."""
        nodes, score = list(self.prepared.graph), self.score
        return score.dense is None and all(has_linear_head(nodes, layer.value, score.value) for layer in self.layers)

    @cached_property
    def is_flattened(self) -> bool:
        """Return whether a classifier has a weight for each channel at each place of a target layer, or behind it."""
        nodes, score = list(self.prepared.graph), self.score
        return score.dense is None and any(is_flattened(nodes, layer.value, score.value) for layer in self.layers)

    @cached_property
    def last_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Return over how many places of each target layer the last kernel before a cell reaches; () without cells."""
        dense, graph = self.score.dense, self.prepared.graph
        if dense is None:
            return ()
        nodes = list(graph)
        of_image = downstream(nodes, beginnings(nodes, [v for v in graph.inputs if v.name == self.image_input.name]))
        levels = [sources(level.origin()) for level in dense.branch(self.branch)]
        return tuple(last_kernel(nodes, levels, of_image, layer) for layer in self.layers)

    @cached_property
    def entrance(self) -> FirstFloat:
        """Return the image input, or the first floating-point value that is computed from it."""
        return first_float(self.scored_model.graph, self.image_input.name, self.written_score.value)

    @cached_property
    def differentiable_inputs(self) -> tuple[str, ...]:
        """Return the names of the floating-point inputs on which the score depends differentiably."""
        graph = self.scored_model.graph
        before = upstream(graph, self.written_score.value)
        return tuple(v.name or "" for v in graph.inputs if is_float(v) and v in before)

    @cached_property
    def biases(self) -> tuple[tuple[Bias, tuple[int, ...] | None], ...]:
        """Return the biases between ``entrance`` and the score.

        Each bias comes with the axes (N, C, *space) of its value, or None where that lies on no grid over the image.
        """
        graph = self.prepared.graph
        nodes = list(graph)
        values = [*graph.inputs, *(v for node in nodes for v in node.outputs)]
        begin = [v for v in values if v.name == self.entrance.name]
        path = downstream(nodes, begin) & upstream_of_any(nodes, self.score.sinks)
        on_grid = grids(nodes)
        return tuple((bias, on_grid.get(bias.value)) for bias in biases(nodes) if bias.value in path)

    def layers_at(self, feeds: Mapping[str, np.ndarray]) -> list[Layer]:
        """Return the target layers, with the places of their tokens in inputs of these sizes."""
        sizes = self._sizes_in(feeds)
        if sizes != self._sizes:
            self._placed = [at_size(self.prepared.graph, layer, sizes) for layer in self.layers]
            self._sizes = sizes
        return self._placed

    @cached_property
    def written_out(self) -> ir.Model:
        """Return ``scored_model`` with fused attention written out as standard operators."""
        return spell_out(self.scored_model)

    def attention_at(self, feeds: Mapping[str, np.ndarray]) -> AttentionMaps:
        """Return the attention maps of a network of tokens for inputs of these sizes. Raises ``LayerError``."""
        sizes = self._sizes_in(feeds)
        if self._attention is None or self._attention[0] != sizes:
            found = attention_maps(self.written_out.graph, self.score.value.name or "", sizes, self.grid)
            self._attention = sizes, found
        return self._attention[1]

    def _sizes_in(self, feeds: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        return {name: (self.inputs[name].shape[0] or 2, *x.shape[1:]) if x.ndim else () for name, x in feeds.items()}
