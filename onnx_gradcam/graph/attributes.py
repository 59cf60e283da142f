"""The attributes of a node as arguments of a function. Families of operators share a small frozen record.

A function that handles an operator takes its attributes by keyword, by the names of the specification. What a family of
operators has in common comes as one record, the keyword ``at``:

    def conv(op, x, w, b=None, *, at: Convolution)
    def max_pool(op, x, *, at: Pool, storage_order: int = 0)

Python itself refuses an attribute that the function was not written for: it is neither a parameter nor a field of the
record. A test compares parameters and fields with the specification.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

RECORD = "at"  # the parameter that takes the record


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """The attributes of every operator that moves a window over an image."""

    auto_pad: str = "NOTSET"
    dilations: Sequence[int] | None = None
    pads: Sequence[int] | None = None
    strides: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Convolution(Windowed):
    """The attributes of Conv, and of its fused, quantized and channels-last forms."""

    group: int = 1
    kernel_shape: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class TransposedConvolution(Convolution):
    """The attributes of ConvTranspose."""

    output_padding: Sequence[int] | None = None
    output_shape: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Pool(Windowed):
    """The attributes that MaxPool, AveragePool and LpPool share."""

    kernel_shape: Sequence[int]
    ceil_mode: int = 0


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """The attributes that RNN, GRU and LSTM share with each other and with the quantized LSTM."""

    activation_alpha: Sequence[float] | None = None
    activation_beta: Sequence[float] | None = None
    clip: float | None = None
    direction: str = "forward"
    hidden_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """The attributes of Resize."""

    antialias: int = 0
    axes: Sequence[int] | None = None
    coordinate_transformation_mode: str = "half_pixel"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    extrapolation_value: float = 0.0
    keep_aspect_ratio_policy: str = "stretch"
    mode: str = "nearest"
    nearest_mode: str = "round_prefer_floor"


@functools.cache
def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of ``function``, in which the parameter ``at`` is annotated with the class of its record."""
    signature = inspect.signature(function)
    return inspect.signature(function, eval_str=True) if RECORD in signature.parameters else signature


def keyword_arguments(signature: inspect.Signature, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes of a node as keyword arguments for a function with this signature.

    Args:
        signature: of the function, as ``signature_of`` returns it.
        attributes: attribute values by the names of the specification.

    Returns:
        The attributes that are parameters by name, and a record of all others as the argument ``at``. Without such a
        parameter all attributes are returned as they are.

    Raises:
        TypeError: the record has no field for an attribute, or an attribute that it needs is missing.
    """
    if RECORD not in signature.parameters:
        return dict(attributes)
    own = signature.parameters.keys() - {RECORD}
    record = signature.parameters[RECORD].annotation(**{n: v for n, v in attributes.items() if n not in own})
    return {RECORD: record} | {name: value for name, value in attributes.items() if name in own}
