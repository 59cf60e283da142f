"""The preprocessing that a user or a file requests: the name of a preset, or the JSON form of a ``Preprocess``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import PreprocessError, nearest
from onnx_gradcam.photos.preprocess.presets import (
    CHANNELS,
    INTERPOLATIONS,
    LAYOUTS,
    PRESETS,
    RESIZES,
    Preprocess,
    Size,
)
from onnx_gradcam.photos.preprocess.values import (
    as_number,
    as_numbers,
    as_open_size,
    as_pixels,
    as_positive,
    as_window,
    names_file,
    read_object,
)

EXAMPLE = "raw,BGR,letterbox"
"""A short form: a preset, and what differs from it."""


DECLARED, CHOSEN = "declared", "chosen"


@dataclass
class Settings:
    """Some fields of a ``Preprocess``, with the source of each; the rest is filled in later.

    Attributes:
        values: the fields, by name.
        sources: for each field "declared: <file, metadata or model input>", "chosen: <what the user named>",
            "default: <of what>" or "guessed: <why>".
        warnings: what the user should know, one sentence each.
        where: the user's argument, the file or the metadata that the fields come from.
        reference: the size (H, W) of the model input that ``shorter`` is meant for.
        says: what the fields of ``where`` are: ``DECLARED`` by a file or a model, or ``CHOSEN`` by the user.
        own: the fields that were written for this very model. One that does not fit is an error; those of presets and
            of other tools are adapted to the model's input.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    where: str = "the guess"
    reference: Size | None = None
    own: frozenset[str] = frozenset()
    says: str = DECLARED

    def add(self, source: str, **values: Any) -> None:
        """Add fields that come from ``source``."""
        self.values |= values
        self.sources |= dict.fromkeys(values, source)

    def write(self, where: str, fields: Mapping[str, Any]) -> None:
        """Add fields that were written for this very model, and drop what they make void.

        A cut that belongs to another way of resizing is none that anybody requested.
        """
        if "resize" in fields and "shorter" not in fields and fields["resize"] != self.values.get("resize"):
            self.add(f"{self.says}: {where}", shorter=None)
        self.add(f"{self.says}: {where}", **fields)
        self.own |= fields.keys()
        if "shorter" in fields:
            self.reference = None


def read_request(request: str | os.PathLike[str] | Mapping[str, object] | Preprocess) -> Settings:
    """Return the settings that a user requests: by a preset's name, a JSON file or text, or a ``Preprocess``.

    Raises:
        PreprocessError: an unknown preset or key, a file that cannot be read, or a wrong value.
    """
    if isinstance(request, Preprocess):
        return read_form(asdict(request), "the preprocess argument", CHOSEN)
    if isinstance(request, Mapping):
        return read_form(request, "the preprocess argument", CHOSEN)
    if isinstance(request, str) and request in PRESETS:
        return preset(request, f"preset {request}", CHOSEN)
    if not isinstance(request, str | os.PathLike):
        raise PreprocessError(
            f"a {type(request).__name__} is no preprocessing here",
            hint="a preset, a JSON form, a Preprocess; in explain_image a function of the photo, too",
            name=request,
        )
    if isinstance(request, str) and request.lstrip().startswith("{"):
        return read_form(read_object(request, "the preprocess argument"), "the preprocess argument", CHOSEN)
    path = Path(request)
    if isinstance(request, str) and path.suffix.lower() != ".json" and not names_file(path):
        known = ("auto", *PRESETS)
        hint = (
            f"{nearest(request, known)}; known: {', '.join(known)}; with changes: {EXAMPLE}; or the path of a JSON file"
        )
        raise PreprocessError(f"unknown preprocessing '{request}'", hint=hint, name=request)
    return read_form(read_object(path), str(path))


def preset(name: str, where: str, says: str = DECLARED) -> Settings:
    """Return the settings of a preset, without what the model's input says.

    Args:
        name: of the preset.
        where: the user's argument or the file that names it.
        says: ``CHOSEN`` for an argument, ``DECLARED`` for a file.
    """
    settings = Settings(where=where, reference=PRESETS[name].size, says=says)
    settings.add(f"{says}: {where}", **asdict(PRESETS[name]))
    for key in ("size", "layout", "dtype", "longest", "multiple", "window"):  # model and photo say these
        del settings.values[key], settings.sources[key]
    return settings


def read_form(form: Mapping[str, Any], where: str, says: str = DECLARED) -> Settings:
    """Return the settings in a JSON form: all fields of ``Preprocess``, or ``preset`` and the fields that differ.

    Args:
        form: the fields by name.
        where: the user's argument or the file that holds the form.
        says: ``CHOSEN`` for an argument, ``DECLARED`` for a file.

    Raises:
        PreprocessError: a key is unknown or missing, or a value is wrong.
    """
    if unknown := [k for k in form if k not in _FIELDS]:
        hint = f"{nearest(unknown[0], _FIELDS)}; known: {', '.join(_FIELDS)}"
        raise PreprocessError(f"unknown key '{unknown[0]}' in {where}", where=where, hint=hint, key=unknown[0])
    fields: dict[str, Any] = {}
    for key, (read, allowed) in _FIELDS.items():
        if key in form:
            try:
                fields[key] = read(form[key])
            except (TypeError, ValueError):
                what = f"wrong value {form[key]!r} for '{key}' in {where}"
                raise PreprocessError(what, where=where, hint=f"{key}: {allowed}", key=key, value=form[key]) from None
    if "preset" in fields:
        settings = preset(fields.pop("preset"), where, says)
    elif missing := [k for k in ("resize", "scale", "mean", "std", "channels") if k not in fields]:
        hint = 'add them, or name a preset to start from: {"preset": "imagenet", ...}'
        raise PreprocessError(f"{where} has no {', '.join(missing)}", where=where, hint=hint, missing=missing)
    else:
        settings = Settings(where=where, says=says)
        settings.add(
            f"default: not in {where}", shorter=None, pad=114.0, interpolation="linear", longest=None, multiple=1
        )
        settings.add(f"default: not in {where}", window=None)
    settings.write(where, fields)
    return settings


def _one_of(known: Iterable[str]) -> tuple[Callable[[Any], str], str]:
    names = tuple(known)
    return lambda value: names[names.index(value)], "one of " + ", ".join(names)


_FIELDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "preset": _one_of(PRESETS),
    "size": (as_open_size, "[H, W], one number, or null for the photo's own size; [48, null]: in proportion"),
    "resize": _one_of(RESIZES),
    "shorter": (lambda v: v if v is None else as_pixels(v), "a positive whole number of pixels, or null"),
    "scale": (lambda v: as_number(v, 0), "a number above 0"),
    "mean": (as_numbers, "a number, or one for each channel"),
    "std": (as_positive, "a number above 0, or one for each channel"),
    "channels": _one_of(CHANNELS),
    "layout": _one_of(LAYOUTS),
    "dtype": (lambda v: np.dtype(v).name, "a dtype such as float32, float16, uint8"),
    "pad": (as_number, "a pixel value, 0..255"),
    "interpolation": _one_of(INTERPOLATIONS),
    "longest": (lambda v: v if v is None else as_pixels(v), "a positive whole number of pixels, or null"),
    "multiple": (as_pixels, "a positive whole number of pixels"),
    "window": (as_window, "[centre, width] in stored values, the width above 0, or null"),
}
