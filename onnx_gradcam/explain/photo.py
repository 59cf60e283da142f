"""From a photo to what is fed to the model, and the frame in which its maps are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_gradcam.photos.decode import Photo
from onnx_gradcam.photos.function import PhotoFunction, UserFunction, apply_function
from onnx_gradcam.photos.inputs import spatial_axes
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, PreprocessLike
from onnx_gradcam.photos.tensor import to_tensor
from onnx_gradcam.results.frame import Frame

Prepared = tuple[np.ndarray, Frame, Choice | UserFunction]
"""The tensor of a photo, (1, …), the frame of its maps, and how the one became the other."""


def prepare_photo(
    photo: Photo,
    preprocess: PreprocessLike | Choice | PhotoFunction,
    spec: InputSpec,
    settle: Callable[[PreprocessLike], Choice],
) -> Prepared:
    """Return the tensor of a photo, the frame of its maps, and how the one became the other.

    Args:
        photo: (H, W, 3) uint8 RGB.
        preprocess: what the user asks for.
        spec: the input of the model.
        settle: returns the choice that a request stands for.

    Raises:
        InputError, PreprocessError: the preprocessing does not fit the input.
    """
    if callable(preprocess):
        x, function = apply_function(preprocess, photo, spec)
        return x, Frame((), photo=photo, geometry=function.geometry, space=spatial_axes(spec, 2)), function
    choice = preprocess if isinstance(preprocess, Choice) else settle(preprocess)
    x, geometry = to_tensor(photo, choice.preprocess)
    space = (2, 3) if choice.preprocess.layout == "NCHW" else (1, 2)
    return x, Frame((), photo=photo, geometry=geometry, space=space, channels=choice.preprocess.channels), choice
