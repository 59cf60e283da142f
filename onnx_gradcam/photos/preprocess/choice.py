"""How a photo becomes a model's input: specifications, presets, and where each choice comes from. Pure data.

    value = (pixel · scale − mean) / std,    pixel in 0..255

``choose`` fills every field of a ``Preprocess`` and records for each whether the user chose it, a file or the model
declared it, it is a default, or a guess. The JSON form of a ``Preprocess`` is ``dataclasses.asdict`` of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.photos.preprocess.evidence import NO_EVIDENCE, TENSORFLOW, Evidence
from onnx_gradcam.photos.preprocess.form import CHOSEN, EXAMPLE, Settings, preset, read_request
from onnx_gradcam.photos.preprocess.guess import guess_for, guess_size
from onnx_gradcam.photos.preprocess.metadata import LABELS_KEY, OWN_KEY, detect, labels_from
from onnx_gradcam.photos.preprocess.presets import (
    CHANNELS,
    INTERPOLATIONS,
    LAYOUTS,
    PRESETS,
    RESIZES,
    Preprocess,
    Size,
    rescale_shorter,
)
from onnx_gradcam.photos.preprocess.short import AUTO, read_short

__all__ = [
    "CHANNELS", "INTERPOLATIONS", "LABELS_KEY", "LAYOUTS", "OWN_KEY", "PRESETS", "RESIZES", "Choice", "InputSpec",
    "Preprocess", "PreprocessLike", "choose", "labels_from",
]  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """An input of a model, as the model declares it.

    >>> str(InputSpec("x", (1, 3, None, None), "float32"))
    "'x' (1, 3, ?, ?) float32"

    Attributes:
        name: its name in the model.
        shape: its axes; None for an axis of dynamic length.
        dtype: NumPy's name of its dtype.
        axes: the axes that hold (N, C, *space), as the model's convolutions read them; None where no convolution reads
            the input.
        is_open: whether not even the number of axes is declared; the shape is () then.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    axes: tuple[int, ...] | None = field(default=None, compare=False)
    is_open: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """Return name, shape and dtype, such as "'x' (1, 3, ?, ?) float32"."""
        shape = "?" if self.is_open else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"'{self.name}' ({shape}) {self.dtype}"


@dataclass(frozen=True)
class Choice:
    """A complete ``Preprocess``, with the source of each field.

    Attributes:
        preprocess: how a photo becomes the model's input.
        sources: for each field of ``preprocess`` "declared: <file, metadata or model input>", "chosen: <what the user
            named>", "default: <of what>" or "guessed: <why>".
        warnings: what the user should know, one sentence each.
    """

    preprocess: Preprocess
    sources: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def guessed(self) -> tuple[str, ...]:
        """Return the names of the fields that are guessed."""
        return tuple(name for name, source in self.sources.items() if source.startswith("guessed"))

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of the preprocessing: for each field its value and its source."""
        return {k: {"value": v, "source": self.sources.get(k, "")} for k, v in asdict(self.preprocess).items()}


PreprocessLike = str | os.PathLike[str] | Mapping[str, object] | Preprocess
"""A preset's name or "auto", a short form, the path of a JSON form, its content, or the settings themselves."""


