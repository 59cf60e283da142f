"""From the cams of the target layers to heatmaps: everything but the cams, as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.methods.heatmap import combine, is_blank, normalise, upsample

Array = npt.NDArray[Any]
Cams = Sequence[Array]  # of each target layer, (R, *space)
ALL = -1


@dataclass(frozen=True)
class Drawing:
    """Where the maps of R rows are drawn.

    Attributes:
        size: the extents of the model's input.
        fusion: of several layers, "mean", "max" or "product".
        level: where layers are the levels of a detector, (R,) int64, which one a row is drawn from; ALL: the sum of
            all of them, in each of which only a part of the score is made. None: all layers, fused.
        to_photo: from the input's pixels to the photo's, (H, W) → (height, width); None: they stay the input's.
    """

    size: tuple[int, ...]
    fusion: str = "mean"
    level: Array | None = None
    to_photo: Callable[[Array], Array] | None = None

    def heatmap(self, cams: Cams) -> tuple[Array, Array]:
        """The heatmap of a map by itself, and its scale, as ``at_one_scale`` has them."""
        [heatmap], scale, _ = at_one_scale([(self, cams)])
        return heatmap, scale

    def rows(self, rows: Array) -> Drawing:
        """For some of the rows."""
        return self if self.level is None else replace(self, level=self.level[rows])

    def upsampled(self, cams: Cams) -> list[Array]:
        """One for each layer that is fused, (R, *size)."""
        if self.level is None:
            return [upsample(cam, self.size) for cam in cams]
        return [np.stack([self._level(cams, row, level) for row, level in enumerate(self.level)])]

    def placed(self, heatmaps: Array) -> Array:
        """In the photo's pixels, (R, height, width)."""
        return heatmaps if self.to_photo is None else np.stack([self.to_photo(heatmap) for heatmap in heatmaps])

    def _level(self, cams: Cams, row: int, level: int) -> Array:
        some = cams if level == ALL else [cams[level]]
        total: Array = np.sum([upsample(cam[row : row + 1], self.size)[0] for cam in some], axis=0)
        return total


def at_one_scale(parts: Sequence[tuple[Drawing, Cams]]) -> tuple[list[Array], Array, list[Array]]:
    """The heatmaps of maps that share one scale in each row.

    A part's cams are upsampled; those of several layers are divided by the largest magnitude that the layer has in any
    part, and fused. The result is divided by the largest magnitude of all parts.

    Returns:
        For each part (R, *size) or (R, height, width), float32 in [−1, 1]; (R,) float32, what was divided by: the
        upsampled cam's value, in the score's units, where the heatmap is 1; 1 where all is blank, NaN for fused layers;
        and for each part (R,) bool, which of its maps are 0 everywhere.
    """
    each = [drawing.upsampled(cams) for drawing, cams in parts]
    layers = [np.stack(of_parts, axis=1) for of_parts in zip(*each, strict=True)]
    fused = layers[0] if len(layers) == 1 else combine([normalise(layer) for layer in layers], parts[0][0].fusion)
    peak = np.abs(fused).reshape(len(fused), -1).max(axis=1)
    scale = np.where(peak == 0, 1, peak) if len(layers) == 1 else np.full(len(fused), np.nan)
    heatmaps = normalise(fused).swapaxes(0, 1)
    placed = [drawing.placed(heatmap) for (drawing, _), heatmap in zip(parts, heatmaps, strict=True)]
    return placed, scale.astype(np.float32), [is_blank(heatmap) for heatmap in heatmaps]
