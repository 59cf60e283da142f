"""One class of a dense map within a mask or a box, or where it wins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.decode import decode, load_tensor
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.resample import areas, covered
from onnx_gradcam.targets.base import TargetObject, reading
from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget
from onnx_gradcam.targets.contrasts import Class
from onnx_gradcam.targets.kinds import REGION
from onnx_gradcam.targets.scoring import is_exclusive

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Region(TargetObject):
    """The score of a class in a segmenter's map: the mean of its logits over a part of the pixels.

    ``mask``: a picture or .npy file, or an array (H, W), not zero where pixels count, in the size of the photo;
    ``box``: (x1, y1, x2, y2); neither: the pixels where the class wins. ``label`` None: the top-1.
    """

    label: Class = None
    mask: Any = None
    box: Corners | None = None
    asked: str = field(default="", repr=False)

    def in_input(self, geometry: Geometry) -> Region:
        """Mask and box in the pixels of the model's input."""
        asked = self._text
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
            return replace(self, mask=laid, asked=asked)
        return self if self.box is None else replace(self, box=box_in_input(self, self.box, geometry), asked=asked)

    def bind(self, context: Context) -> BoundTarget:
        """Mean of y_c over the pixels."""
        dense = context.score.dense
        if dense is None or dense.axes != 2 or len(dense.names) != 1:
            raise context.refusal(self, "is for a map of classes (N, K, H, W)")
        index = context.class_index(self.label)
        counting = self._counting(context.size)
        text, place = self._text, self._place

        def row(forward: ForwardPass, image: int) -> RowTarget:
            c = forward.best(image, index)
            height, width = (int(n) for n in forward.dense["sides"][0, 0])
            y = forward.dense["logits"][image]
            if counting is None:
                weights = (y.argmax(axis=0) == c if is_exclusive(context.score) else y[c] > 0).astype(np.float32)
            else:
                size = context.size
                step = (size[0] / height, size[1] / width)
                weights = areas(counting, (height, width), step).ravel()
            total = float(weights.sum())
            warning = (
                "" if total else f"{context.label(c)} wins at no pixel of image {image}: there is nothing to explain"
            )
            mask = weights / np.float32(total or 1)
            form, _, where = text.partition("@")
            asked = f"{form}:{c}" + (f"@{where}" if where else "")
            return RowTarget(
                REGION, c, {"mask": mask}, asked, f"{context.label(c)} {place}", box=self.box, warning=warning
            )

        return BoundTarget(REGION, row)

    def _mask(self) -> Array:
        with reading(self):
            return read_mask(self.mask)

    def _counting(self, size: tuple[int, ...]) -> Array | None:
        """(H, W) float32 over the input, the share of each pixel that counts; None: where the class wins."""
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
        found = np.outer(covered(y1, y2, size[0]), covered(x1, x2, size[1])).astype(np.float32)
        if not found.any():
            hint = f"(x1, y1, x2, y2) within {size[1]} × {size[0]} pixels"
            raise TargetError(f"the box {self.box} lies outside the input", hint=hint, target=self)
        return found

    @property
    def _text(self) -> str:
        """The form and the place, without the class."""
        if self.asked:
            return self.asked
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
    """(H, W) float32, the share of each pixel that counts: what is not zero; in pictures the lighter half of greys."""
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
    """Raise ``TargetError`` where the corners are not x1 < x2 and y1 < y2."""
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and np.isfinite(box).all()):
        raise TargetError(f"{box} is no box", hint="x1, y1, x2, y2 with x1 < x2 and y1 < y2", target=target)
    return x1, y1, x2, y2


def box_in_input(target: object, box: Corners, geometry: Geometry) -> Corners:
    """The corners in the pixels of the model's input; what sticks out of what the model saw is cut off."""
    x1, y1, x2, y2 = check_box(target, box)
    left, top, right, bottom = geometry.seen
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x1 >= x2 or y1 >= y2:
        raise unseen(target, f"the box {box}", geometry)
    (sy, sx), (oy, ox) = geometry.scale, geometry.offset
    return x1 * sx + ox, y1 * sy + oy, x2 * sx + ox, y2 * sy + oy


def unseen(target: object, what: str, geometry: Geometry) -> TargetError:
    """The error for a place that the model did not see."""
    x1, y1, x2, y2 = geometry.seen
    return TargetError(
        f"{what} lies outside what the model saw of the photo",
        where=f"seen: x {x1} to {x2}, y {y1} to {y2} of {geometry.photo[1]} × {geometry.photo[0]} pixels",
        hint="a place in there, or a preprocessing that crops less (stretch, letterbox)",
        target=target,
    )
