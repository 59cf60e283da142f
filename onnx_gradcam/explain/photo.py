"""From a photo or an array to what is fed to the model, and the frame in which its maps are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.photos.decode import MAX_PIXELS, DeepPhoto, Photo, decode, decode_window, read
from onnx_gradcam.photos.dicom import HEAD, NO_WINDOW, is_dicom
from onnx_gradcam.photos.frames import several_note
from onnx_gradcam.photos.function import PhotoFunction, UserFunction, apply_function
from onnx_gradcam.photos.inputs import input_space, spatial_axes
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, PreprocessLike
from onnx_gradcam.photos.tensor import to_tensor
from onnx_gradcam.photos.vocabulary import token_words, vocabulary_from
from onnx_gradcam.photos.window import Window
from onnx_gradcam.results.frame import Frame

Prepared = tuple[np.ndarray, Frame, Choice | UserFunction]
"""The tensor of a photo, (1, …), the frame of its maps, and how the one became the other."""


def prepare_photo(
    image: Any,
    preprocess: PreprocessLike | Choice | PhotoFunction,
    spec: InputSpec,
    settle: Callable[[PreprocessLike], Choice],
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """Return the tensor of a photo, the frame of its maps, and how the one became the other.

    Args:
        image: what ``decode`` takes.
        preprocess: what the user asks for.
        spec: the input of the model.
        settle: returns the choice that a request stands for.
        max_pixels: the largest photo that is decoded.

    Raises:
        InputError, PreprocessError: the photo cannot be decoded, or the preprocessing does not fit the input.
    """
    if callable(preprocess):
        photo = decode(image, max_pixels)
        x, function = apply_function(preprocess, photo, spec)
        return x, Frame((), photo=photo, geometry=function.geometry, space=spatial_axes(spec, 2)), function
    choice = preprocess if isinstance(preprocess, Choice) else settle(preprocess)
    pixels = decode_through(image, choice.preprocess.window, max_pixels)
    x, geometry = to_tensor(pixels, choice.preprocess)
    photo = in_8_bits(pixels)
    space = (2, 3) if choice.preprocess.layout == "NCHW" else (1, 2)
    return x, Frame((), photo=photo, geometry=geometry, space=space, channels=choice.preprocess.channels), choice


def decode_through(image: Any, window: Window | None, max_pixels: int = MAX_PIXELS) -> Photo | DeepPhoto:
    """Return a photo in 8 bits, or through a window with all its bits; arguments and errors as in ``decode``."""
    return decode(image, max_pixels) if window is None else decode_window(image, window, max_pixels)


def in_8_bits(pixels: Photo | DeepPhoto) -> Photo:
    """Return a photo as it is shown, (H, W, 3) uint8 RGB."""
    return np.asarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels), np.uint8)


def frame_of_array(x: np.ndarray, spec: InputSpec, metadata: Mapping[str, str]) -> Frame:
    """Return the frame of the maps of an array (N, …), with the words of its tokens where the model brings them."""
    return Frame((), x=x, space=input_space(spec), words=token_words(x, vocabulary_from(metadata)))


def notes_of_photo(image: Any, choice: Choice | UserFunction) -> tuple[str, ...]:
    """Return what a user should know of a photo: it is one of several, or nothing says what its grey means."""
    windowed = isinstance(choice, Choice) and choice.preprocess.window is not None
    is_file = isinstance(image, bytes | bytearray | memoryview | str | os.PathLike)
    dicom = read(image).dicom if is_file and not windowed and _begins_as_dicom(image) else None
    return (*several_note(image), *([] if dicom is None or dicom.has_window else [NO_WINDOW]))


def _begins_as_dicom(image: Any) -> bool:
    if isinstance(image, bytes | bytearray | memoryview):
        return is_dicom(bytes(image))
    with Path(image).open("rb") as file:
        return is_dicom(file.read(HEAD))
