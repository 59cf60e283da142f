"""A labelled photo, and where its object lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import decode, load_tensor
from onnx_gradcam.photos.listing import ARRAYS

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the photo; x2 and y2 are exclusive."""


@dataclass(frozen=True)
class NamedRegion:
    """A part of a photo that has a name.

    Attributes:
        boxes, polygons, mask: where it lies, as in ``Sample``.
    """

    boxes: tuple[Corners, ...] = ()
    polygons: tuple[tuple[float, ...], ...] = ()
    mask: Path | None = None

    def joined(self, other: NamedRegion | None) -> NamedRegion:
        """Return both as one; where one of them has no outline, boxes say where they lie."""
        if other is None or self == NamedRegion():
            return other or self
        polygons = self.polygons + other.polygons if self.polygons and other.polygons else ()
        return NamedRegion(self.boxes + other.boxes, polygons, self.mask or other.mask)


@dataclass(frozen=True)
class Sample:
    """One object class of a photo.

    Attributes:
        path: the photo.
        label: the label or the class index as data have it; None where they have none.
        folders: the folders of the photo from the innermost on, where their names may be labels; else empty.
        boxes: the boxes of the objects of this class.
        polygons: their outlines, each x1, y1, x2, y2, … in pixels of the photo.
        mask: an image or a .npy array of the photo's size that is above 0 on the object.
        cluster: what the photo belongs to: a patient, a video; None: to nothing but itself.
        group: the group that figures are told apart by; None: none.
        regions: parts of the photo by name, among which evidence is shared out.
    """

    path: Path
    label: str | None = None
    folders: tuple[str, ...] = ()
    boxes: tuple[Corners, ...] = ()
    polygons: tuple[tuple[float, ...], ...] = ()
    mask: Path | None = None
    cluster: str | None = None
    group: str | None = None
    regions: Mapping[str, NamedRegion] = field(default_factory=dict)

    @property
    def has_region(self) -> bool:
        """Return whether it is known where the object lies."""
        return bool(self.boxes or self.polygons or self.mask)


def region_of(sample: Sample | NamedRegion, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return where the object lies, (*shape) bool: by its mask, else by its outlines, else by its boxes.

    Args:
        sample: a sample with a region, or a named region.
        shape: (H, W) of the photo, or the extents of an array.

    Raises:
        InputError: the mask cannot be read, or has another size than the photo; or boxes and outlines stand where there
            are no two axes.
    """
    if sample.mask is not None:
        mask = _read_mask(sample.mask)
        if mask.shape != shape:
            mask_size, size = ("×".join(map(str, reversed(extents))) for extents in (mask.shape, shape))
            raise InputError(
                f"the mask has {mask_size} pixels, the photo {size}",
                where=f"'{sample.mask}'",
                hint="a mask with one pixel for each pixel of the photo",
            )
        return mask
    if len(shape) != 2:
        raise InputError(f"a box or an outline in an array with {len(shape)} axes", hint="a mask, as a .npy array")
    if sample.polygons:
        outlines = [np.array(polygon).reshape(-1, 2) for polygon in sample.polygons]
        return np.asarray(np.logical_or.reduce([_filled(outline, shape) for outline in outlines]))
    inside = np.zeros(shape, bool)
    rows, columns = (np.arange(n) + 0.5 for n in shape)
    for x1, y1, x2, y2 in sample.boxes:
        inside |= ((rows >= y1) & (rows < y2))[:, None] & ((columns >= x1) & (columns < x2))
    return inside


def _read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Return the mask in an image or in a .npy array: what is above 0."""
    if path.suffix.lower() == ARRAYS:
        return np.asarray(load_tensor(path) > 0)
    return np.asarray(decode(path).max(axis=2) > 0)


def _filled(outline: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres lie in a polygon (n, 2): an odd number of edges lies to the right of each."""
    inside = np.zeros(shape, bool)
    rows, columns = (np.arange(n) + 0.5 for n in shape)
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        crossed = np.flatnonzero((rows > y1) != (rows > y2))
        at = x1 + (rows[crossed] - y1) * (x2 - x1) / (y2 - y1 if crossed.size else 1)
        inside[crossed] ^= columns < at[:, None]
    return inside


def boxes_of(sample: Sample, region: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the boxes of the objects, (K, 4) in pixels of the photo: as they are given, or that around the region."""
    if sample.boxes or not region.any():
        return np.array(sample.boxes, np.float64).reshape(-1, 4)
    rows, columns = np.nonzero(region)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)
