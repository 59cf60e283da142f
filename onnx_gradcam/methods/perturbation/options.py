"""The options of methods that change the input: each within its range, or an error that names the range."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_gradcam.errors import MethodError


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return a whole number from ``least`` to ``most``. Raises ``MethodError`` for what is none."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        hint = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        raise MethodError(f"option {name!r} is {value!r}", hint=hint, option=name)
    return int(value)


def number_between(name: str, value: Any, low: float, high: float, is_open: bool = True) -> float:
    """Return a number above ``low`` and below ``high``; or these themselves, too, unless the range ``is_open``.

    Raises:
        MethodError: the value is no number, or outside.
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    fits = is_number and (low < value < high if is_open else low <= value <= high)
    if not fits:
        words = ("above", "and below") if is_open else ("from", "to")
        end = "" if high == float("inf") else f" {words[1]} {high:g}"
        raise MethodError(f"option {name!r} is {value!r}", hint=f"a number {words[0]} {low:g}{end}", option=name)
    return float(value)
