"""The preprocessing and the labels that a model's metadata, or a file beside it, declare."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.photos.preprocess.form import Settings, read_form
from onnx_gradcam.photos.preprocess.presets import PRESETS
from onnx_gradcam.photos.preprocess.values import (
    as_number,
    as_numbers,
    as_pixels,
    as_positive,
    as_size,
    read_json,
    read_object,
)

OWN_KEY, LABELS_KEY = "onnx_gradcam.preprocess", "onnx_gradcam.labels"
"""Keys of model metadata: the JSON form of the model's ``Preprocess``, and a JSON list of its class names."""
BESIDE = "preprocessor_config.json"
"""The name of Hugging Face's file beside a model."""


def labels_from(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the class names in the model's metadata, by class index, or None where there are none.

    They stand under our own key, or under ``names`` (Ultralytics).

    Raises:
        PreprocessError: our own key does not hold a JSON list of strings.
    """
    if LABELS_KEY in metadata:
        names = read_json(metadata[LABELS_KEY], f"model metadata '{LABELS_KEY}'")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise PreprocessError(f"model metadata '{LABELS_KEY}' is not a JSON list of strings", key=LABELS_KEY)
        return tuple(names)
    names = _literal(metadata.get("names", ""))
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names or not all(isinstance(k, int) and k >= 0 for k in names):
        return None
    return tuple(str(names.get(i, i)) for i in range(max(names) + 1))


def detect(metadata: Mapping[str, str], model_path: Path | None) -> Settings:
    """Return the settings that a model comes with, from the first place that has some.

    The places are our own metadata key, Hugging Face's file beside the model, Ultralytics metadata, WinML metadata.

    Raises:
        PreprocessError: the settings cannot be read.
    """
    if OWN_KEY in metadata:
        where = f"model metadata '{OWN_KEY}'"
        return read_form(read_object(metadata[OWN_KEY], where), where)
    path = model_path.parent / BESIDE if model_path else None
    config = read_object(path) if path and path.is_file() else {}
    if {"size", "crop_size", "image_mean", "rescale_factor"} & config.keys():
        return _hugging_face(config, str(path))
    if {"stride", "names"} <= metadata.keys():
        return _ultralytics(metadata)
    image = {k.lower(): v.lower() for k, v in metadata.items() if k.lower().startswith("image.")}
    return _winml(image) if image else Settings()


_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "linear", 3: "cubic", 4: "area"}
_HF_APPLIED = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_flip_channel_order",
    "do_convert_rgb",
}


def _hugging_face(config: Mapping[str, Any], where: str) -> Settings:
    """Return the settings in ``preprocessor_config.json``; missing keys have the defaults of transformers."""
    settings = Settings(where=where)
    try:
        values = _hugging_face_size(config) | _hugging_face_values(config)
    except (TypeError, ValueError, KeyError) as error:
        hint = f"correct the file, or pass --preprocess NAME ({', '.join(PRESETS)}) or --preprocess FILE.json"
        raise PreprocessError(f"cannot use {where}: {error}", where=where, hint=hint) from None
    settings.add("default: of transformers", pad=0.0, **_hugging_face_defaults(values, config))
    if config.get("resample") in _PIL_FILTERS:
        values["interpolation"] = _PIL_FILTERS[config["resample"]]
    settings.add(f"declared: {where}", **values)
    if unknown := [k for k, v in config.items() if k.startswith("do_") and v and k not in _HF_APPLIED]:
        settings.warnings.append(f"{', '.join(unknown)} in {where} is not applied")
    return settings


def _hugging_face_defaults(values: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Move what the file does not say out of ``values``, and return it."""
    if "do_flip_channel_order" in config:
        values["channels"] = "BGR" if config["do_flip_channel_order"] else "RGB"
    scale = {} if {"rescale_factor", "do_rescale"} & config.keys() else {"scale": values.pop("scale")}
    return scale if "channels" in values else {**scale, "channels": "RGB"}


def _hugging_face_values(config: Mapping[str, Any]) -> dict[str, Any]:
    scale = as_number(config.get("rescale_factor", 1 / 255), 0) if config.get("do_rescale", True) else 1.0
    offset = 127.5 * scale if config.get("rescale_offset") else 0.0
    if not config.get("do_normalize", True):
        return {"scale": scale, "mean": (offset,), "std": (1.0,)}
    if "image_mean" not in config or "image_std" not in config:
        return {"scale": scale}
    mean, std = (m + offset for m in as_numbers(config["image_mean"])), as_positive(config["image_std"])
    # EfficientNet's processor divides by image_std once more when the classifier is included.
    power = 2 if config.get("include_top") else 1
    return {"scale": scale, "mean": tuple(mean), "std": tuple(s**power for s in std)}


def _hugging_face_size(config: Mapping[str, Any]) -> dict[str, Any]:
    size, crop, fraction = config.get("size"), config.get("crop_size"), config.get("crop_pct")
    cropped = bool(config.get("do_center_crop")) and crop is not None
    target = {"size": as_size([crop["height"], crop["width"]] if isinstance(crop, dict) else crop)} if cropped else {}
    if not config.get("do_resize", True) or size is None or (isinstance(size, dict) and "longest_edge" in size):
        return target
    if isinstance(size, int):
        size = {"shortest_edge": size} if cropped or fraction else {"height": size, "width": size}
    if "shortest_edge" not in size:
        stretched = as_size([size["height"], size["width"]])
        return {
            "resize": "stretch",
            "shorter": min(stretched) if cropped else None,
            "size": stretched,
        } | target
    edge = as_pixels(size["shortest_edge"])
    if fraction and not cropped and edge >= 384:  # ConvNeXt's processor crops below 384 pixels only
        return {"resize": "stretch", "shorter": None, "size": (edge, edge)}
    if fraction:
        return {"resize": "crop", "shorter": int(edge / as_number(fraction, 0)), "size": (edge, edge)} | target
    return {"resize": "crop", "shorter": edge} | target


def _ultralytics(metadata: Mapping[str, str]) -> Settings:
    """Return the settings in Ultralytics metadata: stride and names (YOLOv5), in later versions also task and imgsz."""
    settings = Settings(where="Ultralytics metadata")
    settings.add("default: of Ultralytics", scale=1 / 255, mean=(0.0,), std=(1.0,), channels="RGB", pad=114.0)
    task = metadata.get("task")
    source = "declared: Ultralytics metadata 'task'" if task else "guessed: Ultralytics metadata without 'task'"
    classify = {"resize": "crop", "interpolation": "linear"}
    detect = {"resize": "letterbox", "interpolation": "linear-aliased"}
    settings.add(source, shorter=None, **(classify if task == "classify" else detect))
    size = _literal(metadata.get("imgsz", ""))
    if isinstance(size, list | tuple) and len(size) == 2:
        settings.add("declared: Ultralytics metadata 'imgsz'", size=as_size(size))
    return settings


_WINML_CHANNELS = {"gray8": "L", "rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA"}
_WINML_RANGES = {  # scale and mean
    "nominalrange_0_255": (1.0, 0.0),
    "normalized_0_1": (1 / 255, 0.0),
    "normalized_1_1": (1 / 127.5, 1.0),
    "nominalrange_16_235": (219 / 255, -16.0),
}


def _winml(image: Mapping[str, str]) -> Settings:
    """Return the settings in ``Image.*`` metadata, keys and values in lower case (onnx/docs/MetadataProps.md)."""
    settings = Settings(where="WinML metadata")
    if (pixel := image.get("image.bitmappixelformat")) in _WINML_CHANNELS:
        settings.add("declared: model metadata 'Image.BitmapPixelFormat'", channels=_WINML_CHANNELS[pixel])
    known = image.get("image.nominalpixelrange") in _WINML_RANGES
    scale, mean = _WINML_RANGES[image["image.nominalpixelrange"] if known else "nominalrange_0_255"]
    source = "declared: model metadata 'Image.NominalPixelRange'" if known else "guessed: the default of WinML"
    settings.add(source, scale=scale, mean=(mean,), std=(1.0,))
    settings.add("guessed: WinML crops to the input's proportions", resize="crop", shorter=None)
    if image.get("image.colorspacegamma") == "linear":
        settings.warnings.append("model metadata 'Image.ColorSpaceGamma' Linear is not applied: pixels stay sRGB")
    return settings


def _literal(text: str) -> Any:
    """Return the value of a text, which Ultralytics writes with ``str``; None where the text is something else."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
