"""From the arrays that users pass to the arrays that a model is fed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.photos.preprocess.choice import InputSpec

Array = npt.NDArray[Any]


def image_input(specs: Mapping[str, InputSpec], name: str | None = None) -> InputSpec:
    """Return the input that takes the image: the one called ``name``, or else the largest of those with the most axes.

    Of several that are as large it is the first. A tracker looks for a template in a larger image: the map is of that.

    Raises ``InputError`` for a name that does not exist, and where there is no input with axes.
    """
    if not specs:
        raise InputError("the model has no inputs: there is nothing to explain", hint="a model that reads an image")
    if name is not None and name not in specs:
        raise InputError(f"the model has no input {name!r}", hint=f"one of {nearest(name, specs)}", name=name)
    spec = specs[name] if name is not None else max(specs.values(), key=_size)
    if not spec.shape:
        raise InputError(
            f"input {spec} is a single number: it has no batch axis, and no places to explain",
            hint="an input of shape (N, …)",
            name=spec.name,
        )
    return spec


def _size(spec: InputSpec) -> tuple[int, float]:
    """Return the number of axes, and that of the values of one image, without end where a side is open."""
    return len(spec.shape), math.prod(d if isinstance(d, int) else math.inf for d in spec.shape[1:])


def image_candidates(specs: Mapping[str, InputSpec]) -> list[str]:
    """Return the names of the inputs that could take the image: those with the most axes."""
    most = max(len(spec.shape) for spec in specs.values())
    return [name for name, spec in specs.items() if len(spec.shape) == most]


def check_feeds(x: Any, specs: Mapping[str, InputSpec]) -> dict[str, np.ndarray]:
    """Return arrays by input name, checked against what the model declares.

    Args:
        x: anything with ``__array__`` or DLPack for a model with one input, or {input name: such an array}.
        specs: the inputs of the model, by name.

    Returns:
        Arrays of the declared dtypes; floats are converted from one size to another, nothing else is.

    Raises:
        InputError: an input is missing or unknown, has a wrong shape or dtype, or holds NaN or infinity.
    """
    if not isinstance(x, Mapping):
        if len(specs) > 1:
            raise InputError(
                f"the model has {len(specs)} inputs: {', '.join(map(str, specs.values()))}",
                hint="a dict {input name: array}",
                inputs=tuple(specs),
            )
        x = {next(iter(specs)): x}
    for name in x:
        if name not in specs:
            raise InputError(f"the model has no input {name!r}", hint=f"one of {nearest(name, specs)}", name=name)
    if missing := [spec for name, spec in specs.items() if name not in x]:
        raise _missing(missing)
    return {name: _check(as_array(value, name), specs[name]) for name, value in x.items()}


def _missing(specs: Sequence[InputSpec]) -> InputError:
    """Return the error for inputs that nothing is fed to, with the options that feed them."""
    names = [spec.name for spec in specs]
    asks = "; --question TEXT or --caption, where it takes words" if any(map(takes_tokens, specs)) else ""
    return InputError(
        f"no value for the model's {'input' if len(specs) == 1 else 'inputs'} {', '.join(map(str, specs))}",
        hint=f"{' '.join(f'--input {name}=FILE.npy' for name in names)}: an array of that shape and dtype for each; in "
        f"Python: {{{', '.join(f'{name!r}: array' for name in names)}}} beside the image{asks}",
        name=names[0],
        names=tuple(names),
    )


def takes_tokens(spec: InputSpec) -> bool:
    """Tell whether an input takes rows of tokens: whole numbers of shape (N, T)."""
    return len(spec.shape) == 2 and np.dtype(spec.dtype).kind in "iu"


def beside_image(name: str, x: Array, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is fed to all inputs: the prepared photo ``x`` to the input ``name``, and arrays to the others.

    Raises:
        InputError: an array is given for the input that takes the photo.
    """
    if name in others:
        raise InputError(
            f"the input {name!r} takes the photo, and an array was given for it as well",
            hint=f"without --input {name}=…, or the array in the photo's place; --image-input NAME where another input "
            "takes the photo",
            name=name,
        )
    return {name: x, **others}


def as_array(value: Any, name: str) -> np.ndarray:
    """Return what is fed to the input ``name`` as an array. Raises ``InputError`` for what is none."""
    if hasattr(value, "detach"):  # a torch tensor that requires grad refuses __array__
        value = value.detach()
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:  # for example an array on another device
        raise InputError(f"input {name!r} is not an array: {error}", name=name) from None


