"""Which rows of two explanations are about the same: the image, the target and the view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Box, Boxes, Each, Target, TargetObject

OneOfB = int | TargetObject
"""What the second model is asked for one image."""


@dataclass(frozen=True, eq=False)
class Match:
    """A row of A and the row of B that is about the same.

    Attributes:
        image, view: which image of the file, and which of its views.
        row_a: the number of the row in A.
        b: an explanation by B.
        row_b: the number of the row in it.
    """

    image: int
    view: int
    row_a: int
    b: Explanation
    row_b: int


def targets_for_b(target: Target, a: Explanation, images: int) -> list[list[OneOfB]]:
    """Return what B is asked: columns with one target for each image, of the classes that A took.

    A box that A detected is, in B, the most probable box of its class at its middle. Where images have different
    numbers of targets, as boxes do, the last one fills the places that are left; these are not compared.

    Args:
        target: what A was asked.
        a: what A answered.
        images: how many images there are.

    Raises:
        TargetError: all boxes of a detector are asked for together with other targets.
    """
    of_images = [_of_image(target, a, rows) for rows in _rows_by_target(a, images)]
    longest = max(len(targets) for targets in of_images)
    return [[targets[min(k, len(targets) - 1)] for targets in of_images] for k in range(longest)]


def match(a: Explanation, b: Sequence[Explanation], images: int) -> tuple[Match, ...]:
    """Return the rows that are about the same, image by image and target by target.

    Args:
        a: what A answered.
        b: for each column of ``targets_for_b`` what B answered.
        images: how many images there are.

    Raises:
        InputError: the layers of the two models have different numbers of views.
    """
    if any(each.frame.views != a.frame.views for each in b):
        raise InputError(
            f"the layer of A has one map for each of {a.frame.views} views, that of B for each of {b[0].frame.views}",
            hint="--layer-a, --layer-b (layer_a, layer_b): layers with the same views",
        )
    views = a.frame.views
    return tuple(
        Match(image, view, int(first) + view, b[k], image * views + view)
        for image, rows in enumerate(_rows_by_target(a, images))
        for k, first in enumerate(rows)
        for view in range(views)
    )


def _rows_by_target(a: Explanation, images: int) -> list[np.ndarray]:
    """Return for each image the rows of its targets, of each the row of its first view."""
    return [np.flatnonzero((a.image_index == image) & (a.view_index == 0)) for image in range(images)]


def _of_image(target: Target, a: Explanation, rows: np.ndarray) -> list[OneOfB]:
    if isinstance(target, Each):
        if any(isinstance(each, Boxes) for each in target.targets):
            raise TargetError(
                "all boxes of a detector cannot be compared together with other targets",
                hint="'boxes' alone, and another comparison for the rest",
                target=target,
            )
        return [_of_row(each, a, int(row)) for each, row in zip(target.targets, rows, strict=True)]
    return [_of_row(target, a, int(row)) for row in rows]


def _of_row(target: object, a: Explanation, row: int) -> int | TargetObject:
    """Return what B is asked for a row of A; a class that the target leaves open is the one that A took."""
    index = int(a.class_index[row])
    box = a.box_of(row)
    if isinstance(target, Boxes) and box is not None:
        x1, y1, x2, y2 = box
        return Box(point=((x1 + x2) / 2, (y1 + y2) / 2), label=index)
    return of_class(target, index) if isinstance(target, TargetObject) else index


def of_class(target: TargetObject, index: int) -> TargetObject:
    """Return the same target of a class; one that is of no class is returned as it is."""
    if index < 0 or not is_dataclass(target) or "label" not in {field.name for field in fields(target)}:
        return target
    return replace(target, label=index)
