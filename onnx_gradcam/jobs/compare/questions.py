"""Both models are asked for the same target: what the first one settles, the second one is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.preprocessing import refuse_guesses
from onnx_gradcam.jobs.compare.matching import Match, match, targets_for_b
from onnx_gradcam.jobs.compare.sides import fitted
from onnx_gradcam.photos.decode import MAX_PIXELS, load_tensor
from onnx_gradcam.photos.function import PhotoFunction
from onnx_gradcam.photos.inputs import beside_image
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Classes, Each, Target, TargetObject, TopK, class_index, parse

Ask = Callable[[Target], Explanation]
Settled = Choice | PhotoFunction


@dataclass(frozen=True)
class Bench:
    """Two models side by side, and how both are asked.

    Attributes:
        a, b: the models.
        target: what is explained; a class that it leaves open is the one that ``a`` takes.
        keywords: method and options, as ``explain`` takes them.
        inputs: arrays for the models' other inputs, by name.
        preprocess: how photos become tensors, for each model; where a model takes none, the error that says so, and
            None where no image is a photo.
        max_pixels: the largest photo that is decoded.
    """

    a: Explainer
    b: Explainer
    target: Target
    keywords: Mapping[str, Any]
    inputs: Mapping[str, Any]
    preprocess: tuple[Settled, Settled] | InputError | None
    max_pixels: int = MAX_PIXELS

    def ask(self, image: Any) -> Answers:
        """Explain one image, or the images of one .npy file, with both models.

        Both are asked for their own top-1 first, and again where the target is another one.
        """
        ask_a, ask_b = self._both(image)
        own_a, own_b = _top1(ask_a), _top1(ask_b)
        a = own_a if own_a is not None and _is_about(own_a, self.target) else ask_a(self.target)
        images = 1 + int(a.image_index.max())
        columns = targets_for_b(self.target, a, images)
        b = [own_b if own_b is not None and _classes(own_b) == column else ask_b(column) for column in columns]
        return Answers(own_a, own_b, a, match(a, b, images))

    def _both(self, image: Any) -> tuple[Ask, Ask]:
        if is_array_file(image):
            x = load_tensor(image)
            return self._of_array(self.a, x), self._of_array(self.b, x)
        if isinstance(self.preprocess, InputError):
            raise self.preprocess
        assert self.preprocess is not None
        of_a, of_b = self.preprocess
        return self._of_photo(self.a, image, of_a), self._of_photo(self.b, image, of_b)

    def _of_array(self, side: Explainer, x: Any) -> Ask:
        feeds = beside_image(side.image_input.name, x, self.inputs)
        return lambda target: side.explain(feeds, target, **self.keywords)

    def _of_photo(self, side: Explainer, image: Any, choice: Settled) -> Ask:
        keywords = {**self.keywords, "inputs": self.inputs, "max_pixels": self.max_pixels}
        return lambda target: side.explain_image(image, target, preprocess=choice, **keywords)


@dataclass(frozen=True)
class Answers:
    """What both models say of the images of one file.

    Attributes:
        own_a, own_b: the top-1 of each; None for outputs that are no classes.
        a: the target in A.
        matches: the rows of A, each with the row of B that is about the same.
    """

    own_a: Explanation | None
    own_b: Explanation | None
    a: Explanation
    matches: tuple[Match, ...]

    def top1(self, image: int) -> tuple[int, int]:
        """Return the class that each model puts first in an image, −1 where it has no classes."""
        first, second = (-1 if own is None else _class_of(own, image) for own in (self.own_a, self.own_b))
        return first, second


def is_array_file(image: Any) -> bool:
    """Tell whether an image is a file that holds an array in the models' own input form."""
    return isinstance(image, str | os.PathLike) and Path(image).suffix.lower() == ".npy"


def read_target(target: Target, a: Explainer) -> Target:
    """Return the target that texts name, or a target as it is.

    Texts are read as the command line reads them, with the labels of ``a``, so that ``b`` needs none.

    Raises:
        TargetError: an unknown or ambiguous label, a class out of range, or one target for each image.
    """
    if isinstance(target, str):
        return parse([target], a.score.count, a.labels)
    if isinstance(target, Sequence):
        texts = [text for text in target if isinstance(text, str)]
        if not texts or len(texts) < len(target):
            raise TargetError(
                f"{target!r} is not one target for all images", hint="Each([...]) or Classes([...])", target=target
            )
        return parse(texts, a.score.count, a.labels)
    if target is None or isinstance(target, TopK | Classes | Each | TargetObject):
        return target
    return class_index(target, a.score.count, a.labels)


def preprocess_both(
    a: Explainer,
    b: Explainer,
    preprocess: PreprocessLike | PhotoFunction,
    preprocess_b: PreprocessLike | PhotoFunction | None,
    strict: bool = False,
) -> tuple[Settled, Settled] | InputError:
    """Return how photos become tensors for each of two models, the second as the first where nothing else is said.

    The error for a model that takes no photos is returned: arrays among the images can be compared nevertheless.

    Raises:
        PreprocessError: the preprocessing is unknown, or is guessed and ``strict``.
    """
    try:
        of_a = preprocess if callable(preprocess) else a.preprocessing(preprocess)
        of_b = _of_second(of_a, b, preprocess_b)
    except InputError as error:
        return error
    if strict:
        for side, settled, option in ((a, of_a, "--preprocess"), (b, of_b, "--preprocess-b")):
            if isinstance(settled, Choice):
                refuse_guesses(settled, side.image_input, option)
    return of_a, of_b


def _of_second(of_a: Settled, b: Explainer, preprocess_b: PreprocessLike | PhotoFunction | None) -> Settled:
    if callable(preprocess_b):
        return preprocess_b
    if preprocess_b is not None:
        return b.preprocessing(preprocess_b)
    return b.preprocessing(fitted(of_a.preprocess, b)) if isinstance(of_a, Choice) else of_a


def _top1(ask: Ask) -> Explanation | None:
    """Return the top-1 of a model, None for outputs that are no classes: those have targets of other forms."""
    try:
        return ask(None)
    except TargetError:
        return None


def _class_of(own: Explanation, image: int) -> int:
    return int(own.class_index[np.flatnonzero(own.image_index == image)[0]])


def _classes(own: Explanation) -> list[int]:
    """Return the class of each image."""
    return [_class_of(own, image) for image in range(1 + int(own.image_index.max()))]


def _is_about(own: Explanation, target: Target) -> bool:
    """Tell whether the top-1 of every image is what a target asks for."""
    return target is None or (isinstance(target, int) and set(_classes(own)) == {target})
