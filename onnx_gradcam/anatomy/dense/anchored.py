"""Heads of detectors whose boxes, classes and objectness are maps, or parts of maps, of their own.

What is what is told by the numbers of columns on each grid: with A anchors in each cell they are 4·A of the boxes (or
distributions of four distances), A·K of the classes and A of an objectness, and K is the same on all grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.grouping import PLANE, is_named_objectness
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, scored_output
from onnx_gradcam.anatomy.dense.parts import CHANGED, RAW, SQUASHED, Grids, Part, counted, is_convolved, listed
from onnx_gradcam.anatomy.dense.tensors import Tensor
from onnx_gradcam.anatomy.entries.columns import columns_in
from onnx_gradcam.anatomy.vectors import Batches

DISTANCES = (8, 16, 17)  # bins of a distribution over a distance
ANCHORS = (1, 2, 3, 4, 5, 6, 9)  # in each cell of a map
MARKS = (10,)  # columns of five points
POINTS = 68  # of a face, at most
BOX_NAMES = ("box", "loc", "reg", "delta", "coord")
CLASS_NAMES = ("cls", "class", "score", "logit", "prob")


class Roles(NamedTuple):
    """The parts on one grid say by number which of them holds what; ``anchors``: how many there are in each cell."""

    anchors: int
    classes: int
    objectness: int | None
    boxes: int


def apart(grids: Grids, batches: Batches, state: str = RAW) -> list[ScoredOutput]:
    """Return the classes of the heads on ``grids``, all of them; empty where their columns do not say what they are.

    Args:
        grids: the parts on each grid.
        batches: the first dimensions of the inputs.
        state: that of the classes. ``SQUASHED`` ones are taken where a cell has several anchors; else each column is
            a class, as it stands.
    """
    each = _consistent(grids, state) if grids else None
    if each is None or (state == SQUASHED and each[0].anchors == 1):
        return []
    outputs = [_scored(parts, roles, grids, batches) for parts, roles in zip(grids, each, strict=True)]
    there = [output for output in outputs if output is not None]
    return there if len(there) == len(outputs) else []


def _scored(parts: Sequence[Part], roles: Roles, grids: Grids, batches: Batches) -> ScoredOutput | None:
    classes, anchors = parts[roles.classes], roles.anchors
    of_anchors = f", {anchors} anchors in each cell" if anchors > 1 else ""
    reason = f"{listed(parts)} columns on {counted(grids)}{of_anchors}: boxes beside classes"
    output = scored_output(
        classes.value,
        classes.tensor(anchors),
        classes.column_axis(anchors),
        _beside(parts, roles.objectness, roles),
        _beside(parts, roles.boxes, roles),
        "Sigmoid",
        batches,
        reason if classes.state == RAW else "",
    )
    if output is None:
        return None
    logits = classes.source.name if isinstance(classes.source, ir.Value) else None
    is_alone = roles.objectness is None and output.count > 1
    is_one_of_several = is_alone and max(anchors, _anchors_of_rows(classes, output.count)) > 1
    return replace(output, name=logits or output.name, may_have_background=is_one_of_several and classes.state == RAW)


def _beside(parts: Sequence[Part], other: int | None, roles: Roles) -> Tensor | None:
    """Return another part of a grid, if it is laid out as that of the classes."""
    is_alike = other is not None and parts[other].axis == parts[roles.classes].axis
    return parts[other].tensor(roles.anchors) if other is not None and is_alike else None


def _anchors_of_rows(part: Part, count: int) -> int:
    """Return how many anchors a cell has where they lie behind one another: the convolution made columns for each."""
    made = [columns_in(value, 1) for value in part.origins]
    return max((width // count for width in made if width is not None and width % count == 0), default=1)


def has_boxes(parts: Sequence[Part]) -> bool:
    """Tell whether the parts on one grid may be the boxes and classes of a detector."""
    return next(_readings(parts), None) is not None


# --- roles ------------------------------------------------------------------------------------------------------


def _consistent(grids: Grids, state: str) -> list[Roles] | None:
    """Return roles of the parts of each grid, as many classes and the same parts on all; None where there are none."""
    readings = (roles for roles in _readings(grids[0]) if grids[0][roles.classes].state == state)
    first_readings = [roles for roles in readings if _is_told(grids, roles)]
    for first in sorted(first_readings, key=lambda roles: not _is_named_so(grids[0], roles)):
        each = [first, *(_alike(parts, grids[0], first) for parts in grids[1:])]
        if all(roles is not None for roles in each):
            return [roles for roles in each if roles is not None]
    return None


def _is_told(grids: Grids, roles: Roles) -> bool:
    """Tell whether the numbers of columns say so, or else names do.

    Several anchors on one grid alone, and boxes and classes of as many columns, may be two stages of heat maps.
    """
    boxes, classes = grids[0][roles.boxes], grids[0][roles.classes]
    is_open = (roles.anchors > 1 and len(grids) == 1) or (boxes.width, boxes.state) == (classes.width, classes.state)
    return not is_open or _is_named_so(grids[0], roles)


def _alike(parts: Sequence[Part], first: Sequence[Part], roles: Roles) -> Roles | None:
    """Return the reading of a grid that agrees with that of the first one."""
    count = first[roles.classes].width // roles.anchors
    alike = [
        other
        for other in _readings(parts)
        if (other.objectness is None) == (roles.objectness is None)
        and parts[other.classes].width // other.anchors == count
        and parts[other.classes].state == first[roles.classes].state
    ]
    alike.sort(key=lambda other: (other[1:] != roles[1:], not _is_named_so(parts, other)))
    return alike[0] if alike else None


def _readings(parts: Sequence[Part]) -> Iterator[Roles]:
    """Yield what the parts of one grid may be, the fewest anchors first."""
    for anchors in ANCHORS if len(parts[0].cells) == PLANE else (1,):
        for boxes in (k for k in range(len(parts)) if _may_be_boxes(parts, k, anchors)):
            rest = [k for k, part in enumerate(parts) if k != boxes and part.state != CHANGED]
            single = [k for k in rest if parts[k].width == anchors]
            wide = [k for k in rest if parts[k].width > anchors and parts[k].width % anchors == 0]
            if (roles := _roles(parts, anchors, boxes, single, wide)) is not None:
                yield roles


def _may_be_boxes(parts: Sequence[Part], k: int, anchors: int) -> bool:
    """Tell whether a part may hold the boxes; beside one column of scores they may come with points."""
    part = parts[k]
    if part.state not in (RAW, CHANGED) or part.width % anchors:
        return False
    width = part.width // anchors
    is_beside_scores = all(other.width == anchors for j, other in enumerate(parts) if j != k)
    with_points = anchors == 1 and is_beside_scores and BOX < width <= BOX + 2 * POINTS and width % 2 == 0
    distances = anchors == 1 and width in [BOX * bins for bins in DISTANCES] and is_convolved(part)
    return width == BOX or with_points or distances


def _roles(parts: Sequence[Part], anchors: int, boxes: int, single: Sequence[int], wide: Sequence[int]) -> Roles | None:
    """Return which of the parts holds what, where four columns for each anchor are ``boxes``; None: not told."""
    if len(wide) > 1:
        wide = [k for k in wide if parts[k].width not in [marks * anchors for marks in MARKS]]
    if len(wide) > 1:
        wide = [k for k in wide if _is_named(parts[k], CLASS_NAMES)]
    if len(wide) == 1 and not (single and parts[wide[0]].width in [marks * anchors for marks in MARKS]):
        return Roles(anchors, wide[0], single[0] if single else None, boxes) if len(single) < 2 else None
    if len(wide) > 1 or not 0 < len(single) <= 2:
        return None
    gates = [k for k in single if is_named_objectness([parts[k].value.name or ""])] or list(single[1:])
    classes = [k for k in single if k not in gates[:1]] or single
    return Roles(anchors, classes[0], gates[0] if len(single) == 2 else None, boxes)


def _is_named_so(parts: Sequence[Part], roles: Roles) -> bool:
    """Tell whether names say that boxes are boxes, or that classes are classes."""
    return _is_named(parts[roles.boxes], BOX_NAMES) or _is_named(parts[roles.classes], CLASS_NAMES)


def _is_named(part: Part, names: Sequence[str]) -> bool:
    return any(name in (part.value.name or "").lower() for name in names)
