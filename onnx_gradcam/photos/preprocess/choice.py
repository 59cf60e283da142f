"""How a photo becomes a model's input: specifications, presets, and where each choice comes from. Pure data.

    value = (pixel · scale − mean) / std,    pixel in 0..255

``choose`` settles every field of a ``Preprocess`` and says of each whether somebody declared it (the user, a
file, the model) or whether it was guessed. The JSON form of a ``Preprocess`` is ``dataclasses.asdict`` of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.photos.preprocess.form import Found, requested
from onnx_gradcam.photos.preprocess.metadata import LABELS_KEY, OWN_KEY, detect, labels_from
from onnx_gradcam.photos.preprocess.presets import CHANNELS, INTERPOLATIONS, LAYOUTS, PRESETS, RESIZES, Preprocess

__all__ = [
    "CHANNELS", "INTERPOLATIONS", "LABELS_KEY", "LAYOUTS", "OWN_KEY", "PRESETS", "RESIZES", "Choice", "InputSpec",
    "Preprocess", "PreprocessLike", "choose", "labels_from",
]  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """A model input as declared: ``shape`` has None for dynamic dims, ``dtype`` is NumPy's name.

    ``axes``: for each of (N, C, *space) the axis that holds it, where the model's convolutions tell.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    axes: tuple[int, ...] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """'x' (1, 3, ?, ?) float32."""
        return f"'{self.name}' ({', '.join('?' if d is None else str(d) for d in self.shape)}) {self.dtype}"


@dataclass(frozen=True)
class Choice:
    """A settled ``Preprocess``; ``sources``: each field → "declared: <where>" or "guessed: <why>"."""

    preprocess: Preprocess
    sources: Mapping[str, str]
    warnings: tuple[str, ...]


PreprocessLike = str | os.PathLike[str] | Mapping[str, object] | Preprocess
"""A preset's name or "auto", the path of a JSON form, its content, or the settings themselves."""


def choose(
    request: PreprocessLike,
    spec: InputSpec,
    *,
    metadata: Mapping[str, str],
    model_path: Path | None,
) -> Choice:
    """The preprocessing for ``spec``, with the source of each field.

    ``request`` is "auto", the name of a preset, the path of a JSON file, its content, or a ``Preprocess``.
    "auto" takes the first of: the metadata key ``onnx_gradcam.preprocess``, ``preprocessor_config.json``
    beside the model (Hugging Face), Ultralytics metadata, WinML metadata (onnx, MetadataProps.md), a guess.

    Raises:
        InputError: the input is no image (rank, number of channels, dtype).
        PreprocessError: unknown preset, unreadable file, unknown key, wrong value, or one that does not fit.
    """
    found = detect(metadata, model_path) if request == "auto" else requested(request)
    count, sides = _settle_input(found, spec)
    _fill_guesses(found, spec.dtype, count)
    _settle_size(found, spec, sides)
    _settle_channels(found, spec, count)
    preprocess = Preprocess(**found.values)
    _check_range(preprocess, found.where)
    guesses = [f"{name} {found.values[name]}" for name, source in found.sources.items() if source[0] == "g"]
    if guesses:
        found.warnings.append(
            f"the preprocessing of input {spec} is guessed: {', '.join(guesses)}; "
            f"settle it with --preprocess NAME ({', '.join(PRESETS)}) or --preprocess FILE.json"
        )
    return Choice(preprocess, found.sources, tuple(found.warnings))


# --- fitting it to the model's input ------------------------------------------------------------------------


def _settle_input(found: Found, spec: InputSpec) -> tuple[int | None, tuple[int | None, int | None]]:
    """Settle layout and dtype; return the number of channels and (H, W), None where they are dynamic."""
    shape = tuple(d if d and d > 0 else None for d in spec.shape)
    known = [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] in (1, 3, 4)]
    told = [n for n, axes in LAYOUTS.items() if spec.axes == (0, *axes) and shape[axes[0]] in (1, 3, 4, None)]
    known = told or known
    options = known or [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] is None]
    if not options or not _is_numeric(spec.dtype):
        what = f"a photo does not fit input {spec}: it gives 4 dims with 1, 3 or 4 channels, in numbers"
        hint = "pass a prepared tensor (.npy) instead of a photo"
        raise InputError(what, hint=hint, name=spec.name, shape=spec.shape, dtype=spec.dtype)
    layout = found.values.get("layout", options[0])
    if layout not in options:
        raise _misfit("layout", layout, found, spec)
    if found.where.startswith("model metadata") and _are_floats(found.values.get("dtype"), spec.dtype):
        del found.values["dtype"]  # converting a model to float16 keeps its metadata
    if found.values.get("dtype", spec.dtype) != spec.dtype:
        raise _misfit("dtype", found.values["dtype"], found, spec)
    declared = f"declared: model input '{spec.name}'"
    found.say(declared, dtype=spec.dtype)
    if "layout" not in found.values:
        found.say(declared if known else "guessed: no dim of the model input is 1, 3 or 4", layout=layout)
    channel, height, width = LAYOUTS[layout]
    return shape[channel], (shape[height], shape[width])