def choose(
    request: PreprocessLike,
    spec: InputSpec,
    *,
    metadata: Mapping[str, str],
    model_path: Path | None,
    family: str = "",
    evidence: Evidence = NO_EVIDENCE,
) -> Choice:
    """Return the preprocessing for an input, with the source of each field.

    Args:
        request: the name of a preset, a short form ("raw,BGR,letterbox"), the path of a JSON file, its content, or a
            ``Preprocess``. "auto" takes the first of these that is there: the metadata key
            ``onnx_gradcam.preprocess``, ``preprocessor_config.json`` beside the model (Hugging Face), Ultralytics
            metadata, WinML metadata (onnx, MetadataProps.md), a guess.
        spec: the input that takes the photo.
        metadata: the metadata properties of the model.
        model_path: the file of the model, None where it has none.
        family: what the model gives, which guesses go by: a key of ``guess.GUESSES``, or another.
        evidence: what the model file tells of the numbers in its input.

    Raises:
        InputError: the input takes no photos: its rank, its number of channels or its dtype is another one.
        PreprocessError: an unknown preset or key, a file that cannot be read, a wrong value, or a value that does not
            fit the input.
    """
    settings = _read(request, metadata, model_path)
    count, sides = _settle_input(settings, spec)
    if settings.values["layout"] == "NHWC" and not evidence.framework:
        evidence = replace(evidence, framework=TENSORFLOW, origin="its input is NHWC, as TensorFlow's are")
    _fill_guesses(settings, guess_for(family, spec.dtype, count, sides, evidence))
    _settle_size(settings, spec, sides, family, evidence.stride)
    _settle_channels(settings, spec, count)
    preprocess = Preprocess(**settings.values)
    _check_range(preprocess, settings.where)
    guesses = [f"{name} {settings.values[name]}" for name, source in settings.sources.items() if source[0] == "g"]
    if guesses:
        source = settings.sources["scale"]
        why = f" ({source.removeprefix('guessed: ')})" if source.startswith("guessed") else ""
        settings.warnings.append(
            f"the preprocessing of input {spec} is guessed: {', '.join(guesses)}{why}; "
            f"set it with --preprocess NAME ({', '.join(PRESETS)}), --preprocess {EXAMPLE} or --preprocess FILE.json; "
            "inspect MODEL --image PHOTO shows what fits"
        )
    return Choice(preprocess, settings.sources, tuple(settings.warnings))


def _read(request: PreprocessLike, metadata: Mapping[str, str], model_path: Path | None) -> Settings:
    """Return the settings that are declared: by the model, or by the user for it."""
    if request == AUTO:
        return detect(metadata, model_path)
    short = read_short(request) if isinstance(request, str) and request not in PRESETS else None
    if short is None:
        return read_request(request)
    base = detect(metadata, model_path) if short.base == AUTO else preset(short.base, f"preset {short.base}", CHOSEN)
    base.says = CHOSEN
    base.write(f"{request!r}", short.fields)
    base.where = f"{request!r}"
    return base


# --- fitting the settings to the model's input ------------------------------------------------------------------------


def _settle_input(settings: Settings, spec: InputSpec) -> tuple[int | None, Size]:
    """Fill layout and dtype; return the number of channels and (H, W), None where they are dynamic."""
    shape = tuple(d if d and d > 0 else None for d in spec.shape)
    known = [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] in (1, 3, 4)]
    by_convolutions = [
        n for n, axes in LAYOUTS.items() if spec.axes == (0, *axes) and shape[axes[0]] in (1, 3, 4, None)
    ]
    known = by_convolutions or known
    options = known or [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] is None]
    if not options or not _is_numeric(spec.dtype):
        what = f"a photo does not fit input {spec}: it needs 4 axes, 1, 3 or 4 channels, and a numeric dtype"
        hint = "pass a prepared tensor (.npy) instead of a photo"
        raise InputError(what, hint=hint, name=spec.name, shape=spec.shape, dtype=spec.dtype)
    layout = settings.values.get("layout", options[0])
    if layout not in options:
        raise _misfit("layout", layout, settings, spec)
    if settings.where.startswith("model metadata") and _are_floats(settings.values.get("dtype"), spec.dtype):
        del settings.values["dtype"]  # converting a model to float16 keeps its metadata
    if settings.values.get("dtype", spec.dtype) != spec.dtype:
        raise _misfit("dtype", settings.values["dtype"], settings, spec)
    declared = f"declared: model input '{spec.name}'"
    settings.add(declared, dtype=spec.dtype)
    if "layout" not in settings.values:
        settings.add(declared if known else "guessed: no dim of the model input is 1, 3 or 4", layout=layout)
    channel, height, width = LAYOUTS[layout]
    return shape[channel], (shape[height], shape[width])


