"""A frame of a video: the map over the picture, and a strip below that says what is explained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.results.picture.figure import CAUTION_INK, CAUTION_PAPER
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.text import FAINT, INK, PAPER, strip

LETTERS_SHARE, LETTERS = 0.035, (14, 30)
"""The height of letters as a share of the width, and its limits in pixels."""
LEAST_WIDTH = 448
"""A smaller frame is enlarged by a whole number, so that the lines below it can be read."""


def video_frame(overlay: Picture, title: str, place: str, cautions: Sequence[str]) -> Picture:
    """Return a frame with three lines below it; all frames of a size have one size, and its sides are even.

    Args:
        overlay: (H, W, 3) uint8 RGB, the map over the frame.
        title: what is explained, and how probable it is.
        place: where in the video.
        cautions: what changes how the picture must be read.
    """
    factor = -(-LEAST_WIDTH // overlay.shape[1])
    overlay = overlay.repeat(factor, axis=0).repeat(factor, axis=1)
    width = overlay.shape[1]
    size = int(np.clip(round(width * LETTERS_SHARE), *LETTERS))
    caution = strip("  ·  ".join(cautions), width, size, CAUTION_INK, paper=CAUTION_PAPER if cautions else PAPER)
    lines = [strip(title, width, size, INK), strip(place, width, size, FAINT), caution]
    whole = np.vstack([overlay, *lines])
    height, wide = (side % 2 for side in whole.shape[:2])
    return np.pad(whole, ((0, height), (0, wide), (0, 0)), constant_values=PAPER[0])