def _check(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if array.dtype != dtype and not (array.dtype.kind == "f" and dtype.kind == "f"):
        hint = f"array.astype({spec.dtype!r})"
        if array.dtype == np.uint8 and dtype.kind == "f":
            hint = "explain_image(), which takes photos and applies the model's preprocessing"
        raise InputError(f"input {spec} cannot take {array.dtype} values", hint=hint, name=spec.name)
    if not _fits(array.shape, spec) or array.size == 0:
        raise InputError(
            f"input {spec} cannot take an array of shape {array.shape}",
            hint=_way_to(array.shape, spec),
            name=spec.name,
            shape=array.shape,
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is an error below
        array = array.astype(dtype, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"input {spec.name!r} holds NaN or infinity, as {dtype}",
            where=f"first at index {tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])}",
            hint="check the preprocessing (a division by zero?)",
            name=spec.name,
        )
    return array


def _way_to(shape: tuple[int, ...], spec: InputSpec) -> str:
    """Return what makes an array of this shape one that the input takes."""
    ways = _rearranged(shape)
    for note, code, moved in ways:
        if _fits(moved, spec):
            return f"{code}: {note}"
    sizes = replace(spec, shape=tuple(d if k == _channel_axis(spec) else None for k, d in enumerate(spec.shape)))
    if spec.shape[_channel_axis(spec) :][:1] in ((1,), (3,), (4,)) and not _fits(shape, sizes):
        for note, code, moved in ways:
            if _fits(moved, sizes):
                return f"{code}: {note}; then its sizes must be those that the model declares (explain_image resizes)"
    return "the shape that the model declares, with the batch axis first; explain_image resizes and arranges photos"


def _channel_axis(spec: InputSpec) -> int:
    return 1 if spec.axes is None else spec.axes[1]


def _rearranged(shape: tuple[int, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the mistakes that are common, each in words, with its remedy and the shape after that."""
    channels_last, channels_first = "channels come last (NHWC)", "channels come second (NCHW)"
    no_batch, grey = "the batch axis is missing", "the axes of batch and channels are missing"
    ways = [(no_batch, "x[None]", (1, *shape)), (grey, "x[None, None]", (1, 1, *shape))]
    if len(shape) >= 3:
        n, *rest = shape
        ways += [
            (f"its {channels_last}, and the model takes NCHW", "numpy.moveaxis(x, -1, 1)", (n, rest[-1], *rest[:-1])),
            (f"its {channels_first}, and the model takes NHWC", "numpy.moveaxis(x, 1, -1)", (n, *rest[1:], rest[0])),
            (f"{no_batch}, and its {channels_last}", "numpy.moveaxis(x, -1, 0)[None]", (1, rest[-1], n, *rest[:-1])),
            (f"{no_batch}, and its {channels_first}", "numpy.moveaxis(x, 0, -1)[None]", (1, *rest, n)),
        ]
    return ways


def _fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    """Tell whether the input takes arrays of this shape; the batch is not compared."""
    known = [d is None or d == n for d, n in zip(spec.shape[1:], shape[1:], strict=False)]
    return len(shape) == len(spec.shape) and all(known)


def inputs_without_batch(feeds: Mapping[str, Array], specs: Mapping[str, InputSpec], image: InputSpec) -> list[str]:
    """Return the names of the inputs that are the same for all images, since they have no batch axis.

    Their first axis is declared otherwise than that of the ``image`` input, or has another length.
    """
    count = len(feeds[image.name])
    return [
        name for name, x in feeds.items() if specs[name].shape[:1] != image.shape[:1] or x.ndim == 0 or len(x) != count
    ]


def spatial_axes(spec: InputSpec, count: int) -> tuple[int, ...]:
    """Return the ``count`` spatial axes of an input, as the model's convolutions read them.

    Where no convolution reads the input, they are its last axes, or those before a channel axis at the end.
    """
    rank = len(spec.shape)
    if spec.axes is not None and rank == count + 2:
        return spec.axes[2:]
    last_is_channels = spec.shape[-1] in (1, 3, 4) and (rank < 2 or spec.shape[1] not in (1, 3, 4))
    if rank == count + 2 and last_is_channels:
        return tuple(range(1, 1 + count))
    if rank > count + 2 and spec.shape[-1] in (1, 3, 4) and spec.shape[-1 - count] not in (1, 3, 4):
        return tuple(range(rank - 1 - count, rank - 1))  # views or frames of channels-last images
    return tuple(range(rank - count, rank))


def map_axes(spec: InputSpec, shape: Sequence[int], grid: Sequence[int]) -> tuple[int, ...] | None:
    """Return the axes of an input along which the map of a layer lies; None where the input has no such axes.

    A spectrogram that the model makes of a waveform has an axis that the waveform lacks.

    Args:
        spec: the input.
        shape: the shape of what is fed to it, (N, …).
        grid: how many positions the layer has along each of its spatial axes.
    """
    axes = spatial_axes(spec, len(grid)) if len(shape) > len(grid) else ()
    lies = bool(axes) and all(shape[axis] > 1 or count == 1 for axis, count in zip(axes, grid, strict=True))
    return axes if lies else None


def folded_views(spec: InputSpec, shape: Sequence[int | None]) -> int | None:
    """Return how many views an input (N, V, …) of images holds before their channels; None where it holds none.

    ``shape`` is that of what is fed to it. No convolution reads the input as it is, and 1, 3 or 4 channels stand behind
    the views or at the end; (N, 3, T, H, W) are colours of T frames.
    """
    if spec.axes is not None or len(shape) != 5 or not {shape[2], shape[4]} & {1, 3, 4}:
        return None
    return None if shape[1] == 3 != shape[2] and shape[4] not in (1, 3, 4) else shape[1] or 1


def has_views(spec: InputSpec, shape: Sequence[int], count: int) -> bool:
    """Tell whether an image of an input holds ``count`` views or frames: in axes before its channels, or among these.

    Args:
        spec: the input.
        shape: the shape of what is fed to it, (N, …).
        count: how many views are looked for.
    """
    between = [n for k, n in enumerate(shape) if k and k not in spatial_axes(spec, 2)]
    if len(between) > 1:
        return bool(count == np.prod(between[:-1]))
    return between in ([count], [3 * count], [4 * count])


def input_space(spec: InputSpec) -> tuple[int, ...]:
    """Return the spatial axes of an input as convolutions read them, or else all axes but batch and channels.

    Where an input holds views of images, they are those of one view.
    """
    if folded_views(spec, spec.shape) is not None:
        return spatial_axes(spec, 2)
    count = len(spec.axes) - 2 if spec.axes is not None else max(len(spec.shape) - 2, min(len(spec.shape) - 1, 1))
    return spatial_axes(spec, count)
