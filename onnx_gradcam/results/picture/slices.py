"""Three slices of a volume through one of its voxels: axial, coronal and sagittal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.results.picture.figure import Panel, Scale, resize_map, resize_photo
from onnx_gradcam.results.picture.overlay import Picture, overlay
from onnx_gradcam.results.picture.style import Style

LONG_SIDE = 360  # of the longest side of the three slices, in pixels
BODY = (("S", "I"), ("P", "A"), ("L", "R"))
"""The axes of the body in the order in which slices are cut, each as it grows and against it."""


@dataclass(frozen=True)
class CutPlane:
    """How a slice is cut out of a volume whose axes grow to S, P, L.

    Attributes:
        name: the plane.
        normal: the axis along which its slices follow each other.
        rows, columns: its axes, from the top and from the left.
        sides: which sides of the body lie at the left and at the top.
    """

    name: str
    normal: int
    rows: int
    columns: int
    sides: str

    @property
    def is_upside_down(self) -> bool:
        """Return whether the first row lies at the foot: the head is at the top of a picture."""
        return self.rows == 0


CUTS = (
    CutPlane("axial", 0, 1, 2, "R at the left, A at the top"),
    CutPlane("coronal", 1, 0, 2, "R at the left, S at the top"),
    CutPlane("sagittal", 2, 0, 1, "A at the left, S at the top"),
)


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice as it is drawn.

    Attributes:
        caption: its plane and its place, and for a body where its sides lie.
        grey: (h, w) uint8.
        level: (h, w), the map.
        spacing: the size of a voxel along rows and columns.
    """

    caption: tuple[str, ...]
    grey: NDArray[np.uint8]
    level: NDArray[Any]
    spacing: tuple[float, float]


def slices(
    grey: NDArray[np.uint8],
    level: NDArray[Any],
    voxel: Sequence[int],
    codes: Sequence[str] = (),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> list[Slice]:
    """Return the three slices of a volume and its map through a voxel.

    Where the volume lies in a body, they are axial, coronal and sagittal, seen as radiologists see them: from the feet,
    from the front, and from the left side. Other volumes are cut along their axes as they are.

    Args:
        grey: (a, b, c) uint8.
        level: (a, b, c), the map.
        voxel: an index for each axis.
        codes: for each axis where its index grows to ("R", "A", "S"); empty for a volume that is no body.
        spacing: the size of a voxel along each axis.
    """
    axes = tuple(next(k for k, code in enumerate(codes) if code in pair) for pair in BODY) if codes else (0, 1, 2)
    backwards = tuple(k for k, axis in enumerate(axes) if codes and codes[axis] == BODY[k][1])
    own = [spacing[axis] for axis in axes]
    place = [grey.shape[axis] - 1 - voxel[axis] if k in backwards else voxel[axis] for k, axis in enumerate(axes)]
    both = [np.flip(values.transpose(axes), backwards) for values in (grey, np.asarray(level, np.float32))]
    each = []
    for cut in CUTS:
        planes = [np.take(values, place[cut.normal], cut.normal) for values in both]
        if codes and cut.is_upside_down:
            planes = [plane[::-1] for plane in planes]
        where = f"index {voxel[axes[cut.normal]]} of axis {axes[cut.normal]}"
        caption = (f"{cut.name}: {where}", cut.sides) if codes else (where,)
        picture, shown = (np.ascontiguousarray(plane) for plane in planes)
        each.append(Slice(caption, np.asarray(picture, np.uint8), shown, (own[cut.rows], own[cut.columns])))
    return each


def slice_panels(cut: Sequence[Slice], scale: Scale, signed: bool, style: Style) -> list[Panel]:
    """Return slices as panels, all at one size of a millimetre, the last with the colour bar."""
    sizes = [tuple(n * d for n, d in zip(each.grey.shape, each.spacing, strict=True)) for each in cut]
    factor = LONG_SIDE / max(max(size) for size in sizes)
    pictures = [
        _picture(each, (max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), signed, style)
        for each, size in zip(cut, sizes, strict=True)
    ]
    bar = scale.bar(max(len(picture) for picture in pictures), signed, style)
    last = len(cut) - 1
    return [
        Panel(picture, each.caption, bar if k == last else None)
        for k, (each, picture) in enumerate(zip(cut, pictures, strict=True))
    ]


def _picture(each: Slice, size: tuple[int, int], signed: bool, style: Style) -> Picture:
    colour = np.repeat(each.grey[:, :, None], 3, axis=2)
    return overlay(resize_photo(colour, size), resize_map(each.level, size), signed=signed, style=style)
