"""The scale of maps: what 1 in a heatmap stands for, one for each map or one for several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnx_gradcam.errors import MethodError
from onnx_gradcam.results.titles import unit_of_map

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

IMAGE, SHARED = "image", "shared"
ROUNDING = 1e-6
Scales = Mapping[str, float]
"""For each unit that maps are in, the value that is 1 in their heatmaps."""


def read_scale(scale: str | float) -> str | float:
    """Return a scale as it is used: "image", "shared" or a positive number, also where it is given as text.

    >>> read_scale("0.5"), read_scale("shared")
    (0.5, 'shared')

    Raises:
        MethodError: the scale is something else.
    """
    if scale in (IMAGE, SHARED):
        return scale
    try:
        number = float(scale)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise MethodError(f"unknown scale {scale!r}", hint="'image', 'shared' or a positive number", scale=scale)
    return number


def peaks(explanation: Explanation) -> Scales:
    """Return for each unit the largest scale of the maps that are not blank.

    Raises:
        MethodError: the maps have no scale in the score's units.
    """
    largest: dict[str, float] = {}
    for row in np.flatnonzero(~explanation.is_blank):
        unit = map_unit(explanation, int(row))
        largest[unit] = max(largest.get(unit, 0.0), _own_scale(explanation, int(row)))
    return largest


def join_peaks(each: Iterable[Scales]) -> Scales:
    """Return for each unit the largest of several scales."""
    joined: dict[str, float] = {}
    for scales in each:
        joined.update({unit: max(scale, joined.get(unit, 0.0)) for unit, scale in scales.items()})
    return joined


def at_scale(explanation: Explanation, scale: float | Scales) -> Explanation:
    """Return the same maps with another scale; larger values than the scale become 1, or −1.

    Args:
        explanation: R rows.
        scale: the value that becomes 1, or one for each unit; a unit without one keeps its scale.

    Raises:
        MethodError: the scale is not positive, or the maps have no scale in the score's units.
    """
    own = np.array([_own_scale(explanation, row) for row in range(len(explanation))], np.float32)
    units = [map_unit(explanation, row) for row in range(len(explanation))]
    by_unit = scale if isinstance(scale, Mapping) else dict.fromkeys(units, float(read_scale(scale)))
    new = np.array([by_unit.get(unit, before) for unit, before in zip(units, own, strict=True)], np.float32)
    factor = (own / new).reshape(-1, *[1] * (explanation.heatmap.ndim - 1))
    is_clipped = ~explanation.is_blank & (own > new * (1 + ROUNDING))
    if explanation.is_clipped is not None:
        is_clipped |= explanation.is_clipped
    heatmap = np.clip(explanation.heatmap * factor, -1, 1)
    return replace(explanation, heatmap=heatmap, scale=new, is_clipped=is_clipped)


def at_one_scale(explanation: Explanation) -> Explanation:
    """Return the same maps so that those of one unit share a scale; maps of fused layers have none, and stay."""
    return explanation if np.isnan(explanation.scale).any() else at_scale(explanation, peaks(explanation))


def map_unit(explanation: Explanation, row: int) -> str:
    """Return what the values of the map of a row are."""
    return unit_of_map(explanation.method, explanation.unit(row))


def _own_scale(explanation: Explanation, row: int) -> float:
    scale = float(explanation.scale[row])
    if np.isnan(scale):
        raise MethodError(
            f"these maps of {explanation.method} have no scale in the score's units",
            where="several layers were fused",
            hint="scale='image', or a single target layer",
            scale=scale,
        )
    return scale
