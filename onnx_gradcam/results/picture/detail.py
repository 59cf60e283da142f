"""An attribution drawn as a picture of its own: fine detail in colour, on grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.results.picture.overlay import Seen

Array = NDArray[Any]

GAIN, GREY = 0.1, 0.5
FLOOR = 1e-5


def colours(attribution: Array, space: Sequence[int], channels: str = "RGB") -> Array:
    """Return one attribution as values for red, green and blue, (H, W, 3).

    Where the input's channels are not colours, it is three times the mean over channels.

    Args:
        attribution: (*input shape).
        space: the axes of height and width.
        channels: the order of the channels, such as "RGB".
    """
    moved = np.moveaxis(attribution, space, (0, 1))
    planes: Array = moved.reshape(*moved.shape[:2], -1)
    if planes.shape[2] == len(channels) and set("RGB") <= set(channels):
        return planes[:, :, [channels.index(c) for c in "RGB"]]
    grey: Array = planes.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return grey


def picture(values: Array, seen: Seen) -> NDArray[np.uint8]:
    """Return values (H, W, 3) as a picture, (v − mean) / (std + 1e-5) · 0.1 + 0.5 clipped to [0, 1], as uint8.

    Mean and standard deviation are those over ``seen`` (x1, y1, x2, y2); outside it is grey. The tools of Springenberg
    et al. 2015 and Selvaraju et al. 2017 draw it so. v is divided by its largest magnitude first: with an input of 0 to
    255, attributions are small beside 1e-5.
    """
    x1, y1, x2, y2 = seen
    part = values[y1:y2, x1:x2].astype(np.float64)
    part /= np.abs(part).max() or 1
    canvas = np.full(values.shape, GREY)
    canvas[y1:y2, x1:x2] = np.clip((part - part.mean()) / (part.std() + FLOOR) * GAIN + GREY, 0, 1)
    rounded: NDArray[np.uint8] = np.rint(canvas * 255).astype(np.uint8)
    return rounded
