"""Texts of the command line become values: options of a method, and arrays for a model's other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, MethodError
from onnx_gradcam.methods.table import ONE_FOR_EACH_AXIS
from onnx_gradcam.photos.decode import load_tensor


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read texts ``NAME=VALUE``, where a value is a whole number, a number, a word, or the array in a .npy file;
    of "window" and "stride" also numbers with commas between them, one for each axis.

    ``NAME.INPUT=VALUE`` is the value for one input of the model: the option is then {input: value}.

    Raises:
        MethodError: a text has another form, or an option is there twice.
        InputError: a file cannot be read.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise MethodError(f"--option {text!r} is not NAME=VALUE", hint="--option steps=100", option=text)
        name, dot, of_input = name.strip().partition(".")
        within = options.setdefault(name, {}) if dot else options
        key = of_input if dot else name
        if not isinstance(within, dict) or key in within:
            raise MethodError(f"--option {name} is there twice", hint="one value, or one for each input", option=text)
        within[key] = load_tensor(value) if value.endswith(".npy") else _value(name, value)
    return options


def _value(name: str, text: str) -> int | float | str | tuple[int | float | str, ...]:
    """Return a number or a word; of an option that takes one number for each axis, such as "32,16", all of them."""
    if name in ONE_FOR_EACH_AXIS and "," in text:
        return tuple(_number_or_word(part) for part in text.split(","))
    return _number_or_word(text)


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text.strip()


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
