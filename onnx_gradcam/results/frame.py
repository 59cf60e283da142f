"""The frame in which the maps of an explanation are drawn, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from onnx_gradcam.errors import one_line
from onnx_gradcam.photos.decode import Photo
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.tiles import Tiles
from onnx_gradcam.photos.volume import VolumeSpace

Array = npt.NDArray[Any]
ALL_LEVELS = -1


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """The frame in which the maps of R rows are drawn: the pixels of the model's input, or of a photo.

    Attributes:
        size: the extents of the model's input, (H, W) for images; those of the layer where the input has no axes for
            its map.
        fusion: how several layers become one map: "mean", "max" or "product".
        level: (R,) int64, the level of a detector that each row is drawn from, where each level has its layer;
            ``ALL_LEVELS`` (−1): the sum of all levels, since each holds a part of the score. None: all layers are
            fused.
        photo: the photo as decoded, (H, W, 3) uint8 RGB; None where an array was explained.
        geometry: where the photo lies in the model's input; None where maps stay in the pixels of the input.
        x: the array that was explained, (N, …); None for photos.
        space: the spatial axes of ``x``, and of an attribution (R, …); () where maps lie along none of them.
        channels: the order of their channels, where these are colours: "RGB", "BGR", "RGBA" …
        views: how many views or frames each image of ``x`` holds, in axes before its channels or among these.
        volume: where the voxels of a volume lie; None for what is no volume of a file that says so.
        tiles: the tiles that the maps were joined from; None for a photo that was explained as a whole.
        words: for each image of ``x`` the words of its tokens, where it holds tokens and a vocabulary names them.
    """

    size: tuple[int, ...]
    fusion: str = "mean"
    level: Array | None = None
    photo: Photo | None = None
    geometry: Geometry | None = None
    x: Array | None = None
    space: tuple[int, ...] = ()
    channels: str = "RGB"
    views: int = 1
    volume: VolumeSpace | None = None
    tiles: Tiles | None = None
    words: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Return (x1, y1, x2, y2), the part of the frame that the model saw; an axis that is missing counts as 1."""
        if self.geometry is not None:
            return self.geometry.seen
        height, width = (1, 1, *self.size)[-2:]
        return 0, 0, width, height

    def in_photo(self, boxes: Array | None) -> Array | None:
        """Return boxes (R, 4) in pixels of the model's input as such in pixels of the frame."""
        return boxes if boxes is None or self.geometry is None else self.geometry.corners_in_photo(boxes)

    def rows(self, rows: Array) -> Frame:
        """Return the frame of some of the rows."""
        some = self if self.level is None else replace(self, level=self.level[rows])
        return some if self.tiles is None else replace(some, tiles=self.tiles.rows(rows))
