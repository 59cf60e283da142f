"""A preprocessing that is a function of the user: from a photo to a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.photos.decode import Photo
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.inputs import as_array, spatial_axes
from onnx_gradcam.photos.preprocess.choice import InputSpec

PhotoFunction = Callable[[Photo], Any]
"""From a photo, (H, W, 3) uint8 RGB, to a tensor for one image, or to the tensor and a ``Geometry``."""

LAID_OVER_ALL = (
    "the preprocessing {name} does not say which part of the photo it keeps: the map is laid over the whole photo, as "
    "if the photo had been stretched; if it crops or pads, let it return (tensor, onnx_gradcam.Geometry(...))"
)


@dataclass(frozen=True)
class UserFunction:
    """A preprocessing by a function of the user, as results record it.

    Attributes:
        name: the name of the function.
        geometry: where the photo lies in the tensor.
        is_guessed: whether the function did not say so, and the photo is taken to be stretched.
    """

    name: str
    geometry: Geometry
    is_guessed: bool

    @property
    def guessed(self) -> tuple[str, ...]:
        """Return what is guessed: "geometry", or nothing."""
        return ("geometry",) if self.is_guessed else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know, one sentence each."""
        return (LAID_OVER_ALL.format(name=self.name),) if self.is_guessed else ()

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of the preprocessing: for each part its value and its source."""
        source = "guessed: the photo is stretched" if self.is_guessed else f"chosen: {self.name}"
        return {
            "function": {"value": self.name, "source": "chosen: user"},
            "geometry": {"value": asdict(self.geometry), "source": source},
        }


def apply_function(function: PhotoFunction, photo: Photo, spec: InputSpec) -> tuple[npt.NDArray[Any], UserFunction]:
    """Return the tensor that a function makes of a photo, with its batch axis, and the record of the function.

    Args:
        function: the function of the user; what it raises is passed on.
        photo: (H, W, 3) uint8 RGB.
        spec: the input of the model.

    Raises:
        InputError: what it returns is no tensor of one image.
        PreprocessError: the geometry that it returns is of another photo or of another tensor.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    result = function(photo)
    tensor, declared = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    x = as_array(tensor, spec.name)
    x = x[None] if x.ndim == len(spec.shape) - 1 else x
    if x.ndim != len(spec.shape) or len(x) != 1 or x.ndim < 3:
        raise InputError(
            f"the preprocessing {name} returned an array of shape {x.shape}",
            where=f"input {spec}",
            hint="the tensor of one image, with or without a batch axis of length 1",
            shape=x.shape,
        )
    height, width = (x.shape[k] for k in spatial_axes(spec, 2))
    sizes = (photo.shape[0], photo.shape[1]), (height, width)
    geometry = _stretched(*sizes) if declared is None else declared
    if not isinstance(geometry, Geometry) or (geometry.photo, geometry.model) != sizes:
        raise PreprocessError(
            f"the preprocessing {name} returned {geometry!r} for a photo of {sizes[0]} and a tensor of {sizes[1]}",
            hint="(tensor, onnx_gradcam.Geometry(photo=(H, W), model=(h, w), scale=…, offset=…)), or the tensor alone",
            geometry=geometry,
        )
    return x, UserFunction(name, geometry, is_guessed=declared is None)


def _stretched(photo: tuple[int, int], model: tuple[int, int]) -> Geometry:
    return Geometry(photo, model, (model[0] / photo[0], model[1] / photo[1]), (0.0, 0.0))
