"""The short form of a preprocessing: a preset or "auto", and what differs from it, as "raw,BGR,letterbox"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.errors import PreprocessError, nearest
from onnx_gradcam.photos.preprocess.form import EXAMPLE
from onnx_gradcam.photos.preprocess.presets import CHANNELS, INTERPOLATIONS, LAYOUTS, PRESETS, RESIZES
from onnx_gradcam.photos.preprocess.values import (
    as_number,
    as_numbers,
    as_open_size,
    as_pixels,
    as_positive,
    as_window,
    names_file,
)

AUTO = "auto"
FREE = "free"
"""A side in proportion to the photo: 48xfree."""


@dataclass(frozen=True)
class ShortForm:
    """A short form that was read.

    Attributes:
        base: the name of a preset, or "auto".
        fields: the fields that differ from it.
    """

    base: str
    fields: Mapping[str, Any]


def read_short(text: str) -> ShortForm | None:
    """Return what a short form says, or None for a text that is none: the name of one preset, of a file, or JSON.

    >>> form = read_short("raw,BGR,letterbox,48xfree,std=58.4:57.1:57.4")
    >>> form.base, form.fields["channels"], form.fields["size"]
    ('raw', 'BGR', (48, None))

    Args:
        text: words with commas between them. Each is a preset or "auto" (which may be left out), a way to resize, an
            order of channels, a layout, an interpolation, a size (640, 240x320, 48xfree), or NAME=VALUE for scale,
            mean, std, pad, shorter, longest, multiple and window (40:400); 1/255 is a number, and colons stand between
            several.

    Raises:
        PreprocessError: a word is unknown, or says again what another said.
    """
    words = [word.strip() for word in text.split(",")]
    is_file = text.lower().endswith(".json") or text.lstrip().startswith("{") or names_file(text)
    if is_file or (len(words) == 1 and not any(_read(words[0]))):
        return None
    fields: dict[str, Any] = {}
    for word in words:
        name, value = next(_read(word), ("", None))
        if not name:
            hint = f"{nearest(word, _WORDS)}; known: {', '.join(_WORDS)}, sizes (640, 240x320, 48xfree), {_SETTINGS}"
            raise PreprocessError(f"unknown word {word!r} in {text!r}", hint=f"{hint}; as {EXAMPLE}", name=word)
        if name in fields:
            raise PreprocessError(f"{text!r} says {name} twice: {word!r} is the second", hint=EXAMPLE, key=name)
        fields[name] = value
    return ShortForm(fields.pop(_BASE, AUTO), fields)


_BASE = "preset"
_NAMES: Mapping[str, tuple[str, ...]] = {
    _BASE: (AUTO, *PRESETS),
    "resize": RESIZES,
    "channels": tuple(CHANNELS),
    "layout": tuple(LAYOUTS),
    "interpolation": INTERPOLATIONS,
}
_WORDS = tuple(name for names in _NAMES.values() for name in names)
_BY_WORD = {name.lower(): (field, name) for field, names in _NAMES.items() for name in names}
_NUMBERS: Mapping[str, Callable[[list[float]], Any]] = {
    "scale": lambda values: as_number(_only(values), 0.0),
    "mean": as_numbers,
    "std": as_positive,
    "pad": lambda values: as_number(_only(values)),
    "shorter": lambda values: as_pixels(int(_only(values))),
    "longest": lambda values: as_pixels(int(_only(values))),
    "multiple": lambda values: as_pixels(int(_only(values))),
    "window": as_window,
}
_HINTS: Mapping[str, str] = {"window": "centre and width in stored values, the width above 0: window=40:400"}
"""What is said of a setting whose value does not fit, where it is not plain numbers."""
_SETTINGS = "NAME=VALUE for " + ", ".join(_NUMBERS)


def _read(word: str) -> Iterator[tuple[str, Any]]:
    """Yield the field and the value of a word; nothing for an unknown one."""
    if word.lower() in _BY_WORD:
        yield _BY_WORD[word.lower()]
    elif "=" in word:
        yield from _number(word)
    else:
        yield from _size(word.lower())


def _size(word: str) -> Iterator[tuple[str, Any]]:
    height, cross, width = word.partition("x")
    texts = [height, width if cross else height]
    if all(text == FREE or (text.isdecimal() and int(text)) for text in texts) and texts != [FREE, FREE]:
        yield "size", as_open_size([None if text == FREE else int(text) for text in texts])


def _number(word: str) -> Iterator[tuple[str, Any]]:
    name, _, text = word.partition("=")
    if name not in _NUMBERS:
        return
    try:
        yield name, _NUMBERS[name]([_fraction(part) for part in text.split(":")])
    except (TypeError, ValueError, ZeroDivisionError):
        hint = _HINTS.get(name, f"a number (1/255 is one), or several with colons between them: {name}=0.5:0.4:0.3")
        raise PreprocessError(f"wrong value {text!r} for {name!r}", hint=hint, key=name, value=text) from None


def _only(values: list[float]) -> float:
    (value,) = values
    return value


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)
