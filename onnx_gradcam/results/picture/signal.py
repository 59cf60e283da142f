"""A signal as a curve, with the evidence of each sample behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.chart import ticks
from onnx_gradcam.results.picture.evidence import paper_bar, paper_colours
from onnx_gradcam.results.picture.figure import GAP, Panel, Scale
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.text import FAINT, INK, PAPER, text_width, write

WIDTH, HEIGHT, MOST_CHANNELS = 760, 300, 6
LETTERS, FOOT, EDGE = 13, 26, 0.08
"""The height of letters, the room below the curves for the numbers of samples, and the part of a band above a curve."""


def signal_panel(values: NDArray[Any], level: NDArray[Any], scale: Scale, signed: bool) -> Panel:
    """Return the channels of a signal as curves one below the other, over the colours of the evidence.

    Args:
        values: (channels, n), the signal; (0, n) where only the evidence is drawn, as a curve of its own.
        level: (n,) in [−1, 1], the map.
        scale: what the colours stand for.
        signed: whether the map has negative values.
    """
    shown = values[:MOST_CHANNELS] if len(values) else level[None]
    band = max(HEIGHT // len(shown), 80)
    picture = np.full((band * len(shown) + FOOT, WIDTH, 3), PAPER, np.uint8)
    columns = (np.arange(WIDTH) * len(level)) // WIDTH
    picture[:-FOOT] = paper_colours(level)[columns][None]
    for k, curve in enumerate(shown):
        _draw_curve(picture[k * band : (k + 1) * band], np.asarray(curve, np.float64))
    _number_samples(picture, len(level))
    more = len(values) - len(shown)
    caption = [f"the first {len(shown)} of {len(values)} channels"] if more > 0 else []
    return Panel(picture, caption, paper_bar(scale, len(picture) - FOOT, signed))


def _draw_curve(band: Picture, curve: NDArray[np.float64]) -> None:
    """Draw a curve into a band of a picture, each sample in the middle of its column of colour."""
    low, high = float(curve.min()), float(curve.max())
    share = (curve - low) / (high - low) if high > low else np.full(len(curve), 0.5)
    height, width = band.shape[:2]
    x = (np.arange(len(curve)) + 0.5) * width / len(curve)
    y = height * (1 - EDGE - share * (1 - 2 * EDGE))
    points = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
    cv2.polylines(band, [points], False, INK, 1 if len(curve) > WIDTH // 4 else 2, cv2.LINE_AA)
    cv2.line(band, (0, height - 1), (width, height - 1), FAINT, 1)
    for text, y_of in ((f"{high:.3g}", LETTERS), (f"{low:.3g}", height - GAP // 2)):
        write(band, text, (4, y_of), LETTERS, FAINT)


def _number_samples(picture: Picture, count: int) -> None:
    """Write the numbers of some samples below the curves, counted from 0."""
    for tick in ticks(0, max(count - 1, 1)):
        if tick != int(tick) or tick >= count:
            continue
        text = f"{int(tick)}"
        x = (tick + 0.5) * WIDTH / count - text_width(text, LETTERS) / 2
        place = round(min(max(x, 0), WIDTH - text_width(text, LETTERS))), len(picture) - FOOT // 3
        write(picture, text, place, LETTERS, FAINT)
