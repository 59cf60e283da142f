"""Where a photo lies in the model's input, and the way back.

Coordinates are continuous: pixel i spans [i, i + 1), with its centre at i + 0.5 (half-pixel). On each axis

    model = photo · scale + offset
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.resample import YX, areas, resample


@dataclass(frozen=True)
class Geometry:
    """Where the photo lies in the model's input: on each axis model = photo · scale + offset.

    >>> geometry = Geometry(photo=(100, 200), model=(50, 50), scale=(0.5, 0.5), offset=(0.0, -25.0))
    >>> geometry.seen  # the model saw the middle of this photo
    (50, 0, 150, 100)

    Attributes:
        photo: (H, W) of the photo, in pixels.
        model: (H, W) of the model's input, in pixels.
        scale: (y, x), pixels of the model's input per pixel of the photo.
        offset: (y, x), where the photo's corner lies, in pixels of the model's input.
    """

    photo: tuple[int, int]
    model: tuple[int, int]
    scale: YX
    offset: YX

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """Return (x1, y1, x2, y2), the photo's pixels whose centres the model saw; x2 and y2 are exclusive."""
        (y1, y2), (x1, x2) = (
            (math.ceil(max(0.0, -o / s) - 0.5), math.ceil(min(float(n), (m - o) / s) - 0.5))
            for n, m, s, o in zip(self.photo, self.model, self.scale, self.offset, strict=True)
        )
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def corners_in_photo(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Return boxes in pixels of the photo.

        Args:
            boxes: (R, 4), x1, y1, x2, y2 in pixels of the model's input.

        Returns:
            (R, 4) float32, x1, y1, x2, y2 in pixels of the photo.
        """
        offset, scale = (np.array([v[1], v[0]] * 2) for v in (self.offset, self.scale))
        return np.asarray((boxes - offset) / scale, np.float32)

    def to_model(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return values over the photo as values over the model's input.

        Args:
            values: (H, W), one for each pixel of the photo.

        Returns:
            (h, w) float32: for each pixel of the model's input the mean over the area that it covers, where values
            beside the photo count as 0.
        """
        step = (1 / self.scale[0], 1 / self.scale[1])
        return areas(values, self.model, step, (-self.offset[0] * step[0], -self.offset[1] * step[1]))

    @property
    def padding(self) -> NDArray[np.bool_]:
        """Return the padding, (h, w) bool: the pixels of the model's input whose centres lie beside the photo."""
        rows, columns = (
            (np.arange(m) + 0.5 < o) | (np.arange(m) + 0.5 > o + n * s)
            for n, m, s, o in zip(self.photo, self.model, self.scale, self.offset, strict=True)
        )
        return rows[:, None] | columns[None, :]

    def to_photo(self, heatmap: NDArray[Any], interpolation: str = "linear") -> NDArray[np.float32]:
        """Return a map over the model's input as a map over the photo.

        The interpolation is half-pixel; cells at the border keep their value out to the border. A cam can be
        passed as it comes from the target layer: it is interpolated once, not twice, and so keeps its peaks.

        Args:
            heatmap: (h, w) at any resolution.
            interpolation: the kernel, "linear" or "cubic".

        Returns:
            (H, W) float32, 0 outside ``seen``.
        """
        x1, y1, x2, y2 = self.seen
        cell = (
            heatmap.shape[0] / self.model[0],
            heatmap.shape[1] / self.model[1],
        )  # map cells per model pixel
        step = (self.scale[0] * cell[0], self.scale[1] * cell[1])
        start = (y1 * step[0] + self.offset[0] * cell[0], x1 * step[1] + self.offset[1] * cell[1])
        photo = np.zeros(self.photo, np.float32)
        values = resample(heatmap, (y2 - y1, x2 - x1), step, start, interpolation)
        photo[y1:y2, x1:x2] = values.clip(heatmap.min(), heatmap.max())  # rounding must not leave the map's range
        return photo
