"""Evidence on white paper: behind a curve, and behind words. Vermilion speaks for the target, blue against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.results.picture.figure import OF_MAXIMUM, Bar, Scale
from onnx_gradcam.results.picture.overlay import Picture, overlay
from onnx_gradcam.results.picture.style import Style
from onnx_gradcam.results.picture.text import PAPER

ON_PAPER = Style(photo="colour", alpha=1.0)
"""The colour of the strongest evidence covers the paper; the nearer it is to 0, the more it fades."""


def paper_colours(level: NDArray[Any]) -> Picture:
    """Return the colours of evidence (n,) in [−1, 1] on white paper, (n, 3) uint8 RGB."""
    paper = np.full((1, len(level), 3), PAPER, np.uint8)
    colours: Picture = overlay(paper, np.asarray(level, np.float32)[None], signed=True, style=ON_PAPER)[0]
    return colours


def paper_bar(scale: Scale, height: int, signed: bool) -> Bar:
    """Return the colour bar of evidence on paper."""
    top, unit = (1.0, OF_MAXIMUM) if scale.top is None else (scale.top, scale.unit)
    low, middle = (f"-{top:.3g}", "0") if signed else ("0", f"{top / 2:.2g}")
    return Bar(paper_colours(np.linspace(-1 if signed else 0, 1, height)), (low, middle, f"{top:.3g}"), unit)
