"""From the cams of the target layers to heatmaps: everything but the cams, as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.cam.heatmap import combine, normalise, upsample

Array = npt.NDArray[Any]
Cams = Sequence[Array]  # of each target layer, (R, *space)


@dataclass(frozen=True)
class Drawing:
    """Where the maps of R rows are drawn.

    Attributes:
        size: the extents of the model's input.
        fusion: of several layers, "mean", "max" or "product".
        level: (R,) int64, which layer a row is drawn from; None: all of them, fused.
        to_photo: from the input's pixels to the photo's, (H, W) → (height, width); None: they stay the input's.
    """

    size: tuple[int, ...]
    fusion: str = "mean"
    level: Array | None = None
    to_photo: Callable[[Array], Array] | None = None

    def heatmaps(self, *parts: Cams) -> tuple[list[Array], Array]:
        """The heatmaps of one or several parts, which share one scale in each row.

        A part's cams are upsampled; those of several layers are divided by the largest magnitude that the layer has in
        any part, and fused. The result is divided by the largest magnitude of all parts.

        Returns:
            For each part (R, *size) or (R, height, width), float32 in [−1, 1]; and (R,) float32, what was divided by:
            the cam's value, in the score's units, where the heatmap is 1; 1 where all is blank, NaN for fused layers.
        """
        layers = [np.stack(each, axis=1) for each in zip(*map(self._upsampled, parts), strict=True)]
        fused = layers[0] if len(layers) == 1 else combine([normalise(layer) for layer in layers], self.fusion)
        peak = np.abs(fused).reshape(len(fused), -1).max(axis=1)
        scale = np.where(peak == 0, 1, peak) if len(layers) == 1 else np.full(len(fused), np.nan)
        return [self._placed(part) for part in normalise(fused).swapaxes(0, 1)], scale.astype(np.float32)

    def rows(self, rows: Array) -> Drawing:
        """For some of the rows."""
        return self if self.level is None else Drawing(self.size, self.fusion, self.level[rows], self.to_photo)

    def _upsampled(self, cams: Cams) -> list[Array]:
        """One for each layer that is fused, (R, *size)."""
        if self.level is None:
            return [upsample(cam, self.size) for cam in cams]
        return [np.stack([upsample(cams[k][r : r + 1], self.size)[0] for r, k in enumerate(self.level)])]

    def _placed(self, heatmaps: Array) -> Array:
        return heatmaps if self.to_photo is None else np.stack([self.to_photo(heatmap) for heatmap in heatmaps])
