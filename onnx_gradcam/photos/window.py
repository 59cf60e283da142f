"""Window and level: which part of a wide range of grey values becomes black to white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Window = tuple[float, float]
"""The centre (level) and the width of a window, in stored values."""
WHITE = 255.0
"""The grey level of white, where black is 0."""


def windowed(values: NDArray[Any], window: Window) -> NDArray[np.float32]:
    """Return values as grey from 0 to 255, not rounded: 255 · clip((v − centre) / width + 1/2, 0, 1).

    It is the function LINEAR_EXACT of DICOM (PS3.3, C.11.2.1.3.2).

    >>> windowed(np.array([-200, -160, 40, 240, 3000]), (40, 400)).tolist()
    [0.0, 0.0, 127.5, 255.0, 255.0]

    Args:
        values: of any shape and any numeric dtype.
        window: centre and width; the width is above 0.
    """
    centre, width = window
    share = (np.asarray(values, np.float64) - centre) / width + 0.5
    return np.asarray(np.clip(share, 0, 1) * WHITE, np.float32)