def _are_floats(*dtypes: object) -> bool:
    return all(str(dtype).startswith("float") for dtype in dtypes)


def _is_numeric(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "fiu"
    except TypeError:
        return False


def _misfit(key: str, value: object, found: Found, spec: InputSpec) -> PreprocessError:
    what = f"{key} {value} ({found.where}) does not fit model input {spec}"
    return PreprocessError(what, where=found.where, hint=f"change '{key}' or leave it out", key=key, value=value)


def _fill_guesses(found: Found, dtype: str, count: int | None) -> None:
    """Guess what nobody declared, as one preset has it."""
    is_float = np.dtype(dtype).kind == "f"
    name = ("imagenet" if count in (None, 3) else "zero-one") if is_float else "raw"
    guess = replace(PRESETS[name], mean=(128.0,)) if dtype == "int8" else PRESETS[name]
    source = f"guessed: as preset {name}, from shape and dtype"
    if "resize" not in found.values:
        found.say(source, resize=guess.resize, shorter=guess.shorter)
        found.reference = guess.size
    for key in ("scale", "mean", "std", "channels", "interpolation"):
        if key not in found.values:
            found.say(source, **{key: getattr(guess, key)})
    if "pad" not in found.values:
        found.say("declared: not used", pad=guess.pad)


def _settle_size(found: Found, spec: InputSpec, sides: tuple[int | None, int | None]) -> None:
    wanted = found.values.get("size")
    if wanted and any(side not in (None, w) for side, w in zip(sides, wanted, strict=True)):
        if found.strict:
            raise _misfit("size", list(wanted), found, spec)
        found.warnings.append(f"size {list(wanted)} ({found.where}) gives way to model input {spec}")
    height, width = sides
    if height and width:
        found.say(f"declared: model input '{spec.name}'", size=(height, width))
    elif "size" not in found.values:
        side = height or width or 224
        found.say("guessed: the size of the model input is dynamic", size=(height or side, width or side))
    size, reference = found.values["size"], found.reference or wanted
    if size and reference and size != reference and found.values["shorter"]:
        in_proportion = round(found.values["shorter"] * min(size) / min(reference))
        found.values["shorter"] = in_proportion if size[0] == size[1] else None


def _settle_channels(found: Found, spec: InputSpec, count: int | None) -> None:
    count = count or CHANNELS[found.values["channels"]]
    if CHANNELS[found.values["channels"]] != count:
        if found.strict:
            raise _misfit("channels", found.values["channels"], found, spec)
        source = "declared: one channel" if count == 1 else f"guessed: {count} channels"
        found.say(source, channels={1: "L", 3: "RGB", 4: "RGBA"}[count])
    for key, opaque in (("mean", 0.0), ("std", 1.0)):
        given = found.values[key]
        if len(given) == 1:
            found.values[key] = given * count
        elif len(given) != count and found.strict:
            raise _misfit(key, list(given), found, spec)
        elif len(given) != count:
            found.values[key] = (sum(given) / len(given),) if count == 1 else (*given[:3], opaque)[:count]


def _check_range(preprocess: Preprocess, where: str) -> None:
    """An integer input must be able to hold what black and white become, and to tell them apart."""
    dtype = np.dtype(preprocess.dtype)
    if dtype.kind == "f":
        return
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    ends = (np.outer((0, 255 * preprocess.scale), 1 / std) - mean / std).ravel()
    low, high = float(ends.min()), float(ends.max())
    if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max or high - low < 16:
        what = f"{where} gives values from {low:.4g} to {high:.4g}, which a {dtype} input cannot hold"
        hint = "the model input takes whole numbers: preset raw gives 0..255"
        raise PreprocessError(what, where=where, hint=hint, low=low, high=high)
