"""From what a user names to images that are ready to be attacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, ScoreError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.photo import prepare_photo
from onnx_gradcam.jobs.attack.room import check_inside, room_of_numbers, room_of_photos
from onnx_gradcam.jobs.attack.steps import Array, Room
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.inputs import beside_image, check_feeds, inputs_without_batch
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images that are ready to be attacked.

    Attributes:
        feeds: arrays by the names of the model's inputs.
        name: the input that is attacked.
        shared: the other inputs without a batch axis.
        room: how far images may be changed.
        choice: how photos become tensors; None where the input holds no pixels.
    """

    feeds: Mapping[str, Array]
    name: str
    shared: tuple[str, ...]
    room: Room
    choice: Choice | None

    @property
    def x(self) -> Array:
        """Return the images, (N, …)."""
        return self.feeds[self.name]

    def some(self, x: Array, numbers: slice) -> dict[str, Array]:
        """Return what is fed for some of the images, with ``x`` in their place."""
        others = {n: v if n in self.shared else v[numbers] for n, v in self.feeds.items()}
        return {**others, self.name: x[numbers]}


def check_model(explainer: Explainer) -> None:
    """Raise ``InputError`` where the input holds integers, and ``ScoreError`` where the model is no classifier."""
    spec, score = explainer.image_input, explainer.score
    if np.dtype(spec.dtype).kind != "f":
        raise InputError(
            f"input {spec} holds integers: there is no small step, and no gradient, between them",
            hint="the model as it was before its preprocessing was built in, or before its input was quantized",
            name=spec.name,
        )
    if (
        score.kind not in ("classes", "binary")
        or score.dense is not None
        or (score.kind, score.count) == ("classes", 1)
    ):
        raise ScoreError(
            f"an attack makes a classifier take another class, and {score.name!r} holds no scores of classes, one for "
            "each image",
            hint="a classifier; --score NAME or --head NAME where the model has one",
        )


def prepare_images(
    explainer: Explainer,
    x: Any,
    preprocess: PreprocessLike | Choice | None,
    bounds: tuple[float, float] | None,
    inputs: Mapping[str, Any],
    max_pixels: int,
) -> Prepared:
    """Return images, ready to be attacked.

    Args:
        explainer: the model.
        x: an array in the form of the input, {input name: array}, a photo, or a list of photos.
        preprocess: how photos become tensors; None: the input holds no pixels.
        bounds: the smallest and the largest value of an input without pixels.
        inputs: arrays for the model's other inputs, by name.
        max_pixels: the largest photo that is decoded.

    Raises:
        InputError: the photos or arrays do not fit the input.
        PreprocessError: the preprocessing is unknown, or does not fit the input.
    """
    spec = explainer.image_input
    if preprocess is None:
        fed = x if isinstance(x, Mapping) else beside_image(spec.name, x, inputs)
        feeds = check_feeds(fed, explainer.inputs)
        return _ready(explainer, feeds, room_of_numbers(bounds, len(spec.shape)), None)
    choice = preprocess if isinstance(preprocess, Choice) else explainer.preprocessing(preprocess)
    if _is_tensor(x):
        fed = x if isinstance(x, Mapping) else beside_image(spec.name, x, inputs)
        feeds, room = check_feeds(fed, explainer.inputs), room_of_photos(choice.preprocess)
        check_inside(feeds[spec.name], room, spec)
        return _ready(explainer, feeds, room, choice)
    several = list(x) if isinstance(x, list | tuple) else [x]
    photos = [prepare_photo(decode(one, max_pixels), choice, spec, explainer.preprocessing) for one in several]
    shapes = list(dict.fromkeys(tensor.shape for tensor, _, _ in photos))
    if len(shapes) != 1:
        raise InputError(
            f"{len(several)} photos become tensors of {len(shapes)} shapes: {', '.join(map(str, shapes))}",
            hint="photos of one size together, or one after the other",
        )
    tensor = np.concatenate([each for each, _, _ in photos])
    feeds = check_feeds(beside_image(spec.name, tensor, inputs), explainer.inputs)
    geometries = [frame.geometry for _, frame, _ in photos if frame.geometry is not None]
    return _ready(explainer, feeds, room_of_photos(choice.preprocess, geometries), choice)


def _is_tensor(x: Any) -> bool:
    """Tell whether something is an array in the form of the model's input, and not a photo."""
    if isinstance(x, Mapping):
        return True
    kind = getattr(getattr(x, "dtype", None), "kind", "f")
    return (hasattr(x, "__array__") or hasattr(x, "__dlpack__")) and kind == "f" and not hasattr(x, "getbands")


def _ready(explainer: Explainer, feeds: Mapping[str, Array], room: Room, choice: Choice | None) -> Prepared:
    spec = explainer.image_input
    shared = inputs_without_batch(feeds, explainer.inputs, spec)
    return Prepared(feeds, spec.name, tuple(shared), room, choice)
