"""The use case: a deployed model and a photo in, an explanation out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine import rows
from onnx_gradcam.engine.scores import by_class
from onnx_gradcam.engine.session import asked, in_tf32, versions
from onnx_gradcam.explain.maps import Maps, ask
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.heatmap import is_blank
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.labels import LabelsLike, find_labels
from onnx_gradcam.photos.preprocess.choice import Choice, Preprocess, choose
from onnx_gradcam.photos.tensor import to_tensor
from onnx_gradcam.results import notes
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture.detail import in_photo
from onnx_gradcam.results.records import Words
from onnx_gradcam.targets import Context, Target, bind_targets, branch, in_input, resolve

IN_PADDING = 0.9  # a map that stays below this share of its maximum within the photo has its evidence beside it


class Explainer:
    """Explains one model; sessions are opened when first needed and kept warm.

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network`` that is open already.
        target_layer: value or node name(s), or module paths where the exporter left these ("layer4.2"); several are
            fused. "auto": the end of the last convolutional stage, or the input of the last block of tokens.
        labels: class names by index, a file of them, or "imagenet"; None: the model's own metadata, else ImageNet's for
            1000 classes, which is a guess and a warning.
        **opening: the keywords of ``Opening``: score, grid, image_input, providers, provider_options, session_options,
            custom_ops, check_forward.

    Raises:
        ModelError: the file or its graph cannot be used.
        ScoreError: no score is found.
        LayerError: a layer that was named does not exist; for "auto", when a method first needs a layer.
        InputError: there is no such input.
        TargetError: the labels cannot be read, or do not fit the score.
        ProviderError: a session cannot be opened, when it is first needed.
    """

    @spelled_out
    def __init__(
        self,
        model: ModelLike | Network,
        target_layer: str | Sequence[str] = "auto",
        *,
        labels: LabelsLike = None,
        **opening: Unpack[Opening],
    ) -> None:
        self.network = open_network(model, target_layer, **opening)
        self.source, self.score = self.network.source, self.network.score
        self.inputs, self.image_input = self.network.inputs, self.network.image_input
        found = find_labels(labels, self.network.metadata, self.score.count, self.score.kind)
        self.labels, self.labels_source = found.names, found.source

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the sessions; the next call opens them again."""
        self.network.close()

    def warm_up(self) -> None:
        """Differentiate the model and open its session now; otherwise the first ``explain`` does.

        Raises ``UnsupportedGradient``, ``NoGradientPath``, ``ProviderError``, ``ModelError``.
        """
        _ = self.network.at_layers.whole_session

    @property
    def layers(self) -> list[Layer]:
        """The target layers. Raises ``LayerError`` where "auto" finds none: methods of the input need none."""
        return self.network.layers

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
        smooth: str | Sequence[str] = (),
        **options: Any,
    ) -> Explanation:
        """Explain ``x``, an array (N, …) in the model's own input form, or {input name: array}.

        ``target``: None (top-1), a class index, a label, a target object (``docs/targets.md``), a list with one of
        these per image, or ``TopK(k)``, ``Classes([...])``, ``Each([...])`` for every image; places are in pixels of
        the input. ``method``: see ``docs/methods.md``, also for what ``counterfactual`` and ``signed`` mean for it and
        for its ``options``. ``fusion``: of several layers, "mean", "max" or "product".
        ``smooth``: "aug", "noise" or "eigen", or one of the first two with "eigen", for cams.

        Raises:
            InputError, TargetError, MethodError, ForwardMismatch, UnsupportedGradient, NoGradientPath, ProviderError.
        """
        names = (smooth,) if isinstance(smooth, str) else tuple(smooth)
        recipe = Recipe(method, counterfactual, signed, fusion, options, names)
        methods.check(recipe)
        feeds = inputs.feeds(x, self.inputs)
        axes = inputs.spatial_axes(self.image_input, 2)
        context = Context(self.score, self.labels, tuple(feeds[self.image_input.name].shape[k] for k in axes))
        count = len(feeds[self.image_input.name])
        wanted = bind_targets(resolve(target, count, self.score.count, self.labels), context)
        network = self.network.on_branch(branch(wanted))
        made = ask(network, feeds, wanted, recipe)
        size = made.heatmap.shape[1:]
        return Explanation(
            method=recipe.name,
            image_index=rows.image_index(made.rows),
            class_index=rows.class_index(made.rows),
            words=tuple(Words(*each) for each in rows.words(made.rows)),
            score=rows.score(self.score, made.rows, made.results),
            probability=rows.probability(self.score, made.rows, made.results),
            cell=rows.cell(self.score, made.rows, made.results),
            box=rows.box(made.rows),
            is_blank=is_blank(made.heatmap),
            heatmap=made.heatmap,
            scale=made.scale,
            drawing=made.drawing,
            seen=np.tile([0, 0, size[-1], size[-2] if len(size) > 1 else 1], (len(made.rows), 1)),
            layers=made.layers,
            score_name=self.score.name,
            score_activation=self.score.activation,
            outputs={name: made.results[name] for name in made.evaluation.output_names},
            labels=self.labels,
            signed=recipe.signed,
            pictures=inputs.pictures(feeds[self.image_input.name], self.image_input),
            warnings=(*self._warnings(made), *rows.warnings(made.rows)),
            attribution=made.attribution,
            attributed=made.attributed,
            details=made.details(),
            rectifiers=made.rectifiers,
            provenance=self._provenance(recipe, made, network),
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
        smooth: str | Sequence[str] = (),
        **options: Any,
    ) -> Explanation:
        """Explain a photo: a path, bytes, a PIL image, or uint8 RGB (H, W, 3).

        ``preprocess``: "auto", a preset name, the path or content of a JSON form. ``inputs``: arrays for the model's
        other inputs. The heatmap is in the photo's pixels, and so are places in targets. Other arguments and errors as
        in ``explain``, and ``InputError`` and ``PreprocessError`` for photos and settings that cannot be used.
        """
        photo = decode(image)
        choice = self.preprocessing(preprocess)
        x, geometry = to_tensor(photo, choice.preprocess)
        feeds: Any = {self.image_input.name: x, **(inputs or {})}
        target = in_input(target, geometry)
        result = self.explain(
            feeds,
            target,
            method,
            counterfactual=counterfactual,
            signed=signed,
            fusion=fusion,
            smooth=smooth,
            **options,
        )
        drawn = np.stack([geometry.to_photo(row) for row in result.heatmap])
        faint = np.abs(drawn).max(axis=(1, 2)) < IN_PADDING
        outside = faint & np.array([geometry.has_peak_beside(row) for row in result.heatmap])
        warnings = [*choice.warnings, *result.warnings]
        if (outside & ~result.is_blank).any():
            warnings.append("the strongest evidence lies in the padding around the photo, which the model saw too")
        return replace(
            result,
            heatmap=drawn,
            box=None if result.box is None else geometry.corners_in_photo(result.box),
            drawing=result.drawing and replace(result.drawing, to_photo=geometry.to_photo),
            seen=np.tile(np.array(geometry.seen, np.int64), (len(result), 1)),
            pictures=(lambda: photo,),
            details=tuple(
                partial(in_photo, attribution, geometry, choice.preprocess) for attribution in result.attribution
            )
            if result.details and result.attribution is not None
            else (),
            warnings=tuple(warnings),
            provenance={**result.provenance, "preprocess": choice},
        )

    def preprocessing(self, request: str | os.PathLike[str] | Mapping[str, object] | Preprocess = "auto") -> Choice:
        """The preprocessing for this model's image input, with the source of each choice."""
        return choose(request, self.image_input, metadata=self.network.metadata, model_path=self.source.path)

    # --- steps ----------------------------------------------------------------------------------------------

    def _warnings(self, made: Maps) -> list[str]:
        scores = by_class(self.score, made.results[self.score.value.name or ""])
        return [
            *(notes.tied(scores) if self.network.is_quantized else []),
            *notes.alike(self.network.alike, self.image_input.name),
            *notes.apart(made.evaluation.apart),
            *notes.guessed_labels(self.labels_source),
            *made.notes,
        ]

    def _provider_options(self, made: Maps) -> dict[str, dict[str, str]]:
        """Of the providers in use: our defaults and what was given."""
        options = asked(self.network.options)
        return {name: dict(options[name]) for name in made.evaluation.providers if options[name]}

    def _provenance(self, recipe: Recipe, made: Maps, network: Network) -> dict[str, Any]:
        layers = network.layers if made.layers else ()
        fusion = None if len(layers) < 2 else "the level of the cell" if network.is_by_level else recipe.fusion
        return {
            "versions": versions(),
            "source": self.source,
            "providers": made.evaluation.providers,
            "provider_options": self._provider_options(made),
            "precision": {
                "dtype": str(self.score.value.dtype).lower(),
                "tf32": in_tf32(self.network.options, made.evaluation.providers),
            },
            "score": self.score.name,
            "score_activation": self.score.activation,
            "labels": self.labels_source,
            "layers": [layer.name for layer in layers],
            "layer_reasons": [layer.reason for layer in layers],
            "attributed": made.attributed or None,
            "method": recipe.method,
            "counterfactual": recipe.counterfactual,
            "signed": recipe.signed,
            "fusion": fusion,
            "smooth": list(recipe.smooth),
            "options": methods.recorded(recipe),
            "check_forward": self.network.options.check_forward,
            "gradient_scale": made.evaluation.gradient_scale if methods.needs_gradient(recipe.method) else None,
            "rectifiers": None if made.rectifiers is None else asdict(made.rectifiers),
        }
