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

from onnx_gradcam.photos.resample import Pair, areas, resample


@dataclass(frozen=True)
class Geometry:
    """Where the photo lies in the model's input: on each axis model = photo · scale + offset.

    Attributes: ``photo`` and ``model``, (H, W) in pixels; ``scale``, (y, x) in model pixels per photo pixel;
    ``offset``, (y, x) in model pixels.
    """

    photo: tuple[int, int]
    model: tuple[int, int]
    scale: Pair
    offset: Pair

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2): the photo's pixels whose centres the model saw, x2 and y2 exclusive."""
        (y1, y2), (x1, x2) = (
            (math.ceil(max(0.0, -o / s) - 0.5), math.ceil(min(float(n), (m - o) / s) - 0.5))
            for n, m, s, o in zip(self.photo, self.model, self.scale, self.offset, strict=True)
        )
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def corners_in_photo(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Boxes x1, y1, x2, y2 (R, 4) in pixels of the model's input, in the photo's."""
        offset, scale = (np.array([v[1], v[0]] * 2) for v in (self.offset, self.scale))
        return np.asarray((boxes - offset) / scale, np.float32)

    def to_model(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What lies over the photo, (H, W), as (h, w) float32 over the model's input: means of areas, 0 beside it."""
        step = (1 / self.scale[0], 1 / self.scale[1])
        return areas(values, self.model, step, (-self.offset[0] * step[0], -self.offset[1] * step[1]))

    @property
    def padding(self) -> NDArray[np.bool_]:
        """Return (h, w) bool: the pixels of the model's input whose centres lie beside the photo."""
        rows, columns = (
            (np.arange(m) + 0.5 < o) | (np.arange(m) + 0.5 > o + n * s)
            for n, m, s, o in zip(self.photo, self.model, self.scale, self.offset, strict=True)
        )
        return rows[:, None] | columns[None, :]

    def to_photo(self, heatmap: NDArray[Any]) -> NDArray[np.float32]:
        """A map over the model's input, (h, w) at any resolution, as (H, W) float32 over the photo.

        Linear, half-pixel, 0 outside ``seen``; border cells keep their value out to the border. A cam may
        come straight from the target layer: one interpolation, not two, and no peak is cut twice.
        """
        x1, y1, x2, y2 = self.seen
        cell = (
            heatmap.shape[0] / self.model[0],
            heatmap.shape[1] / self.model[1],
        )  # map cells per model pixel
        step = (self.scale[0] * cell[0], self.scale[1] * cell[1])
        start = (y1 * step[0] + self.offset[0] * cell[0], x1 * step[1] + self.offset[1] * cell[1])
        photo = np.zeros(self.photo, np.float32)
        values = resample(heatmap, (y2 - y1, x2 - x1), step, start, "linear")
        photo[y1:y2, x1:x2] = values.clip(heatmap.min(), heatmap.max())  # rounding must not leave the map's range
        return photo
