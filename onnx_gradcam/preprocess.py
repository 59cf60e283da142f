"""How a photo becomes a model's input: specifications, presets, and where each choice comes from. Pure data.

    value = (pixel · scale − mean) / std,    pixel in 0..255

``choose`` settles every field of a ``Preprocess`` and says of each whether somebody declared it (the user, a
file, the model) or whether it was guessed. The JSON form of a ``Preprocess`` is ``dataclasses.asdict`` of it.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, PreprocessError, nearest

RESIZES = ("crop", "stretch", "letterbox")
INTERPOLATIONS = ("linear", "cubic", "lanczos", "area", "nearest", "linear-aliased")
CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
LAYOUTS = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}
"""Layout → the axes of channels, height and width."""

OWN_KEY, LABELS_KEY = "onnx_gradcam.preprocess", "onnx_gradcam.labels"
"""Model metadata: the JSON form of its ``Preprocess``; a JSON list of its class names."""


@dataclass(frozen=True)
class Preprocess:
    """One way from a photo (H, W, 3) uint8 RGB to a model input: value = (pixel · scale − mean) / std.

    Attributes:
        size: (H, W) of the model input; None: the photo's own, after ``shorter`` where that is given.
        resize: "crop": the photo's shorter side becomes ``shorter``, the centre is cut out (torchvision);
            "stretch": each side by itself, to ``size``; where ``shorter`` is given, to ``size`` enlarged
            until its shorter side is ``shorter``, and the centre is cut out;
            "letterbox": the largest copy that fits, centred, the rest filled with ``pad``.
        shorter: see ``resize``. None: crop takes the smallest copy that fills it, stretch cuts nothing.
        scale: factor on the pixel.
        mean: one for each channel, in the order of ``channels``, in units of pixel · scale.
        std: like ``mean``.
        channels: "RGB", "BGR", "L" (luma, ITU-R BT.601), "RGBA", "BGRA" (with an opaque alpha, 255).
        layout: "NCHW" or "NHWC".
        dtype: NumPy's name of the model input's dtype; values for integers are rounded.
        pad: pixel value where the photo does not reach.
        interpolation: "linear", "cubic", "lanczos" and "area" widen their filter when they shrink, as Pillow,
            torchvision and Hugging Face do; "nearest" and "linear-aliased" (OpenCV's INTER_LINEAR) do not.
    """

    size: tuple[int, int] | None
    resize: str
    shorter: int | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str
    layout: str
    dtype: str
    pad: float = 114.0
    interpolation: str = "linear"


@dataclass(frozen=True)
class InputSpec:
    """A model input as declared: ``shape`` has None for dynamic dims, ``dtype`` is NumPy's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """'x' (1, 3, ?, ?) float32."""
        return f"'{self.name}' ({', '.join('?' if d is None else str(d) for d in self.shape)}) {self.dtype}"


@dataclass(frozen=True)
class Choice:
    """A settled ``Preprocess``; ``sources``: each field → "declared: <where>" or "guessed: <why>"."""

    preprocess: Preprocess
    sources: Mapping[str, str]
    warnings: tuple[str, ...]


_ZEROS, _ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_IMAGENET = Preprocess(
    (224, 224), "crop", 256, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB", "NCHW", "float32"
)
_RAW = replace(_IMAGENET, resize="stretch", shorter=None, scale=1.0, mean=_ZEROS, std=_ONES)

PRESETS: dict[str, Preprocess] = {
    "imagenet": _IMAGENET,
    "imagenet-caffe": replace(_IMAGENET, scale=1.0, mean=(103.939, 116.779, 123.68), std=_ONES, channels="BGR"),
    "tf": replace(_RAW, scale=1 / 127.5, mean=_ONES),
    "zero-one": replace(_RAW, scale=1 / 255),
    "raw": _RAW,
}
"""Name → the specification at 224 × 224; ``choose`` fits it to the model's size, layout and dtype."""


def choose(
    request: str | os.PathLike[str] | Mapping[str, object] | Preprocess,
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
    found = _detect(metadata, model_path) if request == "auto" else _requested(request)
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


def labels_from(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names that the model carries, by class index (ours, or Ultralytics ``names``), else None.

    Raises:
        PreprocessError: our own key does not hold a JSON list of strings.
    """
    if LABELS_KEY in metadata:
        names = _json(metadata[LABELS_KEY], f"model metadata '{LABELS_KEY}'")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise PreprocessError(f"model metadata '{LABELS_KEY}' is not a JSON list of strings", key=LABELS_KEY)
        return tuple(names)
    names = _literal(metadata.get("names", ""))
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names or not all(isinstance(k, int) and k >= 0 for k in names):
        return None
    return tuple(str(names.get(i, i)) for i in range(max(names) + 1))


@dataclass
class _Found:
    """What one place says: some fields of ``Preprocess``, and the source of each.

    ``reference``: the model size that ``shorter`` is meant for. ``strict``: written for this very model, so
    what does not fit is an error; presets and other tools' files give way to the model's input.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    where: str = "the guess"
    reference: tuple[int, int] | None = None
    strict: bool = False

    def say(self, source: str, **values: Any) -> None:
        self.values |= values
        self.sources |= dict.fromkeys(values, source)


# --- what the user asks for ---------------------------------------------------------------------------------


def _requested(request: str | os.PathLike[str] | Mapping[str, object] | Preprocess) -> _Found:
    if isinstance(request, Preprocess):
        return _parse(asdict(request), "the preprocess argument")
    if isinstance(request, Mapping):
        return _parse(request, "the preprocess argument")
    if isinstance(request, str) and request in PRESETS:
        return _preset(request, f"preset {request}")
    path = Path(request)
    if isinstance(request, str) and path.suffix.lower() != ".json" and not path.is_file():
        known = ("auto", *PRESETS)
        hint = f"{nearest(request, known)}; known: {', '.join(known)}, or the path of a JSON file"
        raise PreprocessError(f"unknown preprocessing '{request}'", hint=hint, name=request)
    return _parse(_object(path), str(path))


def _preset(name: str, where: str) -> _Found:
    found = _Found(where=where, reference=PRESETS[name].size)
    found.say(f"declared: {where}", **asdict(PRESETS[name]))
    for key in ("size", "layout", "dtype"):  # these are the model's
        del found.values[key], found.sources[key]
    return found


def _parse(form: Mapping[str, Any], where: str) -> _Found:
    """The JSON form: the fields of ``Preprocess``, or ``preset`` and the fields that differ from it."""
    if unknown := [k for k in form if k not in _FIELDS]:
        hint = f"{nearest(unknown[0], _FIELDS)}; known: {', '.join(_FIELDS)}"
        raise PreprocessError(f"unknown key '{unknown[0]}' in {where}", where=where, hint=hint, key=unknown[0])
    given: dict[str, Any] = {}
    for key, (parse, allowed) in _FIELDS.items():
        if key in form:
            try:
                given[key] = parse(form[key])
            except (TypeError, ValueError):
                what = f"wrong value {form[key]!r} for '{key}' in {where}"
                raise PreprocessError(what, where=where, hint=f"{key}: {allowed}", key=key, value=form[key]) from None
    if "preset" in given:
        found = _preset(given.pop("preset"), where)
    elif missing := [k for k in ("resize", "scale", "mean", "std", "channels") if k not in given]:
        hint = 'add them, or name what to start from: {"preset": "imagenet", ...}'
        raise PreprocessError(f"{where} lacks {', '.join(missing)}", where=where, hint=hint, missing=missing)
    else:
        found = _Found(where=where)
        found.say(f"declared: default of {where}", shorter=None, pad=114.0, interpolation="linear")
    found.say(f"declared: {where}", **given)
    found.strict = True
    if "shorter" in given:
        found.reference = None
    return found


def _number(value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ValueError(f"{value!r} is not a number in the range that is allowed")
    return float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(_number(v) for v in (value if isinstance(value, list | tuple) and value else (value,)))


def _positive(value: Any) -> tuple[float, ...]:
    return tuple(_number(v, 0) for v in _numbers(value))


def _pixels(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a positive whole number")
    return value


def _size(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return _pixels(height), _pixels(width)


def _one_of(known: Iterable[str]) -> tuple[Callable[[Any], str], str]:
    names = tuple(known)
    return lambda value: names[names.index(value)], "one of " + ", ".join(names)


_FIELDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "preset": _one_of(PRESETS),
    "size": (lambda v: v if v is None else _size(v), "[H, W], one number, or null for the photo's own size"),
    "resize": _one_of(RESIZES),
    "shorter": (lambda v: v if v is None else _pixels(v), "a positive whole number of pixels, or null"),
    "scale": (lambda v: _number(v, 0), "a number above 0"),
    "mean": (_numbers, "a number, or one for each channel"),
    "std": (_positive, "a number above 0, or one for each channel"),
    "channels": _one_of(CHANNELS),
    "layout": _one_of(LAYOUTS),
    "dtype": (lambda v: np.dtype(v).name, "a dtype such as float32, float16, uint8"),
    "pad": (_number, "a pixel value, 0..255"),
    "interpolation": _one_of(INTERPOLATIONS),
}


# --- what the model and the files beside it say -------------------------------------------------------------


def _detect(metadata: Mapping[str, str], model_path: Path | None) -> _Found:
    if OWN_KEY in metadata:
        where = f"model metadata '{OWN_KEY}'"
        return _parse(_object(metadata[OWN_KEY], where), where)
    path = model_path.parent / "preprocessor_config.json" if model_path else None
    config = _object(path) if path and path.is_file() else {}
    if {"size", "crop_size", "image_mean", "rescale_factor"} & config.keys():
        return _hugging_face(config, str(path))
    if {"stride", "names"} <= metadata.keys():
        return _ultralytics(metadata)
    image = {k.lower(): v.lower() for k, v in metadata.items() if k.lower().startswith("image.")}
    return _winml(image) if image else _Found()


_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "linear", 3: "cubic", 4: "area"}
_HF_APPLIED = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_flip_channel_order",
    "do_convert_rgb",
}


def _hugging_face(config: Mapping[str, Any], where: str) -> _Found:
    """``preprocessor_config.json``; an absent key means what transformers' processors take it to mean."""
    found = _Found(where=where)
    try:
        values = _hugging_face_size(config) | _hugging_face_values(config)
    except (TypeError, ValueError, KeyError) as error:
        hint = f"mend the file, or pass --preprocess NAME ({', '.join(PRESETS)}) or --preprocess FILE.json"
        raise PreprocessError(f"cannot use {where}: {error}", where=where, hint=hint) from None
    values["channels"] = "BGR" if config.get("do_flip_channel_order") else "RGB"
    if config.get("resample") in _PIL_FILTERS:
        values["interpolation"] = _PIL_FILTERS[config["resample"]]
    found.say(f"declared: {where}", pad=0.0, **values)
    if unknown := [k for k, v in config.items() if k.startswith("do_") and v and k not in _HF_APPLIED]:
        found.warnings.append(f"{', '.join(unknown)} in {where} is not applied")
    return found


def _hugging_face_values(config: Mapping[str, Any]) -> dict[str, Any]:
    scale = _number(config.get("rescale_factor", 1 / 255), 0) if config.get("do_rescale", True) else 1.0
    offset = 127.5 * scale if config.get("rescale_offset") else 0.0
    if not config.get("do_normalize", True):
        return {"scale": scale, "mean": (offset,), "std": (1.0,)}
    if "image_mean" not in config or "image_std" not in config:
        return {"scale": scale}
    mean, std = (m + offset for m in _numbers(config["image_mean"])), _positive(config["image_std"])
    # EfficientNet's processor divides by image_std once more when the classifier is included.
    power = 2 if config.get("include_top") else 1
    return {"scale": scale, "mean": tuple(mean), "std": tuple(s**power for s in std)}


def _hugging_face_size(config: Mapping[str, Any]) -> dict[str, Any]:
    size, crop, fraction = config.get("size"), config.get("crop_size"), config.get("crop_pct")
    cropped = bool(config.get("do_center_crop")) and crop is not None
    target = {"size": _size([crop["height"], crop["width"]] if isinstance(crop, dict) else crop)} if cropped else {}
    if not config.get("do_resize", True) or size is None or (isinstance(size, dict) and "longest_edge" in size):
        return target
    if isinstance(size, int):
        size = {"shortest_edge": size} if cropped or fraction else {"height": size, "width": size}
    if "shortest_edge" not in size:
        stretched = _size([size["height"], size["width"]])
        return {
            "resize": "stretch",
            "shorter": min(stretched) if cropped else None,
            "size": stretched,
        } | target
    edge = _pixels(size["shortest_edge"])
    if fraction and not cropped and edge >= 384:  # ConvNeXt's processor crops below 384 pixels only
        return {"resize": "stretch", "shorter": None, "size": (edge, edge)}
    if fraction:
        return {"resize": "crop", "shorter": int(edge / _number(fraction, 0)), "size": (edge, edge)} | target
    return {"resize": "crop", "shorter": edge} | target


def _ultralytics(metadata: Mapping[str, str]) -> _Found:
    """YOLOv5 exports carry stride and names, later ones task and imgsz too."""
    found = _Found(where="Ultralytics metadata")
    found.say("declared: Ultralytics metadata", scale=1 / 255, mean=(0.0,), std=(1.0,), channels="RGB", pad=114.0)
    task = metadata.get("task")
    source = "declared: Ultralytics metadata 'task'" if task else "guessed: Ultralytics metadata without 'task'"
    classify = {"resize": "crop", "interpolation": "linear"}
    detect = {"resize": "letterbox", "interpolation": "linear-aliased"}
    found.say(source, shorter=None, **(classify if task == "classify" else detect))
    size = _literal(metadata.get("imgsz", ""))
    if isinstance(size, list | tuple) and len(size) == 2:
        found.say("declared: Ultralytics metadata 'imgsz'", size=_size(size))
    return found


_WINML_CHANNELS = {"gray8": "L", "rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA"}
_WINML_RANGES = {  # scale and mean
    "nominalrange_0_255": (1.0, 0.0),
    "normalized_0_1": (1 / 255, 0.0),
    "normalized_1_1": (1 / 127.5, 1.0),
    "nominalrange_16_235": (219 / 255, -16.0),
}


def _winml(image: Mapping[str, str]) -> _Found:
    """``Image.*`` metadata, keys and values in lower case (onnx/docs/MetadataProps.md)."""
    found = _Found(where="WinML metadata")
    if (pixel := image.get("image.bitmappixelformat")) in _WINML_CHANNELS:
        found.say("declared: model metadata 'Image.BitmapPixelFormat'", channels=_WINML_CHANNELS[pixel])
    known = image.get("image.nominalpixelrange") in _WINML_RANGES
    scale, mean = _WINML_RANGES[image["image.nominalpixelrange"] if known else "nominalrange_0_255"]
    source = "declared: model metadata 'Image.NominalPixelRange'" if known else "guessed: the default of WinML"
    found.say(source, scale=scale, mean=(mean,), std=(1.0,))
    found.say("guessed: WinML crops to the input's proportions", resize="crop", shorter=None)
    if image.get("image.colorspacegamma") == "linear":
        found.warnings.append("model metadata 'Image.ColorSpaceGamma' Linear is not applied: pixels stay sRGB")
    return found


def _object(source: Path | str, where: str = "") -> dict[str, Any]:
    where = where or str(source)
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise PreprocessError(f"cannot read {where}: {error}", where=where, hint="a JSON file in UTF-8") from None
    content = _json(text, where)
    if not isinstance(content, dict):
        raise PreprocessError(f"{where} is not a JSON object", where=where, hint='{"preset": "imagenet", ...}')
    return content


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PreprocessError(f"{where} is not JSON: {error}", where=where, hint="mend the JSON") from None


def _literal(text: str) -> Any:
    """Ultralytics writes ``str(value)``; whatever else stands under its keys is not for us."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


# --- fitting it to the model's input ------------------------------------------------------------------------


def _settle_input(found: _Found, spec: InputSpec) -> tuple[int | None, tuple[int | None, int | None]]:
    """Settle layout and dtype; return the number of channels and (H, W), None where they are dynamic."""
    shape = tuple(d if d and d > 0 else None for d in spec.shape)
    known = [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] in (1, 3, 4)]
    options = known or [n for n, axes in LAYOUTS.items() if len(shape) == 4 and shape[axes[0]] is None]
    if not options or not _is_numeric(spec.dtype):
        what = f"a photo does not fit input {spec}: it gives 4 dims with 1, 3 or 4 channels, in numbers"
        hint = "pass a prepared tensor (.npy) instead of a photo"
        raise InputError(what, hint=hint, name=spec.name, shape=spec.shape, dtype=spec.dtype)
    layout = found.values.get("layout", options[0])
    if layout not in options:
        raise _misfit("layout", layout, found, spec)
    if found.values.get("dtype", spec.dtype) != spec.dtype:
        raise _misfit("dtype", found.values["dtype"], found, spec)
    declared = f"declared: model input '{spec.name}'"
    found.say(declared, dtype=spec.dtype)
    if "layout" not in found.values:
        found.say(declared if known else "guessed: no dim of the model input is 1, 3 or 4", layout=layout)
    channel, height, width = LAYOUTS[layout]
    return shape[channel], (shape[height], shape[width])


def _is_numeric(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "fiu"
    except TypeError:
        return False


def _misfit(key: str, value: object, found: _Found, spec: InputSpec) -> PreprocessError:
    what = f"{key} {value} ({found.where}) does not fit model input {spec}"
    return PreprocessError(what, where=found.where, hint=f"change '{key}' or leave it out", key=key, value=value)


def _fill_guesses(found: _Found, dtype: str, count: int | None) -> None:
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


def _settle_size(found: _Found, spec: InputSpec, sides: tuple[int | None, int | None]) -> None:
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


def _settle_channels(found: _Found, spec: InputSpec, count: int | None) -> None:
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
