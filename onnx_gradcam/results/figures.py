"""The figure of a row by the number of axes of its map: a curve or words, a photo, or slices of a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.results import portrait, titles
from onnx_gradcam.results.picture.figure import SIGNED, Lines, Panel, bare, panels
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.signal import signal_panel
from onnx_gradcam.results.picture.slices import slice_panels, slices
from onnx_gradcam.results.picture.style import Style
from onnx_gradcam.results.picture.words import words_panel

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

Array = npt.NDArray[Any]
BY_ITSELF = "the model has no axis for these places: the curve is the evidence itself"
NUMBERS = "numbers are ids of tokens: --vocabulary FILE names them"


def is_drawn(explanation: Explanation) -> bool:
    """Tell whether there is a figure for the maps: they have one, two or three axes."""
    return explanation.heatmap.ndim - 1 in (2, *DRAWERS)


def draw(explanation: Explanation, image: Any, row: int, style: Style) -> Picture:
    """Return the figure of a row; arguments and errors are those of ``Explanation.figure``."""
    drawer = DRAWERS.get(explanation.heatmap.ndim - 1)
    if drawer is None or image is not None:
        return portrait.draw_figure(explanation, image, row, style)
    panels_of_row, remarks = drawer(explanation, row, style)
    cautions = portrait.cautions(explanation, row)
    if not style.caption:
        return bare(panels_of_row, cautions)
    remarks = [*remarks, *([SIGNED] if explanation.signed else [])]
    return panels(panels_of_row, Lines(titles.title(explanation, row), remarks, cautions))


def _line(explanation: Explanation, row: int, style: Style) -> tuple[list[Panel], list[str]]:
    """Return the curve of a signal, or the words of a text, with the evidence behind."""
    frame, level = explanation.frame, explanation.heatmap[row]
    image, scale = int(explanation.image_index[row]), portrait.scale_of(explanation, row)
    values = _along(frame.x[image], frame.space) if frame.x is not None and frame.space else level[None][:0]
    cells = portrait.cells_note(explanation, row, "drawn linearly")
    if values.dtype.kind in "iu" and len(values) == 1:
        words = frame.words[image] if frame.words else [f"#{token}" for token in values[0]]
        remarks = [*cells, *([] if frame.words else [NUMBERS])]
        return [words_panel(words, level, scale, explanation.signed)], remarks
    remarks = [*cells, *([] if len(values) else [BY_ITSELF])]
    return [signal_panel(values, level, scale, explanation.signed)], remarks


def _along(x: Array, space: tuple[int, ...]) -> Array:
    """Return an array of one image as (channels, n), n along the axis of its map."""
    moved = np.moveaxis(x, space[0] - 1, -1)
    return moved.reshape(-1, moved.shape[-1])


def _volume(explanation: Explanation, row: int, style: Style) -> tuple[list[Panel], list[str]]:
    """Return three slices through the strongest evidence of a volume."""
    level, lies = explanation.heatmap[row], explanation.frame.volume
    peak = np.unravel_index(int(np.abs(level).argmax()), level.shape)
    voxel = [n // 2 for n in level.shape] if explanation.is_blank[row] else [int(k) for k in peak]
    codes, spacing = (lies.codes, lies.spacing) if lies is not None else ((), (1.0, 1.0, 1.0))
    cut = slices(_grey(explanation, int(explanation.image_index[row]), level.shape), level, voxel, codes, spacing)
    row_of_panels = slice_panels(cut, portrait.scale_of(explanation, row), explanation.signed, style)
    middle = "the middle" if explanation.is_blank[row] else "the strongest evidence"
    return row_of_panels, [
        f"slices through {middle}, ({', '.join(map(str, voxel))})",
        *portrait.cells_note(explanation, row, "drawn linearly"),
    ]


def _grey(explanation: Explanation, image: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the volume under a map: the mean of its channels, from its smallest value to its largest; else black."""
    frame = explanation.frame
    if frame.x is None or not frame.space:
        return np.zeros(shape, np.uint8)
    moved = np.moveaxis(frame.x[image], [axis - 1 for axis in frame.space], (-3, -2, -1))
    values = moved.reshape(-1, *shape).mean(axis=0, dtype=np.float64)
    low, high = values.min(), values.max()
    return np.asarray(np.rint((values - low) * (255 / max(high - low, 1e-12))), np.uint8)


DRAWERS: Mapping[int, Callable[[Explanation, int, Style], tuple[list[Panel], list[str]]]] = {1: _line, 3: _volume}
"""Number of axes of a map → what draws it; those with two are drawn over their photo."""
