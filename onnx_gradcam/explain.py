"""The use case: a deployed model and a photo in, an explanation out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam import inputs
from onnx_gradcam.batches import batch_size, run_in_pieces
from onnx_gradcam.cam import heatmap as maps
from onnx_gradcam.cam.methods import NEEDS_GRADIENT, check_method, compute_cam
from onnx_gradcam.errors import ForwardMismatch, LayerError, MethodError
from onnx_gradcam.explanation import Explanation, LayerResult
from onnx_gradcam.forward import differences, own_difference
from onnx_gradcam.gradient import (
    CLASS,
    INDEX,
    OWN,
    SCORE,
    Cut,
    GradientGraph,
    differentiate,
    forward_only,
    has_rows,
    split,
)
from onnx_gradcam.graph import layers as layer_choice
from onnx_gradcam.graph.layers import Layer, at_size
from onnx_gradcam.graph.load import ModelLike, load
from onnx_gradcam.graph.prepare import prepare
from onnx_gradcam.graph.quantization import is_quantized
from onnx_gradcam.graph.score import find_score
from onnx_gradcam.graph.tokens import Grid
from onnx_gradcam.image import decode
from onnx_gradcam.image import preprocess as to_tensor
from onnx_gradcam.labels import LabelsLike, find_labels
from onnx_gradcam.preprocess import Choice, Preprocess, choose
from onnx_gradcam.runtime import Options, Session
from onnx_gradcam.scaling import run_scaled
from onnx_gradcam.scores import by_class, probabilities
from onnx_gradcam.targets import TOP1, Target, TopK, resolve

IN_PADDING = 0.9  # a photo's map below this share of the whole map's maximum has its maximum outside the photo


class Explainer:
    """Explains one model; sessions are opened when first needed and kept warm.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        target_layer: value or node name(s); several are fused. "auto": the end of the last convolutional stage, or the
            input of the last block of tokens.
        score: name of the score tensor. "auto": the classifier output, before its softmax or sigmoid.
        providers: execution providers by short or full name, in order. None: CUDA if it initialises, else CPU.
        labels: class names by index, a file of them, or "imagenet"; None: the model's own metadata, else ImageNet's for
            1000 classes, which is a guess and a warning.
        check_forward: compare outputs with the untouched model on the first run.
        session_options: an ``onnxruntime.SessionOptions``. provider_options: by provider name.
        custom_ops: shared libraries with custom operators.
        grid: how the tokens of the target layer lie in the image: "14x14" for 14 rows of 14, the last of all tokens, or
            "14x14+1" for those behind the first. None: it is found by following the graph.
        image_input: the input that is explained. None: the first with the most axes.

    Raises:
        ModelError, ScoreError, LayerError; ProviderError when a session is opened.
    """

    def __init__(
        self,
        model: ModelLike,
        target_layer: str | Sequence[str] = "auto",
        score: str = "auto",
        providers: Sequence[str] | None = None,
        labels: LabelsLike = None,
        check_forward: bool = True,
        session_options: Any = None,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
        custom_ops: Sequence[str] = (),
        grid: str | None = None,
        image_input: str | None = None,
    ) -> None:
        self.source = load(model)
        self._prepared = prepare(self.source.model)
        graph = self._prepared.graph
        self.score = find_score(graph, score)
        names = [target_layer] if isinstance(target_layer, str) else list(target_layer)
        if not names:
            raise LayerError("no target layer was named", hint='target_layer="auto", or one or several value names')
        self.grid = None if grid is None else Grid.parse(grid)
        self._automatic = names == ["auto"]
        self.inputs = inputs.specs(graph)
        self.image_input = inputs.image_input(self.inputs, image_input)
        self._alike = [] if image_input else inputs.image_like(self.inputs)
        self.layers = layer_choice.choose(
            graph, self.score.value, names, self.grid, self.image_input.name, self.score.dense
        )
        self._placed, self._sizes = self.layers, dict[str, tuple[int, ...]]()
        self.metadata = dict(self.source.model.metadata_props)
        found = find_labels(labels, self.metadata, self.score.count, self.score.kind)
        self.labels, self.labels_source = found.names, found.source
        self._batch = batch_size(graph, self.image_input.name)
        self._unchecked = check_forward
        self._gradient_scale: float | None = None
        self._apart: float | None = None  # how far the gradient graph's outputs are from the deployed model's
        self.check_forward = check_forward
        providers = None if providers is None else tuple(providers)
        self.options = Options(providers, provider_options, session_options, tuple(custom_ops))

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        for name in ("_whole_session", "_halves", "_plain", "_deployed"):
            self.__dict__.pop(name, None)

    def warm_up(self) -> None:
        """Differentiate the model and open its session now; otherwise the first ``explain`` does.

        Raises ``UnsupportedGradient``, ``NoGradientPath``, ``ProviderError``, ``ModelError``.
        """
        _ = self._whole_session

    @property
    def _by_level(self) -> bool:
        """Whether there is one layer for each level of a detector, of which the cell's own is drawn."""
        levels = () if self.score.dense is None else self.score.dense.levels
        return self._automatic and len(self.layers) == len(levels)

    @property
    def target_layers(self) -> tuple[str, ...]:
        """The names of the target layers."""
        return tuple(layer.name for layer in self.layers)

    # --- sessions -------------------------------------------------------------------------------------------

    @cached_property
    def _whole(self) -> GradientGraph:
        return differentiate(self._prepared, self.score, list(dict.fromkeys(self.target_layers)))

    @cached_property
    def _whole_session(self) -> Session:
        return Session(self._whole.model, self.options)

    @cached_property
    def _cut(self) -> Cut | None:
        """The forward and the backward half, or None where what passes between them is not cut image by image."""
        found = split(self._whole)
        return found if has_rows(found, self.image_input.name) else None

    @cached_property
    def _halves(self) -> tuple[Session, Session, tuple[str, ...]]:
        assert self._cut is not None
        return Session(self._cut.forward, self.options), Session(self._cut.backward, self.options), self._cut.boundary

    @cached_property
    def _plain(self) -> Session:
        return Session(forward_only(self._prepared, self._forward_names), self.options)

    @cached_property
    def _deployed(self) -> Session:
        names = [*self._output_names, *self.score.results]
        return Session(forward_only(self._prepared, names), self.options)

    @property
    def _output_names(self) -> list[str]:
        return [v.name or "" for v in self._prepared.graph.outputs]

    @property
    def _forward_names(self) -> list[str]:
        return list(dict.fromkeys([*self._output_names, *self.score.results, *self.target_layers]))

    # --- explaining -----------------------------------------------------------------------------------------

    def explain(
        self,
        x: Any,
        target: Target = None,
        method: str = "gradcam",
        *,
        counterfactual: bool = False,
        signed: bool = False,
        fusion: str = "mean",
    ) -> Explanation:
        """Explain ``x``, an array (N, …) in the model's own input form, or {input name: array}.

        ``target``: None (top-1), a class index, a label, a list with one of these per image, ``TopK(k)``, or
        ``Classes([...])`` for every image. ``method``: see ``docs/methods.md``. ``counterfactual``: the method applied
        to (A, −G). ``signed``: without the final ReLU. ``fusion``: of several layers, "mean", "max" or "product".

        Raises:
            InputError, TargetError, MethodError, ForwardMismatch, UnsupportedGradient, NoGradientPath, ProviderError.
        """
        check_method(method, counterfactual=counterfactual, signed=signed)
        if method == "cam":
            self._require_linear_head()
        feeds = inputs.feeds(x, self.inputs)
        count = len(feeds[self.image_input.name])
        wanted = resolve(target, count, self.score.count, self.labels)
        results, rows, gradients = self._evaluate(feeds, wanted, method in NEEDS_GRADIENT)
        found = [
            self._layer_result(layer, results, rows, gradients, method, counterfactual=counterfactual, signed=signed)
            for layer in self._layers_at(feeds)
        ]
        size = self._input_size(feeds, found[0].cam.ndim - 1)
        image_index = np.array([image for image, _ in rows], np.int64)
        class_index = np.array([index for _, index in rows], np.int64)
        drawn = self._heatmap(found, size, fusion, self._beside("level", results, image_index, class_index))
        scores = self._scores(results)
        blank = maps.is_blank(drawn)
        variant = " counterfactual" * counterfactual + " signed" * signed
        explanation = Explanation(
            method=method + variant,
            image_index=image_index,
            class_index=class_index,
            score=scores[image_index, class_index],
            probability=self._probabilities(results)[image_index, class_index],
            cell=self._beside("cell", results, image_index, class_index),
            is_blank=blank,
            heatmap=drawn,
            seen=np.tile([0, 0, size[-1], size[-2] if len(size) > 1 else 1], (len(rows), 1)),
            layers=tuple(found),
            score_name=self.score.name,
            score_activation=self.score.activation,
            outputs={name: results[name] for name in self._output_names},
            labels=self.labels,
            pictures=inputs.pictures(feeds[self.image_input.name], self.image_input),
            warnings=tuple(self._warnings(blank, scores)),
            provenance=self._provenance(method, counterfactual, signed, fusion),
        )
        return explanation

    def explain_image(
        self,
        image: Any,
        target: Target = None,
        method: str = "gradcam",
        *,
        preprocess: str | os.PathLike[str] | Mapping[str, object] | Preprocess = "auto",
        inputs: Mapping[str, Any] | None = None,
        counterfactual: bool = False,
        signed: bool = False,
        fusion: str = "mean",
    ) -> Explanation:
        """Explain a photo: a path, bytes, a PIL image, or uint8 RGB (H, W, 3).

        ``preprocess``: "auto", a preset name, the path or content of a JSON form. ``inputs``: arrays for the model's
        other inputs. The heatmap is in the photo's pixels. Other arguments and errors as in ``explain``, and
        ``InputError`` and ``PreprocessError`` for photos and settings that cannot be used.
        """
        photo = decode(image)
        choice = self.preprocessing(preprocess)
        x, geometry = to_tensor(photo, choice.preprocess)
        feeds: Any = {self.image_input.name: x, **(inputs or {})}
        result = self.explain(feeds, target, method, counterfactual=counterfactual, signed=signed, fusion=fusion)
        drawn = np.stack([geometry.to_photo(row) for row in result.heatmap])
        outside = np.abs(drawn).max(axis=(1, 2)) < IN_PADDING
        warnings = [*choice.warnings, *result.warnings]
        if (outside & ~result.is_blank).any():
            warnings.append("the strongest evidence lies in the padding around the photo, which the model saw too")
        return replace(
            result,
            heatmap=drawn,
            seen=np.tile(np.array(geometry.seen, np.int64), (len(result), 1)),
            pictures=(lambda: photo,),
            warnings=tuple(warnings),
            provenance={**result.provenance, "preprocess": choice},
        )

    def preprocessing(self, request: str | os.PathLike[str] | Mapping[str, object] | Preprocess = "auto") -> Choice:
        """The preprocessing for this model's image input, with the source of each choice."""
        return choose(request, self.image_input, metadata=self.metadata, model_path=self.source.path)

    # --- steps ----------------------------------------------------------------------------------------------

    def _evaluate(
        self, feeds: dict[str, np.ndarray], wanted: list[tuple[int, ...]] | TopK, needs_gradient: bool
    ) -> tuple[dict[str, Any], list[tuple[int, int]], dict[str, np.ndarray] | None]:
        """Forward results (one entry per image), the rows as (image, class), and gradients by layer (one per row)."""
        if self._apart is not None and isinstance(wanted, list):
            chosen = self._rows(wanted, self._deployed_results(feeds))
            wanted = [tuple(c for i, c in chosen if i == image) for image in range(len(wanted))]
        if not needs_gradient:
            results = self._run(self._plain, self._forward_names, feeds)
            return results, self._rows(wanted, results), None
        if isinstance(wanted, list) and all(len(w) == 1 for w in wanted):
            index = np.array([w[0] for w in wanted], np.int64)
            names = [*self._forward_names, SCORE, CLASS, *self._whole.gradients]
            results = self._scaled(lambda fed: self._run(self._whole_session, names, fed), {**feeds, INDEX: index})
            rows = [(i, int(c)) for i, c in enumerate(results[CLASS])]
            return results, rows, {n: results[n] for n in self._whole.gradients}
        if self._cut is None:
            first, second, passed = self._plain, self._whole_session, tuple(feeds)
            results = {**self._run(first, self._forward_names, feeds), **feeds}
        else:
            first, second, passed = self._halves
            results = self._run(first, list(dict.fromkeys([*self._forward_names, *passed])), feeds)
        rows = self._rows(wanted, results)
        images = np.array([i for i, _ in rows])
        again = {name: _take(results[name], images, len(feeds[self.image_input.name])) for name in passed}
        again[INDEX] = np.array([c for _, c in rows], np.int64)
        names = list(self._whole.gradients)
        gradients = self._scaled(lambda fed: run_in_pieces(second.run, names, fed, self._batch), again)
        return results, rows, gradients

    def _scaled(
        self, run: Callable[[dict[str, np.ndarray]], dict[str, Any]], feeds: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """``run(feeds)``, with the gradients of a 16-bit model scaled on their way."""
        if not self._whole.is_scaled:
            return run(feeds)
        results, self._gradient_scale = run_scaled(run, self._whole.gradients, feeds)
        return results

    def _run(self, session: Session, names: Sequence[str], feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        results = run_in_pieces(session.run, names, feeds, self._batch)
        given = {k: v for k, v in feeds.items() if k not in OWN}
        if self._unchecked:
            self._compare_forward(results, given)
            self._unchecked = False
        return results if self._apart is None else {**results, **self._deployed_results(given)}

    def _deployed_results(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """Outputs and score of the model in which nothing else is exposed."""
        return run_in_pieces(self._deployed.run, self._deployed.outputs, feeds, self._batch)

    def _compare_forward(self, results: dict[str, Any], feeds: dict[str, np.ndarray]) -> None:
        """Once: the outputs against the untouched model.

        Exposing values of a quantized model can take kernels apart, which round otherwise. What the runtime's own
        optimisations do to such a model is accepted: outputs and prediction are then taken from the model as deployed.
        """
        found = {name: results[name] for name in self._output_names}
        apart = [d for d in differences(self.source, self.options, found, feeds, self._batch) if not d.ok]
        if not apart:
            return
        worst = max(apart, key=lambda d: d.error)
        allowed = worst.limit
        if is_quantized(self._prepared.graph):
            allowed += own_difference(self.source, self.options, feeds, self._batch)
            same = np.array_equal(*(self._ranking(r).argmax(axis=1) for r in (results, self._deployed_results(feeds))))
            if same and worst.error <= allowed:
                self._apart = worst.error
                return
        raise ForwardMismatch(
            f"output {worst.output!r} differs from the deployed model's by {worst.error:.2g} of its largest value",
            where=f"allowed: {allowed:.2g} and the same prediction, on the first input explained",
            hint="please report the model; check_forward=False goes on at your own risk",
            output=worst.output,
            error=worst.error,
        )

    def _rows(self, wanted: list[tuple[int, ...]] | TopK, results: dict[str, Any]) -> list[tuple[int, int]]:
        ranking = self._ranking(results)
        if isinstance(wanted, TopK):
            order = np.argsort(-ranking, axis=1, kind="stable")[:, : wanted.k]
            return [(i, int(c)) for i, row in enumerate(order) for c in row]
        best = ranking.argmax(axis=1)
        return [(i, int(best[i]) if c == TOP1 else c) for i, w in enumerate(wanted) for c in w]

    def _scores(self, results: dict[str, Any]) -> npt.NDArray[Any]:
        return by_class(self.score, results[self.score.value.name or ""])

    def _ranking(self, results: dict[str, Any]) -> npt.NDArray[Any]:
        """(N, K), by which classes are ranked."""
        dense = self.score.dense
        found: npt.NDArray[Any] = self._scores(results) if dense is None else results[dense.ranking.name or ""]
        return found

    def _probabilities(self, results: dict[str, Any]) -> npt.NDArray[Any]:
        dense = self.score.dense
        if dense is None:
            return probabilities(self.score, self._scores(results))
        found: npt.NDArray[Any] = results[dense.probability.name or ""].astype(np.float32)
        return found

    def _beside(
        self, name: str, results: dict[str, Any], images: np.ndarray, classes: np.ndarray
    ) -> npt.NDArray[Any] | None:
        """What goes with a dense score, row by row."""
        if self.score.dense is None:
            return None
        found: npt.NDArray[Any] = results[getattr(self.score.dense, name).name][images, classes]
        return found

    def _layers_at(self, feeds: Mapping[str, np.ndarray]) -> list[Layer]:
        """The target layers, with the tokens where they lie in inputs of these sizes."""
        sizes = {name: (self.inputs[name].shape[0] or 2, *x.shape[1:]) if x.ndim else () for name, x in feeds.items()}
        if sizes != self._sizes:
            self._placed = [at_size(self._prepared.graph, layer, sizes) for layer in self.layers]
            self._sizes = sizes
        return self._placed

    def _layer_result(
        self,
        layer: Layer,
        results: dict[str, Any],
        rows: list[tuple[int, int]],
        gradients: dict[str, np.ndarray] | None,
        method: str,
        *,
        counterfactual: bool,
        signed: bool,
    ) -> LayerResult:
        images = np.array([image for image, _ in rows])
        activation = layer.arrange(results[layer.name])
        if len(images) != len(activation) or not np.array_equal(images, np.arange(len(images))):
            activation = activation[images]
        gradient = None if gradients is None else layer.arrange(gradients[f"grad/{layer.name}"])
        weights, cam = compute_cam(method, activation, gradient, counterfactual=counterfactual, signed=signed)
        return LayerResult(layer.name, activation, gradient, weights, np.asarray(cam))

    def _input_size(self, feeds: Mapping[str, np.ndarray], count: int) -> tuple[int, ...]:
        axes = inputs.spatial_axes(self.image_input, count)
        return tuple(feeds[self.image_input.name].shape[k] for k in axes)

    def _heatmap(
        self, found: Sequence[LayerResult], size: Sequence[int], fusion: str, level: npt.NDArray[Any] | None
    ) -> np.ndarray:
        if len(found) == 1:
            return maps.normalise(maps.upsample(found[0].cam, size))
        if level is not None and self._by_level:
            drawn = np.stack([maps.upsample(found[k].cam[r : r + 1], size)[0] for r, k in enumerate(level)])
            return maps.normalise(drawn)
        return maps.normalise(maps.fuse([layer.cam for layer in found], size, fusion))

    def _require_linear_head(self) -> None:
        for layer in self.layers:
            if not layer_choice.has_linear_head(list(self._prepared.graph), layer.value, self.score.value):
                raise MethodError(
                    "method 'cam' is for networks that end in global average pooling and one linear layer",
                    where=f"between {layer.name!r} and {self.score.value.name!r} there is more",
                    hint="'gradcam', which needs no such head, or the layer that feeds the pooling",
                    method="cam",
                )

    def _warnings(self, blank: np.ndarray, scores: np.ndarray) -> list[str]:
        found = []
        tied = (np.sum(scores == scores.max(axis=1, keepdims=True), axis=1) > 1).sum()
        if tied and is_quantized(self._prepared.graph):
            found.append(
                f"{tied} of {len(scores)} images have several classes with the highest score: quantization cannot tell "
                "these apart, and the first was taken for top-1"
            )
        if len(self._alike) > 1:
            found.append(
                f"each of the inputs {', '.join(self._alike)} could be the image: {self.image_input.name!r} is "
                "explained, another with --image-input NAME"
            )
        if self._apart is not None:
            found.append(
                f"exposing values changed the outputs by up to {self._apart:.2g} of the largest, as the runtime's own "
                "optimisations do; outputs and prediction are the deployed model's"
            )
        if self.labels_source.startswith("guessed"):
            found.append(f"the labels are {self.labels_source}; settle it with --labels FILE")
        if blank.any():
            found.append(
                f"{int(blank.sum())} of {len(blank)} maps are blank: no channel combination speaks for that class "
                f"at {', '.join(self.target_layers)}; try counterfactual or signed maps, or another layer"
            )
        return found

    def _provenance(self, method: str, counterfactual: bool, signed: bool, fusion: str) -> dict[str, Any]:
        return {
            "source": self.source,
            "providers": self._session_providers(),
            "score": self.score.name,
            "score_activation": self.score.activation,
            "labels": self.labels_source,
            "layers": list(self.target_layers),
            "layer_reasons": [layer.reason for layer in self.layers],
            "method": method,
            "counterfactual": counterfactual,
            "signed": signed,
            "fusion": None if len(self.layers) == 1 else "the level of the cell" if self._by_level else fusion,
            "check_forward": self.check_forward,
            "gradient_scale": self._gradient_scale if method in NEEDS_GRADIENT else None,
        }

    def _session_providers(self) -> list[str]:
        for name in ("_whole_session", "_plain"):
            if name in self.__dict__:
                return list(self.__dict__[name].providers)
        return list(self._halves[0].providers)


def _take(array: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """The rows of an array with one row per image; an input without a batch axis is the same for all."""
    return array[rows] if array.ndim and len(array) == count else array
