"""What a run asks of every image, read from the request once, before the first image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.preprocessing import refuse_guesses
from onnx_gradcam.explain.sentences import OWN, text_of
from onnx_gradcam.jobs.checks import Values
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.truth import true_classes
from onnx_gradcam.photos.listing import ARRAYS, Listed
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.photos.tiles import Tiling
from onnx_gradcam.photos.vocabulary import Vocabulary
from onnx_gradcam.photos.volume import is_volume
from onnx_gradcam.targets import Target, parse


@dataclass(frozen=True)
class Plan:
    """What a run asks of every image.

    Attributes:
        target: what is explained.
        method: the method's name.
        keywords: the keywords of ``explain`` beside target and method.
        inputs: arrays for the model's other inputs, by name.
        text: the tokens of the question, (1, T), by the name of the input that reads them; empty without one.
        question: the question, "" without one.
        sentence: that whose words are explained, "own" for what the model says; None: a target is explained.
        preprocess: how photos become tensors; where the model takes none, the error that says so, and None where no
            image is a photo.
        both: whether what speaks against a target is shown beside what speaks for it.
        true: the true class of each image, where the prediction is explained against it.
        true_source: the label or the table that the true classes come from.
        max_pixels: the largest photo that is decoded.
        of_volumes: how volumes become tensors, as text.
        vocabulary: the words of tokens, where the user names them.
        tiling: how photos are cut into tiles; None: they are explained as a whole.
        pictures: how results are drawn, and at which scale.
    """

    target: Target
    method: str
    keywords: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    text: Mapping[str, np.ndarray]
    question: str
    sentence: str | None
    preprocess: Choice | InputError | None
    both: bool
    true: Mapping[Path, int] | None
    true_source: str
    max_pixels: int
    of_volumes: str
    vocabulary: Vocabulary | None
    tiling: Tiling | None
    pictures: Pictures


def open_explainer(request: Request) -> Explainer:
    """Return the explainer that a request describes.

    Raises what ``Explainer`` raises, and ``ProviderError`` for an option that cannot be read.
    """
    layers = request.layers if len(request.layers) > 1 else request.layers[0]
    return Explainer(request.model, layers, labels=request.labels, **opening_of(request.model_options))


def settle(request: Request, values: Values, explainer: Explainer, images: Sequence[Listed]) -> Plan:
    """Settle all that a request says of its images, before the first of them.

    Args:
        request: what was asked for.
        values: what ``check_request`` returned for it.
        explainer: the model.
        images: the images.

    Raises:
        TargetError: a target or a true label does not fit the model.
        InputError: the model does not read words, or lacks one of the question or the caption.
        PreprocessError: the preprocessing cannot be used, or is guessed and may not be.
    """
    count = explainer.score.count
    keywords = {
        "counterfactual": request.counterfactual,
        "signed": request.signed,
        "fusion": request.fusion,
        "smooth": request.smooth,
        "levels": request.levels,
        "threshold": request.threshold,
        **values.recipe.options,
    }
    return Plan(
        target=parse(request.targets, count, explainer.labels),
        method=values.recipe.method,
        keywords=keywords,
        inputs=values.inputs,
        text=_tokens(request, values, explainer, images),
        question=request.question or "",
        sentence=request.sentence,
        preprocess=_preprocessing(request, explainer) if any(is_photo(image.path) for image in images) else None,
        both=request.both,
        true=None if request.true is None else true_classes(request.true, images, explainer),
        true_source=request.true or "",
        max_pixels=request.max_pixels,
        of_volumes=request.preprocess,
        vocabulary=values.vocabulary,
        tiling=values.tiling,
        pictures=request.pictures,
    )


def _tokens(request: Request, values: Values, explainer: Explainer, images: Sequence[Listed]) -> dict[str, np.ndarray]:
    """Return the tokens of the question, {} without one; a caption's words are checked, and fed for each photo."""
    words = request.question if request.sentence in (None, OWN) else request.sentence
    if request.question is None and request.sentence is None:
        return {}
    if request.sentence is not None and not all(is_photo(image.path) for image in images):
        raise InputError("a caption is of photos, and another file is there", hint="photos, or --target tokens:A,B,C")
    text = text_of(explainer, values.vocabulary, values.inputs)
    tokens = () if words is None else text.lexicon.tokens(words)
    return {} if request.question is None else text.feed(tokens)


def is_array(path: Path) -> bool:
    """Tell whether a file holds an array in the model's own input form, and not a photo."""
    return path.suffix.lower() == ARRAYS


def is_photo(path: Path) -> bool:
    """Tell whether a file holds neither an array nor a volume."""
    return not (is_array(path) or is_volume(path))


def _preprocessing(request: Request, explainer: Explainer) -> Choice | InputError:
    """Return an error instead of raising it: arrays in the same run need no preprocessing."""
    try:
        choice = explainer.preprocessing(request.preprocess)
    except InputError as error:
        return error
    if request.strict:
        refuse_guesses(choice, explainer.image_input)
    return choice
