"""From a deployed model and a photo to an explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.engine.evaluation import RunResult
from onnx_gradcam.errors import OnnxGradcamError, ScoreError
from onnx_gradcam.explain.answer import answer
from onnx_gradcam.explain.branches import is_over_levels, networks_of
from onnx_gradcam.explain.default_method import resolved
from onnx_gradcam.explain.drawn import Progress, tell_nobody
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.explain.photo import frame_of_array, notes_of_photo, prepare_photo
from onnx_gradcam.explain.preprocessing import find_preprocessing, naming_a_guessed_size
from onnx_gradcam.explain.question import TOGETHER, Question, attempt, run_together
from onnx_gradcam.explain.remarks import least_probability
from onnx_gradcam.explain.settling import settles
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.function import PhotoFunction, UserFunction
from onnx_gradcam.photos.inputs import beside_image, check_feeds, spatial_axes
from onnx_gradcam.photos.labels import LabelsLike, find_labels
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.targets import Context, Layouts, Target, bind_targets, family_of, in_input, one_for_each, resolve


class Explainer:
    """A model that is ready to be explained; its sessions are opened when first needed and kept open.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> explainer.target_layers
    ('relu_6',)
    >>> explanation = explainer.explain_image(demo / "images" / "cross.png")
    >>> explanation.label(0)
    'cross'

    Args:
        model: path, bytes, ``onnx.ModelProto``, or an open ``Network``.
        target_layer: value or node name(s), or module paths where the exporter left these ("layer4.2"); several are
            fused. "auto": the end of the last convolutional stage, or the input of the last block of tokens.
        labels: class names by index, a file of class names, "imagenet" or "coco"; None: the model's own metadata, or
            else, for 1000 classes, those of ImageNet, and for the 80 of a detector those of COCO: a guess, which gives
            a warning.
        **opening: the keywords of ``Opening``: score, grid, image_input, providers, provider_options, session_options,
            custom_ops, check_forward.

    Raises:
        ModelError: the file or its graph cannot be used.
        ScoreError: no score is found.
        LayerError: a named layer does not exist; for "auto", no layer is found when a method first needs one.
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
        self.source, self.inputs, self.image_input = self.network.source, self.network.inputs, self.network.image_input
        self._labels = labels
        try:
            self._name_classes()
        except ScoreError as error:
            if not settles(self.network, None, error):
                raise
            self._name_classes()

    def _name_classes(self) -> None:
        self.score = self.network.score
        class_names = find_labels(self._labels, self.network.metadata, self.score.count, family_of(self.score))
        self.labels, self.labels_source = class_names.names, class_names.source
        self._layouts: Layouts = {}

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
    def target_layers(self) -> tuple[str, ...]:
        """Return the names of the target layers.

        Raises ``LayerError`` where "auto" finds none: methods of the input need none.
        """
        return self.network.layer_names

    def __repr__(self) -> str:
        return f"Explainer({self.source.name!r})"

    # --- explaining -----------------------------------------------------------------------------------------

    def explain(
        self,
        x: Any,
        target: Target = None,
        method: str = "auto",
        *,
        counterfactual: bool = False,
        signed: bool = False,
        fusion: str = "mean",
        smooth: str | Sequence[str] = (),
        levels: str = "own",
        threshold: float | None = None,
        progress: Progress = tell_nobody,
        **options: Any,
    ) -> Explanation:
        """Explain arrays that are ready for the model; for photos there is ``explain_image``.

        Args:
            x: an array (N, …) with the shape and dtype of the model's input, or {input name: array}.
            target: what is explained: None (the top-1 class), a class index, a label, a target object
                (``docs/targets.md``), a list with one of these per image, or ``TopK(k)``, ``Classes([...])``,
                ``Each([...])`` for every image. Places are in pixels of the input.
            method: a name from ``docs/methods.md``; "GradCAM" and "grad-cam" are "gradcam". "auto": hirescam for
                dense scores (segmenters, detectors), gradcam for all others.
            counterfactual: whether to show what speaks against the target.
            signed: whether to show negative evidence, too, in [−1, 1].
            fusion: how the maps of several layers become one: "mean", "max" or "product".
            smooth: "aug", "noise" or "eigen", or one of the first two together with "eigen", for cams of layers.
            levels: of a detector with several: "own", the level of the explained cell, or "all": a class is explained
                over all cells that detect it, at the layers of all levels, whose cams are summed.
            threshold: the probability below which nothing is detected, or a class is near chance (``docs/limits.md``).
            progress: ``progress(done, total)`` is called while a method that runs the model many times is at work
                (``docs/methods.md``): of how many runs how many are done, the first time before the first of them.
            **options: options of the method and of its smoothing, such as ``steps`` or ``samples``.

        Returns:
            R rows, one for each (image, target), image by image.

        Raises:
            InputError: an input is missing or unknown, or has a wrong shape, dtype or value.
            TargetError: the target does not fit the model.
            MethodError: the method is unknown, or does not fit the model, the layer or the options.
            ForwardMismatch: the rewritten graph does not compute what the deployed model computes.
            UnsupportedGradient: a node between layer and score has no rule.
            NoGradientPath: the score does not depend on the layer.
            ProviderError: a session cannot be opened.
        """
        recipe = methods.recipe_of(method, counterfactual, signed, fusion, smooth, options, levels)
        feeds = check_feeds(x, self.inputs)
        frame = frame_of_array(feeds[self.image_input.name], self.image_input, self.network.metadata)
        return self._explain(partial(self._question, feeds, target, recipe, frame, threshold), progress)

    def explain_image(
        self,
        image: Any,
        target: Target = None,
        method: str = "auto",
        *,
        preprocess: PreprocessLike | Choice | PhotoFunction = "auto",
        inputs: Mapping[str, Any] | None = None,
        counterfactual: bool = False,
        signed: bool = False,
        fusion: str = "mean",
        smooth: str | Sequence[str] = (),
        levels: str = "own",
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        progress: Progress = tell_nobody,
        **options: Any,
    ) -> Explanation:
        """Explain a photo. The heatmap is in the photo's pixels, and so are places in targets.

        Args:
            image: a path, bytes, a PIL image, or a uint8 array (H, W, 3) RGB.
            target: as in ``explain``; for one photo.
            method: as in ``explain``.
            preprocess: "auto", the name of a preset, a short form ("raw,BGR,letterbox"), the path or the content of a
                JSON form, a ``Preprocess``, what ``preprocessing`` returned, or a function of yours: from the photo,
                (H, W, 3) uint8 RGB, to the tensor, or to (tensor, ``Geometry``) where it does more than stretch.
            inputs: arrays for the model's other inputs, by name.
            counterfactual, signed, fusion, smooth, levels, threshold: as in ``explain``.
            max_pixels: the largest photo that is decoded; a larger one is refused before anything is allocated.
            progress: as in ``explain``.
            **options: as in ``explain``.

        Returns:
            R rows, one for each target.

        Raises:
            InputError: the photo cannot be decoded or used.
            PreprocessError: the preprocessing is unknown, or does not fit the model's input.
            OnnxGradcamError: as in ``explain``.
        """
        recipe = methods.recipe_of(method, counterfactual, signed, fusion, smooth, options, levels)
        more = inputs, max_pixels, threshold
        return self._explain(partial(self._question_of_photo, image, target, recipe, preprocess, *more), progress)

    def explain_images(
        self, images: Iterable[Any], target: Target = None, method: str = "auto", **keywords: Any
    ) -> list[Explanation]:
        """Explain several photos; each has its own size and its own explanation.

        Args:
            images: photos as ``explain_image`` takes them.
            target: as in ``explain``: one for all photos, or a list with one for each.
            method: as in ``explain``.
            **keywords: the other keywords of ``explain_image``, for every photo.

        Returns:
            One explanation for each photo, in their order.

        Raises:
            TargetError: the number of targets is another one than that of the photos.
            OnnxGradcamError: as in ``explain_image``; ``where`` names the photo.
        """
        explanations = []
        for number, result in enumerate(self.explain_each(images, target, method, **keywords)):
            if isinstance(result, OnnxGradcamError):
                result.where = result.where or f"image {number}"
                raise result
            explanations.append(result)
        return explanations

    def explain_each(
        self,
        images: Iterable[Any],
        target: Target = None,
        method: str = "auto",
        *,
        preprocess: PreprocessLike | Choice | PhotoFunction = "auto",
        inputs: Mapping[str, Any] | None = None,
        counterfactual: bool = False,
        signed: bool = False,
        fusion: str = "mean",
        smooth: str | Sequence[str] = (),
        levels: str = "own",
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        progress: Progress = tell_nobody,
        **options: Any,
    ) -> Iterator[Explanation | OnnxGradcamError]:
        """Explain several photos, and yield for each its explanation, or the error for which it has none.

        Photos whose tensors have equal shapes go through the model together, eight at a time.

        Args:
            images: photos as ``explain_image`` takes them.
            target: as in ``explain``: one for all photos, or a list with one for each.
            method: as in ``explain``.
            preprocess: as in ``explain_image``, and so are all further keywords.

        Raises:
            TargetError: the number of targets is another one than that of the photos.
            MethodError: the method or its options are unknown.
            PreprocessError: the preprocessing is unknown, or does not fit the model's input.
        """
        photos = list(images)
        targets = one_for_each(target, len(photos))
        recipe = methods.recipe_of(method, counterfactual, signed, fusion, smooth, options, levels)
        how = preprocess if callable(preprocess) or isinstance(preprocess, Choice) else self.preprocessing(preprocess)
        for start in range(0, len(photos), TOGETHER):
            several = zip(photos[start : start + TOGETHER], targets[start : start + TOGETHER], strict=True)
            asks = [
                partial(self._question_of_photo, photo, of_photo, recipe, how, inputs, max_pixels, threshold)
                for photo, of_photo in several
            ]
            asked = [attempt(ask) for ask in asks]
            ahead = run_together({n: each for n, each in enumerate(asked) if isinstance(each, Question)})
            for n, (ask, each) in enumerate(zip(asks, asked, strict=True)):
                if isinstance(each, Question):
                    yield attempt(self._explain, ask, progress, each, ahead.get(n))
                else:
                    yield each

    def preprocessing(self, request: PreprocessLike = "auto") -> Choice:
        """Return the preprocessing for this model's image input, with the source of each field.

        Args:
            request: "auto", the name of a preset, a short form ("raw,BGR,letterbox"), the path or the content of a JSON
                form, or a ``Preprocess``.

        Raises:
            PreprocessError: the request is unknown, or does not fit the model's input.
            InputError: the input takes no photos.
        """
        return find_preprocessing(self.network, request)

    # --- steps ----------------------------------------------------------------------------------------------

    def _question_of_photo(
        self,
        image: Any,
        target: Target,
        recipe: Recipe,
        preprocess: PreprocessLike | Choice | PhotoFunction,
        inputs: Mapping[str, Any] | None,
        max_pixels: int,
        threshold: float | None,
    ) -> Question:
        x, frame, choice = prepare_photo(image, preprocess, self.image_input, self.preprocessing, max_pixels)
        feeds = check_feeds(beside_image(self.image_input.name, x, inputs or {}), self.inputs)
        assert frame.geometry is not None
        with naming_a_guessed_size(choice, x.shape):
            question = self._question(feeds, in_input(target, frame.geometry), recipe, frame, threshold, choice)
        return replace(question, notes=(*notes_of_photo(image, choice), *question.notes))

    def _question(
        self,
        feeds: dict[str, np.ndarray],
        target: Target,
        recipe: Recipe,
        frame: Frame,
        threshold: float | None,
        choice: Choice | UserFunction | None = None,
    ) -> Question:
        """Return checked arrays with what is explained of them, bound to the model."""
        x = feeds[self.image_input.name]
        size = tuple(x.shape[k] for k in spatial_axes(self.image_input, 2))
        context = Context(self.score, self.labels, size, least_probability(self.score, threshold), self._layouts)
        recipe, remarks = resolved(recipe, self.score)
        each = resolve(target, len(x), self.score.count, self.labels)
        targets = bind_targets(each, context, len(x), is_over_levels(self.network, recipe))
        networks = networks_of(self.network, targets, recipe)
        return Question(networks, context, feeds, targets, recipe, frame, choice, remarks)

    def _explain(
        self,
        ask: Callable[[], Question],
        progress: Progress,
        question: Question | None = None,
        ahead: RunResult | None = None,
    ) -> Explanation:
        """Answer a question, and ask it once more where the run shows that shapes are others than was thought."""
        try:
            question = question or ask()
            return answer(self.network, question, self.labels_source, progress, ahead)
        except OnnxGradcamError as error:
            if not settles(self.network, None if question is None else question.feeds, error):
                raise
        self._name_classes()
        return answer(self.network, ask(), self.labels_source, progress)
