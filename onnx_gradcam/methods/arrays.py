"""The small arithmetic that methods share, written against the Array API standard alone."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any  # an array of any library that follows the Array API standard


def spatial(x: Array) -> tuple[int, ...]:
    """Return the spatial axes of (N, C, *space)."""
    return tuple(range(2, x.ndim))


def relu(x: Array) -> Array:
    """Return max(x, 0), and NaN where x is NaN."""
    return array_namespace(x).clip(x, min=0)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, 0 where the denominator is 0; a NaN in either stays."""
    xp = array_namespace(numerator, denominator)
    return numerator / xp.where(denominator == 0, xp.full_like(denominator, float("inf")), denominator)


def largest(x: Array) -> Array:
    """Return max |x| of each matrix: (N, m, n) → (N, 1, 1)."""
    xp = array_namespace(x)
    return xp.max(xp.abs(x), axis=(1, 2), keepdims=True)


def as_float32(x: Array) -> Array:
    """Return x as float32, without a copy where it is float32 already."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float32, copy=False)