def _are_floats(*dtypes: object) -> bool:
    return all(str(dtype).startswith("float") for dtype in dtypes)


def _is_numeric(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "fiu"
    except TypeError:
        return False


def _misfit(key: str, value: object, settings: Settings, spec: InputSpec) -> PreprocessError:
    what = f"{key} {value} ({settings.where}) does not fit model input {spec}"
    return PreprocessError(what, where=settings.where, hint=f"change '{key}' or leave it out", key=key, value=value)


def _fill_guesses(settings: Settings, guessed: tuple[Preprocess, str, str]) -> None:
    """Fill what nobody declared with the values of one preset."""
    guess, source, why = guessed
    if "resize" not in settings.values:
        settings.add(why, resize=guess.resize)
        if "shorter" not in settings.values:
            settings.add(why, shorter=guess.shorter)
            settings.reference = guess.size
    settings.values.setdefault("shorter", None)
    settings.sources.setdefault("shorter", settings.sources["resize"])
    for key in ("scale", "mean", "std", "channels", "interpolation"):
        if key not in settings.values:
            settings.add(source, **{key: getattr(guess, key)})
    if "pad" not in settings.values:
        is_used = settings.values["resize"].startswith("letterbox")
        settings.add(why if is_used else "default: not used", pad=guess.pad)


def _settle_size(settings: Settings, spec: InputSpec, sides: Size, family: str, stride: int) -> None:
    declared = settings.values.get("size")
    if declared and any(None not in (d, side) and side != d for side, d in zip(sides, declared, strict=True)):
        if "size" in settings.own:
            raise _misfit("size", list(declared), settings, spec)
        settings.warnings.append(f"size {list(declared)} ({settings.where}) is replaced by that of model input {spec}")
    if None not in sides:
        settings.add(f"declared: model input '{spec.name}'", size=sides)
    elif "size" not in settings.values:
        _guess_size(settings, sides, family, stride)
    for name, value in {"longest": None, "multiple": 1, "window": None}.items():
        settings.values.setdefault(name, value)
        settings.sources.setdefault(name, "default: not used")
    reference = settings.reference or declared
    settings.values["shorter"] = rescale_shorter(settings.values["shorter"], settings.values["size"], reference)


def _guess_size(settings: Settings, sides: Size, family: str, stride: int) -> None:
    """Fill the size of an input that leaves a side open."""
    size, longest = guess_size(family, sides, settings.values["resize"] == "crop")
    why = "guessed: the size of the model input is dynamic"
    settings.add(why if size else f"{why}: the photo's own", size=size)
    own = {} if size else {"longest": longest, "multiple": stride}
    settings.add(
        f"guessed: the photo's own size, in multiples of the stride, {stride}",
        **{name: value for name, value in own.items() if name not in settings.values},
    )


def _settle_channels(settings: Settings, spec: InputSpec, count: int | None) -> None:
    count = count or CHANNELS[settings.values["channels"]]
    if CHANNELS[settings.values["channels"]] != count:
        if "channels" in settings.own:
            raise _misfit("channels", settings.values["channels"], settings, spec)
        source = f"declared: model input '{spec.name}'" if count == 1 else f"guessed: {count} channels"
        settings.add(source, channels={1: "L", 3: "RGB", 4: "RGBA"}[count])
    for key, opaque in (("mean", 0.0), ("std", 1.0)):
        values = settings.values[key]
        if len(values) == 1:
            settings.values[key] = values * count
        elif len(values) != count and key in settings.own:
            raise _misfit(key, list(values), settings, spec)
        elif len(values) != count:
            settings.values[key] = (sum(values) / len(values),) if count == 1 else (*values[:3], opaque)[:count]


def _check_range(preprocess: Preprocess, where: str) -> None:
    """Raise ``PreprocessError`` unless an integer input can hold black and white, and tell them apart."""
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
