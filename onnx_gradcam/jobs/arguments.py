"""Texts of the command line become values: options of a method, and arrays for a model's other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, MethodError
from onnx_gradcam.photos.decode import load_tensor


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read texts ``NAME=VALUE``, where a value is a whole number, a number, or the array in a .npy file.

    Raises:
        MethodError: a text has another form.
        InputError: a file cannot be read.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise MethodError(f"--option {text!r} is not NAME=VALUE", hint="--option steps=100", option=text)
        found[name.strip()] = load_tensor(value) if value.endswith(".npy") else _number(name, value)
    return found


def _number(name: str, text: str) -> int | float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    raise MethodError(f"option {name!r} is {text!r}", hint="a number, or an .npy file", option=name)


def read_arrays(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Read texts ``NAME=FILE.npy``, one for each further input of the model.

    Raises:
        InputError: a text has another form, or a file cannot be read.
    """
    arrays = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals:
            raise InputError(f"--input {text!r} is not NAME=FILE", hint="--input scale=scale.npy")
        arrays[name] = load_tensor(file)
    return arrays
