"""A detector's boxes: in which form the model gives them, and where they lie.

A box lies about the cell that it belongs to, and next to it lie cells with the same box: that tells the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from onnx_gradcam.graph.builder import Value
from onnx_gradcam.targets.bound import Array

NEAR = 2.0  # strides between a box's centre and that of its cell
TELLING = 10  # cells, the most probable ones, whose neighbours are asked
LEAST = {"absolute": 0.5, "relative": 0.5}  # merit
TALLEST = 1.5  # of the input's side


class Cells(NamedTuple):
    """Of P cells ``centre`` and ``stride`` (P, 2) in x and y, in pixels of the input, and ``level`` (P,)."""

    centre: Array
    stride: Array
    level: Array


def cells(grids: Array, size: tuple[int, ...], anchors_first: bool) -> Cells:
    """``grids`` (levels, 3): how many cells each level has, height and width of its map. ``size`` (H, W).

    Several in one place lie one behind the other, or, with ``anchors_first``, one map behind the other.
    """
    centres, strides, levels = [], [], []
    for level, (count, height, width) in enumerate(grids.tolist()):
        stride = np.array([size[1] / width, size[0] / height])
        y, x = np.divmod(np.arange(height * width), width)
        centre = (np.stack([x, y], axis=1) + 0.5) * stride
        anchors = count // (height * width)
        centres.append(np.tile(centre, (anchors, 1)) if anchors_first else np.repeat(centre, anchors, axis=0))
        strides.append(np.tile(stride, (len(centres[-1]), 1)))
        levels.append(np.full(len(centres[-1]), level))
    return Cells(np.concatenate(centres), np.concatenate(strides), np.concatenate(levels))


# --- forms ------------------------------------------------------------------------------------------------------


CORNERS = np.eye(4)
CORNERS_Y_FIRST = CORNERS[[1, 0, 3, 2]]
CENTRE = np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]])
SIDES = np.diag([-1.0, -1.0, 1.0, 1.0])  # distances from the centre of the cell to the left, top, right, bottom


class Form(NamedTuple):
    """box = pattern · (unit ∘ acts(r)) + origin, of the numbers r of a cell.

    ``acts``: the functions of the first and of the last two numbers; "Expected" for both: each of four groups of
    numbers is a distribution over 0, 1, 2 … (Li et al. 2020, generalized focal loss). ``unit`` of the first and of the
    last two: "pixel", "size" (of the input) or "stride"; ``origin``: "zero", "corner" or "centre" of the cell.
    ``levels``: of how many levels a model may be that has the form.
    """

    pattern: Array
    acts: tuple[str, str] = ("Identity", "Identity")
    unit: tuple[str, str] = ("pixel", "pixel")
    origin: str = "zero"
    levels: int = 9


FORMS: Mapping[str, Form] = {
    "corners": Form(CORNERS),
    "corners, of the input": Form(CORNERS, unit=("size", "size")),
    "corners y first": Form(CORNERS_Y_FIRST),
    "corners y first, of the input": Form(CORNERS_Y_FIRST, unit=("size", "size")),
    "centre": Form(CENTRE),
    "centre, of the input": Form(CENTRE, unit=("size", "size")),
    "centre, of the cell": Form(CENTRE, ("Identity", "Exp"), ("stride", "stride"), "corner"),  # YOLOX
    "centre, of cell and input": Form(CENTRE, ("Tanh", "Sigmoid"), ("stride", "size"), "corner", 1),  # FastestDet
    "distances": Form(SIDES, origin="centre"),
    "distances in strides": Form(SIDES, unit=("stride", "stride"), origin="centre"),
    "distributions of distances": Form(SIDES, ("Expected", "Expected"), ("stride", "stride"), "centre"),
}


def plain_acts(boxes: Value | None) -> tuple[str, str]:
    """The ``acts`` of the simplest form for numbers (N, C, P)."""
    return (
        ("Expected", "Expected") if boxes is not None and boxes.shape and boxes.shape[1] != 4 else FORMS["corners"].acts
    )


def _expected(r: Array) -> Array:
    """(4·m, P) → (4, P): the means of the distributions."""
    groups = r.reshape(4, -1, r.shape[-1])
    p = np.exp(groups - groups.max(axis=1, keepdims=True))
    found: Array = (p * np.arange(groups.shape[1])[:, None]).sum(axis=1) / p.sum(axis=1)
    return found


def _exp(r: Array) -> Array:
    found: Array = np.exp(np.minimum(r, 50))
    return found


ACTS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda r: r,
    "Exp": _exp,
    "Tanh": np.tanh,
    "Sigmoid": lambda r: 1 / (1 + _exp(-r)),
}


def acted(form: Form, raw: Array) -> Array:
    """acts(r), (4, P)."""
    if form.acts[0] == "Expected":
        return _expected(raw)
    first, last = (ACTS[name] for name in form.acts)
    return np.concatenate([first(raw[:2]), last(raw[2:4])])


def affine(form: Form, where: Cells, size: tuple[int, ...]) -> tuple[Array, Array]:
    """(P, 4, 4) and (P, 4): box = matrix · acts(r) + origin, in pixels of the input."""
    units = {
        "pixel": np.ones_like(where.stride),
        "size": np.tile(np.array([size[1], size[0]], float), (len(where.stride), 1)),
        "stride": where.stride,
    }
    unit = np.concatenate([units[name] for name in form.unit], axis=1)
    if form.pattern is CORNERS_Y_FIRST:
        unit = unit[:, [1, 0, 3, 2]]
    start = {"zero": 0 * where.centre, "corner": where.centre - where.stride / 2, "centre": where.centre}[form.origin]
    matrix = form.pattern * unit[:, None, :]
    return matrix, np.tile(start, (1, 2))


def decoded(form: Form, raw: Array, where: Cells, size: tuple[int, ...]) -> Array:
    """(P, 4): the boxes x1, y1, x2, y2 in pixels of the input, of the numbers (C, P)."""
    matrix, origin = affine(form, where, size)
    found: Array = np.einsum("pij,jp->pi", matrix, acted(form, raw)) + origin
    return found


@dataclass(frozen=True)
class Layout:
    """How a model gives its boxes: the name of the form, and the cells."""

    name: str
    where: Cells

    @property
    def form(self) -> Form:
        """The form itself."""
        return FORMS[self.name]


def layout(raw: Array, grids: Array, size: tuple[int, ...], probability: Array) -> Layout | None:
    """The form of the boxes (C, P); None where none of the table fits. ``probability`` (P,) of the cells.

    A form that does not start from the cell holds if most boxes lie about their cells all the same. One that does, if
    the cells next to the most probable ones, which see the same object, give the same box.
    """
    found: dict[str, tuple[float, Layout]] = {}
    for where in _orders(grids, size):
        for name in _possible(len(raw), len(grids)):
            boxes = decoded(FORMS[name], raw, where, size)
            if FORMS[name].origin == "zero":
                merit = _about(boxes, where, size)
            else:
                merit = _agreement(boxes, where, probability)
            kind = "absolute" if FORMS[name].origin == "zero" else "relative"
            if merit > max(LEAST[kind], found.get(kind, (0.0, None))[0]):
                found[kind] = merit, Layout(name, where)
    best = found.get("absolute") or found.get("relative")
    return None if best is None else best[1]


def _orders(grids: Array, size: tuple[int, ...]) -> Iterator[Cells]:
    yield cells(grids, size, False)
    if any(count > height * width for count, height, width in grids.tolist()):
        yield cells(grids, size, True)


def _possible(columns: int, levels: int) -> list[str]:
    expected = columns > 4
    return [n for n, form in FORMS.items() if (form.acts[0] == "Expected") == expected and levels <= form.levels]


def _about(boxes: Array, where: Cells, size: tuple[int, ...]) -> float:
    """The share of boxes that lie about their cells, less half of how far off these are, in ``NEAR`` strides."""
    x1, y1, x2, y2 = boxes.T
    centre = np.stack([x1 + x2, y1 + y2], axis=1) / 2
    off = np.abs((centre - where.centre) / where.stride).max(axis=1) / NEAR
    right = (off < 1) & (x2 > x1) & (y2 > y1) & (x2 - x1 < TALLEST * size[1]) & (y2 - y1 < TALLEST * size[0])
    return float((right * (1 - np.where(right, off, 0) / 2)).mean())


def _agreement(boxes: Array, where: Cells, probability: Array) -> float:
    """How much the boxes of neighbouring cells overlap, over how far, in strides, their edges move."""
    merits = []
    for cell in np.argsort(-probability, kind="stable")[:TELLING]:
        off = np.abs(where.centre - where.centre[cell]) / where.stride[cell]
        beside = (off.max(axis=1) < 1.5) & (off.max(axis=1) > 0.5) & (where.level == where.level[cell])
        if beside.any():
            moved = np.abs(boxes[beside] - boxes[cell]) / np.tile(where.stride[cell], 2)
            merits.append(overlap(boxes[beside], boxes[cell]).mean() / (0.1 + moved.mean()))
    return float(np.mean(merits)) if merits else 0.0


# --- measures ---------------------------------------------------------------------------------------------------


def overlap(boxes: Array, box: Array) -> Array:
    """(P,), the intersection over the union of each of (P, 4) with one box."""
    x1, y1, x2, y2 = boxes.T
    width = np.clip(np.minimum(x2, box[2]) - np.maximum(x1, box[0]), 0, None)
    height = np.clip(np.minimum(y2, box[3]) - np.maximum(y1, box[1]), 0, None)
    area = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
    union = area + (box[2] - box[0]) * (box[3] - box[1]) - width * height
    found: Array = width * height / np.maximum(union, 1e-12)
    return found


def contain(boxes: Array, point: tuple[float, float]) -> Array:
    """(P,) bool: which boxes the point (x, y) lies in."""
    x, y = point
    found: Array = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    return found
