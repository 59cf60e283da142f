"""A class of a dense map within a mask or a box, or where it wins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import TargetError, one_line
from onnx_gradcam.photos.decode import decode, load_tensor
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.resample import areas, coverage
from onnx_gradcam.targets.base import TargetObject, reading
from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget, one_row
from onnx_gradcam.targets.contrasts import Class
from onnx_gradcam.targets.kinds import REGION
from onnx_gradcam.targets.scoring import is_exclusive

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Region(TargetObject):
    """The score of a class in a segmenter's map: the mean of its logits over a part of the pixels.

    With neither mask nor box that part is the pixels where the class wins.

    Attributes:
        label: the class, by index or label; None: the top-1.
        mask: a picture or .npy file, or an array (H, W), not zero where pixels count, in the size of the photo; for
            arrays in the size of the input.
        box: (x1, y1, x2, y2) in pixels of the photo; for arrays in pixels of the input.
    """

    label: Class = None
    mask: Any = None
    box: Corners | None = None
    place_text: str = field(default="", repr=False)  # form and place in pixels of the photo, as --target has them

    def __repr__(self) -> str:
        return one_line(self)

    def in_input(self, geometry: Geometry) -> Region:
        """Return the same with mask and box in the pixels of the model's input."""
        text = self._text
        if self.mask is not None:
            mask = self._mask()
            if mask.shape != geometry.photo:
                raise TargetError(
                    f"a mask of {mask.shape[1]} × {mask.shape[0]} pixels for a photo of {geometry.photo[1]} × "
                    f"{geometry.photo[0]}",
                    hint="one pixel of the mask for each of the photo, upright as viewers show it",
                    target=self,
                )
            laid = geometry.to_model(mask)
            if not laid.any():
                raise unseen(self, "the mask", geometry)
            return replace(self, mask=laid, place_text=text)
        return self if self.box is None else replace(self, box=box_in_input(self, self.box, geometry), place_text=text)

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains the mean of y_c over the pixels, for each image."""
        dense = context.score.dense
        if dense is None or dense.cell_axes != 2 or len(dense.names) != 1:
            raise context.refusal(self, "is for a map of classes (N, K, H, W)")
        index = context.class_index(self.label)
        share = self._share(context.size)
        form, _, where = self._text.partition("@")
        place = self._place

        def row(forward: ForwardPass, image: int) -> RowTarget:
            c = forward.best(image, index)
            height, width = (int(n) for n in forward.dense["sides"][0, 0])
            y = forward.dense["logits"][image]
            if share is None:
                weights = (y.argmax(axis=0) == c if is_exclusive(context.score) else y[c] > 0).astype(np.float32)
            else:
                size = context.size
                step = (size[0] / height, size[1] / width)
                weights = areas(share, (height, width), step).ravel()
            total = float(weights.sum())
            warning = (
                "" if total else f"{context.label(c)} wins at no pixel of image {image}: there is nothing to explain"
            )
            mask = weights / np.float32(total or 1)
            text = f"{form}:{c}" + (f"@{where}" if where else "")
            title = f"{context.label(c)} {place}"
            return RowTarget(REGION, c, {"mask": mask}, text, title, box=self.box, warning=warning)

        return one_row(REGION, row)

    def _mask(self) -> Array:
        with reading(self):
            return read_mask(self.mask)

    def _share(self, size: tuple[int, ...]) -> Array | None:
        """Return the share of each pixel of the input that counts, (H, W) float32; None: where the class wins."""
        if self.mask is not None:
            mask = self._mask()
            if mask.shape != size:
                raise TargetError(
                    f"a mask of shape {mask.shape} for an input of {size}",
                    hint="for arrays a mask in the size of the model's input; explain_image takes one in the photo's",
                    target=self,
                )
            if not mask.any():
                raise TargetError("the mask is zero everywhere", hint="not zero where pixels count", target=self)
            return mask
        if self.box is None:
            return None
        x1, y1, x2, y2 = check_box(self, self.box)
        share = np.outer(coverage(y1, y2, size[0]), coverage(x1, x2, size[1])).astype(np.float32)
        if not share.any():
            hint = f"(x1, y1, x2, y2) within {size[1]} × {size[0]} pixels"
            raise TargetError(f"the box {self.box} lies outside the input", hint=hint, target=self)
        return share

    @property
    def _text(self) -> str:
        """Return the form and the place as ``--target`` has them, without the class."""
        if self.place_text:
            return self.place_text
        if self.mask is not None:
            return f"mask@{Path(self.mask).name}" if isinstance(self.mask, str | os.PathLike) else "mask"
        return "argmax" if self.box is None else f"box@{','.join(f'{v:g}' for v in self.box)}"

    @property
    def _place(self) -> str:
        form, _, where = self._text.partition("@")
        if form == "argmax":
            return "where it wins"
        return f"in {where or 'the mask'}" if form == "mask" else f"in ({where.replace(',', ', ')})"


def read_mask(mask: Any) -> Array:
    """Return the share of each pixel that counts, (H, W) float32.

    Pixels of an array count where they are not zero, those of a picture in the lighter half of greys.

    Args:
        mask: the path of a picture or .npy file, or an array (H, W) of numbers.

    Raises:
        TargetError: the array is no (H, W) of numbers.
    """
    if isinstance(mask, str | os.PathLike):
        if Path(mask).suffix.lower() != ".npy":
            picture: Array = (decode(mask).mean(axis=2) >= 128).astype(np.float32)
            return picture
        mask = load_tensor(mask)
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise TargetError(
            f"a mask of shape {array.shape}, {array.dtype}", hint="numbers (H, W), not zero where pixels count"
        )
    is_share = array.dtype.kind == "f" and array.min(initial=0) >= 0 and array.max(initial=0) <= 1
    return array.astype(np.float32) if is_share else (array != 0).astype(np.float32)


def check_box(target: object, box: Corners) -> Corners:
    """Return the corners. Raises ``TargetError`` where they are not x1 < x2 and y1 < y2."""
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and np.isfinite(box).all()):
        raise TargetError(f"{box} is no box", hint="x1, y1, x2, y2 with x1 < x2 and y1 < y2", target=target)
    return x1, y1, x2, y2


def box_in_input(target: object, box: Corners, geometry: Geometry) -> Corners:
    """Return the corners in the pixels of the model's input, cut off at the edge of what the model saw."""
    x1, y1, x2, y2 = check_box(target, box)
    left, top, right, bottom = geometry.seen
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x1 >= x2 or y1 >= y2:
        raise unseen(target, f"the box {box}", geometry)
    (sy, sx), (oy, ox) = geometry.scale, geometry.offset
    return x1 * sx + ox, y1 * sy + oy, x2 * sx + ox, y2 * sy + oy


def unseen(target: object, what: str, geometry: Geometry) -> TargetError:
    """Return the error for a place that the model did not see."""
    x1, y1, x2, y2 = geometry.seen
    return TargetError(
        f"{what} lies outside what the model saw of the photo",
        where=f"seen: x {x1} to {x2}, y {y1} to {y2} of {geometry.photo[1]} × {geometry.photo[0]} pixels",
        hint="a place in there, or a preprocessing that crops less (stretch, letterbox)",
        target=target,
    )
