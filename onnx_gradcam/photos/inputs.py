"""What users hand in as arrays → what the model is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.photos.preprocess.choice import InputSpec

Array = npt.NDArray[Any]


def image_input(known: Mapping[str, InputSpec], name: str | None = None) -> InputSpec:
    """The input that takes the image: the one called ``name``, or else the first with the most axes.

    Raises ``InputError`` for a name that does not exist.
    """
    if name is not None and name not in known:
        raise InputError(f"the model has no input {name!r}", hint=f"one of {nearest(name, known)}", name=name)
    return known[name] if name is not None else max(known.values(), key=lambda spec: len(spec.shape))


def image_like(known: Mapping[str, InputSpec]) -> list[str]:
    """The inputs that could take the image: those with the most axes."""
    most = max(len(spec.shape) for spec in known.values())
    return [name for name, spec in known.items() if len(spec.shape) == most]


def checked_feeds(x: Any, known: Mapping[str, InputSpec]) -> dict[str, np.ndarray]:
    """An array, or arrays by input name, checked against what the model declares.

    Takes anything with ``__array__`` or DLPack. Raises ``InputError`` for a missing or unknown input, a wrong shape or
    dtype, and for values that are not finite.
    """
    if not isinstance(x, Mapping):
        if len(known) > 1:
            raise InputError(
                f"the model has {len(known)} inputs: {', '.join(map(str, known.values()))}",
                hint="a dict {input name: array}",
                inputs=tuple(known),
            )
        x = {next(iter(known)): x}
    for name in x:
        if name not in known:
            raise InputError(f"the model has no input {name!r}", hint=f"one of {nearest(name, known)}", name=name)
    for name, spec in known.items():
        if name not in x:
            raise InputError(
                f"no value for the model's input {spec}",
                hint="feed every input, as {input name: array}",
                name=name,
            )
    return {name: _checked(_array(value, name), known[name]) for name, value in x.items()}


def _array(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor that requires grad refuses __array__
        value = value.detach()
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:  # an array on another device, for one
        raise InputError(f"input {name!r} is no array: {error}", name=name) from None


def _checked(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted and not (array.dtype.kind == "f" and wanted.kind == "f"):
        hint = f"array.astype({spec.dtype!r})"
        if array.dtype == np.uint8 and wanted.kind == "f":
            hint = "explain_image(), which takes photos and applies the model's preprocessing"
        raise InputError(f"input {spec} was given {array.dtype} values", hint=hint, name=spec.name)
    fits = array.ndim == len(spec.shape) and all(
        d is None or d == n for d, n in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits or array.size == 0:
        raise InputError(
            f"input {spec} was given an array of shape {array.shape}",
            hint="the shape that the model declares, with the batch axis first",
            name=spec.name,
            shape=array.shape,
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinity, which is refused
        array = array.astype(wanted, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"input {spec.name!r} holds NaN or infinity, as {wanted}",
            where=f"first at index {tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])}",
            hint="check the preprocessing (a division by zero?)",
            name=spec.name,
        )
    return array


def without_batch(given: Mapping[str, Array], known: Mapping[str, InputSpec], image: InputSpec) -> list[str]:
    """The inputs that are the same for all images: their first axis is declared otherwise than that of ``image``, or is
    of another length."""
    count = len(given[image.name])
    return [
        name for name, x in given.items() if known[name].shape[:1] != image.shape[:1] or x.ndim == 0 or len(x) != count
    ]


def spatial_axes(spec: InputSpec, count: int) -> tuple[int, ...]:
    """The ``count`` spatial axes of an input, by the model's convolutions; without one, the last axes, or those before
    a channel axis at the end."""
    rank = len(spec.shape)
    if spec.axes is not None and rank == count + 2:
        return spec.axes[2:]
    last_is_channels = spec.shape[-1] in (1, 3, 4) and (rank < 2 or spec.shape[1] not in (1, 3, 4))
    if rank == count + 2 and last_is_channels:
        return tuple(range(1, 1 + count))
    return tuple(range(rank - count, rank))


def input_space(spec: InputSpec) -> tuple[int, ...]:
    """Return the spatial axes of an input: by the model's convolutions, else all but batch and channels."""
    count = len(spec.axes) - 2 if spec.axes is not None else max(len(spec.shape) - 2, min(len(spec.shape) - 1, 1))
    return spatial_axes(spec, count)
