"""What a comparison or an evaluation was asked for, as JSON can hold it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_gradcam.errors import one_line


def for_json(value: Any) -> Any:
    """Return a keyword as JSON can hold it.

    Texts, numbers, lists and mappings stay what they are. An array becomes its shape, a dataclass its ``repr`` in one
    line, a function its name, and any other object the name of its class.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): for_json(each) for name, each in value.items()}
    if hasattr(value, "shape"):
        return value.item() if not value.shape and hasattr(value, "item") else f"array {tuple(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [for_json(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return one_line(value)
    return getattr(value, "__qualname__", type(value).__qualname__)
