"""Readers of JSON texts and of the values in them.

A wrong value raises ``ValueError`` or ``TypeError``. The caller, who knows the key, makes a message of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.photos.preprocess.presets import Size


def names_file(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is the path of a file; a text that cannot be a path, such as one too long, is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def read_object(source: Path | str, where: str = "") -> dict[str, Any]:
    """Return the JSON object in a file or a text. Raises ``PreprocessError`` where there is none."""
    where = where or str(source)
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise PreprocessError(f"cannot read {where}: {error}", where=where, hint="a JSON file in UTF-8") from None
    content = read_json(text, where)
    if not isinstance(content, dict):
        raise PreprocessError(f"{where} is not a JSON object", where=where, hint='{"preset": "imagenet", ...}')
    return content


def read_json(text: str, where: str) -> Any:
    """Return the JSON value in a text. Raises ``PreprocessError`` where it is not JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise PreprocessError(f"{where} is not JSON: {error}", where=where, hint="correct the JSON") from None


def as_number(value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """Return a number with ``low`` < number < ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ValueError(f"{value!r} is not a number in the allowed range")
    return float(value)


def as_numbers(value: Any) -> tuple[float, ...]:
    """Return the numbers in a list, or a single number as a tuple of one."""
    return tuple(as_number(v) for v in (value if isinstance(value, list | tuple) and value else (value,)))


def as_positive(value: Any) -> tuple[float, ...]:
    """Return the numbers above 0 in a list, or a single one as a tuple of one."""
    return tuple(as_number(v, 0) for v in as_numbers(value))


def as_window(value: Any) -> tuple[float, float] | None:
    """Return (centre, width), from two numbers, the second above 0; None for None."""
    if value is None:
        return None
    centre, width = as_numbers(value)
    return centre, as_number(width, 0)


def as_pixels(value: Any) -> int:
    """Return a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a positive whole number")
    return value


def as_size(value: Any) -> tuple[int, int]:
    """Return (H, W), from two numbers of pixels, or from one for both."""
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return as_pixels(height), as_pixels(width)


def as_open_size(value: Any) -> Size | None:
    """Return (H, W) as ``as_size`` does; one of two may be None. None for the photo's own size."""
    if not isinstance(value, list | tuple) or None not in value:
        return None if value is None else as_size(value)
    height, width = value
    if height is None and width is None:
        raise ValueError("both sides are open")
    return None if height is None else as_pixels(height), None if width is None else as_pixels(width)
