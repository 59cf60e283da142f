"""Which preprocessing fits a model, as far as a photo can show it.

Nobody knows what is in the photo. But a model that reads it rightly is sure of it and of its mirror image, and not of
its pieces in another order. How sure it is of the photo alone says little: a network that is fed numbers of the wrong
size saturates, and is sure of everything.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.anatomy.score import NO_CLASSES
from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.explain.photo import decode_through, in_8_bits
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.photos.decode import Photo
from onnx_gradcam.photos.preprocess.choice import Choice, Preprocess
from onnx_gradcam.photos.preprocess.short import AUTO
from onnx_gradcam.targets import family_of

VALUES = ("imagenet", "imagenet,BGR", "imagenet-caffe", "tf", "tf,BGR", "zero-one", "zero-one,BGR", "raw", "raw,BGR")
WHOLE = tuple(f"{value},stretch" for value in VALUES)
BOXED = tuple(f"{value},letterbox" for value in VALUES if value not in ("zero-one", "raw,BGR"))
CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "detector": ("yolo", "yolox", *BOXED),
    "map": WHOLE,
    "sequence": WHOLE,
}
"""Family of models → what is tried; for all others ``VALUES``."""
STANDS_OUT = 0.1
"""By how much surer a model must be of the photo than of its pieces, for the preprocessing to be taken as fitting."""
BLOCK = 16
"""The side of the larger pieces, in pixels; the smaller ones are single pixels."""


@dataclass(frozen=True)
class PresetResult:
    """What a model says of a photo under one preprocessing.

    Attributes:
        preset: the preprocessing as ``--preprocess`` takes it.
        label: the top-1.
        probability: of the top-1, in [0, 1].
        mirrored: of the same class for the mirror image.
        scrambled: of the most probable class for pieces of the photo in another order.
        declared: whether the model itself says so.
    """

    preset: str
    label: str
    probability: float
    mirrored: float
    scrambled: float
    declared: bool = False

    @property
    def margin(self) -> float:
        """Return by how much surer the model is of photo and mirror image than of the pieces."""
        return min(self.probability, self.mirrored) - self.scrambled


@dataclass(frozen=True)
class Ranking:
    """What was tried on a photo, the best first.

    Attributes:
        results: what the model says under each preprocessing; what it declares itself stands first. Empty for a model
            without probabilities: nothing can be told by them.
        line: the command that explains the photo with the first of them; "" where there is none.
    """

    results: tuple[PresetResult, ...]
    line: str

    @property
    def stands_out(self) -> bool:
        """Return whether the first one is declared, or fits clearly."""
        return any(first.declared or first.margin >= STANDS_OUT for first in self.results[:1])


@spelled_out
def rank_presets(
    model: ModelLike | Network, image: Any, inputs: Mapping[str, Any] | None = None, **opening: Unpack[Opening]
) -> Ranking:
    """Return which preprocessing fits a model, as far as a photo shows it; see the head of this module.

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        image: what ``explain_image`` takes.
        inputs: arrays for the model's other inputs, by name.
        **opening: the keywords of ``Opening``.

    Raises:
        PreprocessError: nothing that is tried fits the model's input.
        OnnxGradcamError: what ``Explainer`` and ``explain_image`` raise.
    """
    with Explainer(model, **opening) as explainer:
        if explainer.score.kind in ("regression", *NO_CLASSES):
            return Ranking((), "")
        photo = in_8_bits(decode_through(image, explainer.preprocessing().preprocess.window))
        results = [_result(explainer, photo, name, choice, inputs) for name, choice in _choices(explainer).items()]
        model_name = explainer.source.name
    ranked = sorted(results, key=lambda result: (not result.declared, -result.margin))
    path = os.fspath(image) if isinstance(image, str | os.PathLike) else "PHOTO"
    chosen = [] if ranked[0].declared else ["--preprocess", ranked[0].preset]
    chosen += [word for name in inputs or () for word in ("--input", f"{name}=FILE.npy")]
    return Ranking(tuple(ranked), shlex.join(["onnx-gradcam", "explain", model_name, path, *chosen]))


def _choices(explainer: Explainer) -> dict[str, Choice]:
    """Return what is tried, each preprocessing once: what the model declares, and the candidates that fit its input."""
    own = explainer.preprocessing()
    choices = {} if own.guessed else {AUTO: own}
    tried: list[Preprocess] = [choice.preprocess for choice in choices.values()]
    refusal: PreprocessError | None = None
    for name in CANDIDATES.get(family_of(explainer.score), VALUES):
        try:
            choice = explainer.preprocessing(name)
        except PreprocessError as error:  # an input of one channel, or of whole numbers, does not take all of them
            refusal = error
            continue
        if choice.preprocess not in tried:
            tried.append(choice.preprocess)
            choices[name] = choice
    if not choices and refusal is not None:
        raise refusal
    return choices


def _result(
    explainer: Explainer, photo: Photo, name: str, choice: Choice, inputs: Mapping[str, Any] | None
) -> PresetResult:
    shown = replace(choice, preprocess=replace(choice.preprocess, window=None))  # the window is in the photo already

    def top(of: Photo, target: int | None = None) -> tuple[int, str, float]:
        result = explainer.explain_image(of, target, method="eigencam", preprocess=shown, inputs=inputs)
        return int(result.class_index[0]), result.label(0), float(result.probability[0])

    index, label, probability = top(photo)
    _, _, mirrored = top(np.ascontiguousarray(photo[:, ::-1]), index)
    scrambled = max(top(_scramble(photo, side))[2] for side in (1, BLOCK))
    return PresetResult(name, label, probability, mirrored, scrambled, name == AUTO)


def _scramble(photo: Photo, side: int) -> Photo:
    """Return the square pieces of a photo in another order, always the same; what is left at two borders is cut off."""
    side = min(side, *photo.shape[:2])
    height, width = (length // side for length in photo.shape[:2])
    pieces = photo[: height * side, : width * side].reshape(height, side, width, side, 3).swapaxes(1, 2)
    order = np.random.default_rng(0).permutation(height * width)
    mixed = pieces.reshape(-1, side, side, 3)[order].reshape(height, width, side, side, 3)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height * side, width * side, 3))
