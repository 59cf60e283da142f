"""The use case: a deployed model and a photo in, an explanation out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam import inputs, notes
from onnx_gradcam.cam.heatmap import is_blank
from onnx_gradcam.cam.methods import NEEDS_GRADIENT, check_method
from onnx_gradcam.drawing import Drawing
from onnx_gradcam.errors import LayerError, MethodError
from onnx_gradcam.evaluation import Evaluation
from onnx_gradcam.explanation import Explanation
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
from onnx_gradcam.layer_maps import layer_result
from onnx_gradcam.preprocess import Choice, Preprocess, choose
from onnx_gradcam.recipe import Recipe
from onnx_gradcam.runtime import Options
from onnx_gradcam.scores import by_class, probabilities
from onnx_gradcam.targets import Target, resolve

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
        self.check_forward = check_forward
        providers = None if providers is None else tuple(providers)
        self.options = Options(providers, provider_options, session_options, tuple(custom_ops))
        self._runs = Evaluation(
            self.source,
            self._prepared,
            self.score,
            self.target_layers,
            self.image_input.name,
            self.options,
            check_forward,
        )

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        self._runs.close()

    def warm_up(self) -> None:
        """Differentiate the model and open its session now; otherwise the first ``explain`` does.

        Raises ``UnsupportedGradient``, ``NoGradientPath``, ``ProviderError``, ``ModelError``.
        """
        _ = self._runs.whole_session

    @property
    def _by_level(self) -> bool:
        """Whether there is one layer for each level of a detector, of which the cell's own is drawn."""
        levels = () if self.score.dense is None else self.score.dense.levels
        return self._automatic and len(self.layers) == len(levels)

    @property
    def target_layers(self) -> tuple[str, ...]:
        """The names of the target layers."""
        return tuple(layer.name for layer in self.layers)

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
        recipe = Recipe(method, counterfactual, signed, fusion)
        check_method(method, counterfactual=counterfactual, signed=signed)
        if method == "cam":
            self._require_linear_head()
        feeds = inputs.feeds(x, self.inputs)
        count = len(feeds[self.image_input.name])
        wanted = resolve(target, count, self.score.count, self.labels)
        results, rows, gradients = self._runs.evaluate(feeds, wanted, method in NEEDS_GRADIENT)
        found = [layer_result(layer, results, rows, gradients, recipe) for layer in self._layers_at(feeds)]
        size = self._input_size(feeds, found[0].cam.ndim - 1)
        image_index = np.array([image for image, _ in rows], np.int64)
        class_index = np.array([index for _, index in rows], np.int64)
        level = self._beside("level", results, image_index, class_index) if self._by_level else None
        drawing = Drawing(size, fusion, level)
        [drawn], scale = drawing.heatmaps([layer.cam for layer in found])
        scores = by_class(self.score, results[self.score.value.name or ""])
        blank = is_blank(drawn)
        return Explanation(
            method=recipe.name,
            image_index=image_index,
            class_index=class_index,
            score=scores[image_index, class_index],
            probability=self._probabilities(results, scores)[image_index, class_index],
            cell=self._beside("cell", results, image_index, class_index),
            is_blank=blank,
            heatmap=drawn,
            scale=scale,
            drawing=drawing,
            seen=np.tile([0, 0, size[-1], size[-2] if len(size) > 1 else 1], (len(rows), 1)),
            layers=tuple(found),
            score_name=self.score.name,
            score_activation=self.score.activation,
            outputs={name: results[name] for name in self._runs.output_names},
            labels=self.labels,
            signed=recipe.signed,
            pictures=inputs.pictures(feeds[self.image_input.name], self.image_input),
            warnings=(*self._warnings(scores), *notes.blank(blank, found, recipe.name)),
            provenance=self._provenance(recipe),
        )

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
            drawing=result.drawing and replace(result.drawing, to_photo=geometry.to_photo),
            seen=np.tile(np.array(geometry.seen, np.int64), (len(result), 1)),
            pictures=(lambda: photo,),
            warnings=tuple(warnings),
            provenance={**result.provenance, "preprocess": choice},
        )

    def preprocessing(self, request: str | os.PathLike[str] | Mapping[str, object] | Preprocess = "auto") -> Choice:
        """The preprocessing for this model's image input, with the source of each choice."""
        return choose(request, self.image_input, metadata=self.metadata, model_path=self.source.path)

    # --- steps ----------------------------------------------------------------------------------------------

    def _probabilities(self, results: dict[str, Any], scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        dense = self.score.dense
        if dense is None:
            return probabilities(self.score, scores)
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

    def _input_size(self, feeds: Mapping[str, np.ndarray], count: int) -> tuple[int, ...]:
        axes = inputs.spatial_axes(self.image_input, count)
        return tuple(feeds[self.image_input.name].shape[k] for k in axes)

    def _require_linear_head(self) -> None:
        for layer in self.layers:
            if not layer_choice.has_linear_head(list(self._prepared.graph), layer.value, self.score.value):
                raise MethodError(
                    "method 'cam' is for networks that end in global average pooling and one linear layer",
                    where=f"between {layer.name!r} and {self.score.value.name!r} there is more",
                    hint="'gradcam', which needs no such head, or the layer that feeds the pooling",
                    method="cam",
                )

    def _warnings(self, scores: np.ndarray) -> list[str]:
        return [
            *(notes.tied(scores) if is_quantized(self._prepared.graph) else []),
            *notes.alike(self._alike, self.image_input.name),
            *notes.apart(self._runs.apart),
            *notes.guessed_labels(self.labels_source),
        ]

    def _provenance(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "source": self.source,
            "providers": self._runs.providers,
            "score": self.score.name,
            "score_activation": self.score.activation,
            "labels": self.labels_source,
            "layers": list(self.target_layers),
            "layer_reasons": [layer.reason for layer in self.layers],
            "method": recipe.method,
            "counterfactual": recipe.counterfactual,
            "signed": recipe.signed,
            "fusion": None if len(self.layers) == 1 else "the level of the cell" if self._by_level else recipe.fusion,
            "check_forward": self.check_forward,
            "gradient_scale": self._runs.gradient_scale if recipe.method in NEEDS_GRADIENT else None,
        }
