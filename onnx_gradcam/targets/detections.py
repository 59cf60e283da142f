"""A detector's boxes: in which form the model gives them, and where they lie.

A box lies about the cell that it belongs to, and neighbouring cells that see the same object give the same box: that
tells the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NEAR_CELL = 2.0  # strides between a box's centre and that of its cell
TELLING = 10  # cells, the most probable ones, whose neighbours are compared
LEAST_MERIT = 0.5
TALLEST = 1.5  # of the input's side
LARGEST_SHARE = 1.5  # of the input's side, where boxes are shares of it
NEARLY_ALL = 0.95


@dataclass(frozen=True, eq=False)
class Cells:
    """Where P cells lie in the input.

    Attributes:
        centre: (P, 2) x and y of their centres, in pixels of the input.
        stride: (P, 2) the distance to the next cell in x and y, in pixels.
        level: (P,) the level of the detector that each belongs to.
    """

    centre: Array
    stride: Array
    level: Array

    def at(self, cell: int) -> Cells:
        """Return where one cell lies."""
        which = slice(cell, cell + 1)
        return Cells(self.centre[which], self.stride[which], self.level[which])


def cells(grids: Array, size: tuple[int, ...], anchors_first: bool) -> Cells:
    """Return where the cells of a detector lie.

    Args:
        grids: (levels, 3) how many cells each level has, and the height and width of its map.
        size: (height, width) of the input.
        anchors_first: whether cells of one position lie in maps behind one another, or else directly behind one
            another.
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
DISTANCES = np.diag([-1.0, -1.0, 1.0, 1.0])  # from the centre of the cell to the left, top, right, bottom


@dataclass(frozen=True, eq=False)
class BoxForm:
    """A form of boxes: box = pattern · (unit ∘ functions(r)) + origin, of the numbers r of a cell.

    Attributes:
        pattern: (4, 4) from the four numbers to x1, y1, x2, y2.
        functions: of the first and of the last two numbers; "Expected" for both: each of four groups of numbers is a
            distribution over 0, 1, 2 … (Li et al. 2020, generalized focal loss).
        unit: of the first and of the last two numbers: "pixel", "size" (of the input) or "stride".
        origin: "zero", or the "corner" or "centre" of the cell.
        levels: how many levels a model with this form has at most.
    """

    pattern: Array
    functions: tuple[str, str] = ("Identity", "Identity")
    unit: tuple[str, str] = ("pixel", "pixel")
    origin: str = "zero"
    levels: int = 9


BOX_FORMS: Mapping[str, BoxForm] = {
    "corners": BoxForm(CORNERS),
    "corners, of the input": BoxForm(CORNERS, unit=("size", "size")),
    "corners y first": BoxForm(CORNERS_Y_FIRST),
    "corners y first, of the input": BoxForm(CORNERS_Y_FIRST, unit=("size", "size")),
    "centre": BoxForm(CENTRE),
    "centre, of the input": BoxForm(CENTRE, unit=("size", "size")),
    "centre, of the cell": BoxForm(CENTRE, ("Identity", "Exp"), ("stride", "stride"), "corner"),  # YOLOX
    "centre, of cell and input": BoxForm(CENTRE, ("Tanh", "Sigmoid"), ("stride", "size"), "corner", 1),  # FastestDet
    "distances": BoxForm(DISTANCES, origin="centre"),
    "distances in strides": BoxForm(DISTANCES, unit=("stride", "stride"), origin="centre"),
    "distributions of distances": BoxForm(DISTANCES, ("Expected", "Expected"), ("stride", "stride"), "centre"),
}


def simplest_functions(columns: int | None) -> tuple[str, str]:
    """Return the functions of the simplest form for boxes of so many numbers; None: not known."""
    return BOX_FORMS["corners"].functions if columns in (None, 4) else ("Expected", "Expected")


def _expected(r: Array) -> Array:
    """Return the means (4, P) of distributions given as logits (4·m, P)."""
    groups = r.reshape(4, -1, r.shape[-1])
    p = np.exp(groups - groups.max(axis=1, keepdims=True))
    means: Array = (p * np.arange(groups.shape[1])[:, None]).sum(axis=1) / p.sum(axis=1)
    return means


def _exp(r: Array) -> Array:
    power: Array = np.exp(np.minimum(r, 50))
    return power


FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda r: r,
    "Exp": _exp,
    "Tanh": np.tanh,
    "Sigmoid": lambda r: 1 / (1 + _exp(-r)),
}


def apply_functions(form: BoxForm, raw: Array) -> Array:
    """Return functions(r), (4, P), of the numbers (C, P)."""
    if form.functions[0] == "Expected":
        return _expected(raw)
    first, last = (FUNCTIONS[name] for name in form.functions)
    return np.concatenate([first(raw[:2]), last(raw[2:4])])


def affine(form: BoxForm, where: Cells, size: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the matrix (P, 4, 4) and origin (P, 4) of box = matrix · functions(r) + origin, in pixels of the input."""
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


def decoded_boxes(form: BoxForm, raw: Array, where: Cells, size: tuple[int, ...]) -> Array:
    """Return the boxes (P, 4), x1, y1, x2, y2 in pixels of the input, of the numbers (C, P)."""
    matrix, origin = affine(form, where, size)
    boxes: Array = np.einsum("pij,jp->pi", matrix, apply_functions(form, raw)) + origin
    return boxes


@dataclass(frozen=True)
class BoxLayout:
    """How a model gives its boxes: the name of the form, a key of ``BOX_FORMS``, and where the cells lie."""

    name: str
    where: Cells

    @property
    def form(self) -> BoxForm:
        """Return the form itself."""
        return BOX_FORMS[self.name]


def query_layout(raw: Array) -> BoxLayout | None:
    """Return how a model gives the boxes of queries, which lie on no grid; None where no form fits.

    Their four numbers are two corners where the second lies to the right of and below the first, in nearly all boxes;
    else a centre and a size. Numbers up to 1 are shares of the input, others pixels.

    Args:
        raw: (4, P) the numbers of the boxes.
    """
    if len(raw) != 4 or not raw.size:
        return None
    first, last = raw[:2], raw[2:]
    unit = ", of the input" if np.abs(raw).max() <= LARGEST_SHARE else ""
    nowhere = Cells(np.zeros((raw.shape[1], 2)), np.ones((raw.shape[1], 2)), np.zeros(raw.shape[1], int))
    if (last > first).all(axis=0).mean() >= NEARLY_ALL:
        return BoxLayout(f"corners{unit}", nowhere)
    return BoxLayout(f"centre{unit}", nowhere) if (last > 0).all(axis=0).mean() >= NEARLY_ALL else None


@dataclass(frozen=True)
class ShownLayout:
    """How a model gives its boxes, as far as an image has shown it.

    Attributes:
        layout: how it gives them; None where no form of the table fits.
        rank: by which the model ranked the most probable class of the image: the higher, the more it shows.
        is_settled: whether something was detected on the image.
    """

    layout: BoxLayout | None
    rank: float
    is_settled: bool


Layouts = dict[tuple[tuple[int, ...], bytes], ShownLayout]
"""What images have shown of a model, by the size of the input and the grids of its levels as bytes."""


def box_layout(raw: Array, grids: Array, size: tuple[int, ...], probability: Array) -> BoxLayout | None:
    """Return how a model gives its boxes, or None where no form of the table fits.

    A form that does not start from the cell holds if most boxes lie about their cells all the same. One that does holds
    if the cells next to the most probable ones, which see the same object, give the same box.

    Args:
        raw: (C, P) the numbers of the boxes.
        grids: (levels, 3) how many cells each level has, and the height and width of its map.
        size: (height, width) of the input.
        probability: (P,) of the cells.
    """
    orders, names = list(_orders(grids, size)), _possible_forms(len(raw), len(grids))
    for of_cell in (False, True):
        best: tuple[float, BoxLayout | None] = LEAST_MERIT, None
        for where in orders:
            for name in names:
                form = BOX_FORMS[name]
                if (form.origin != "zero") == of_cell:
                    boxes = decoded_boxes(form, raw, where, size)
                    merit = _agreement(boxes, where, probability) if of_cell else _nearness(boxes, where, size)
                    best = (merit, BoxLayout(name, where)) if merit > best[0] else best
        if best[1] is not None:
            return best[1]
    return None


def _orders(grids: Array, size: tuple[int, ...]) -> Iterator[Cells]:
    yield cells(grids, size, False)
    if any(count > height * width for count, height, width in grids.tolist()):
        yield cells(grids, size, True)


def _possible_forms(columns: int, levels: int) -> list[str]:
    """Return the names of the forms that models with so many columns and levels may have."""
    expected = columns > 4
    return [
        name
        for name, form in BOX_FORMS.items()
        if (form.functions[0] == "Expected") == expected and levels <= form.levels
    ]


def _nearness(boxes: Array, where: Cells, size: tuple[int, ...]) -> float:
    """Return the share of boxes that lie about their cells, less half of how far off these are, in ``NEAR_CELL``."""
    x1, y1, x2, y2 = boxes.T
    centre = np.stack([x1 + x2, y1 + y2], axis=1) / 2
    off = np.abs((centre - where.centre) / where.stride).max(axis=1) / NEAR_CELL
    right = (off < 1) & (x2 > x1) & (y2 > y1) & (x2 - x1 < TALLEST * size[1]) & (y2 - y1 < TALLEST * size[0])
    return float((right * (1 - np.where(right, off, 0) / 2)).mean())


def _agreement(boxes: Array, where: Cells, probability: Array) -> float:
    """Return how much the boxes of neighbouring cells overlap, over how far, in strides, their edges move."""
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
    """Return the intersection over union (P,) of each of the boxes (P, 4) with one box (4,)."""
    x1, y1, x2, y2 = boxes.T
    width = np.clip(np.minimum(x2, box[2]) - np.maximum(x1, box[0]), 0, None)
    height = np.clip(np.minimum(y2, box[3]) - np.maximum(y1, box[1]), 0, None)
    area = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
    union = area + (box[2] - box[0]) * (box[3] - box[1]) - width * height
    ratio: Array = width * height / np.maximum(union, 1e-12)
    return ratio


def contain(boxes: Array, point: tuple[float, float]) -> Array:
    """Return for each of the boxes (P, 4) whether the point (x, y) lies in it, (P,) bool."""
    x, y = point
    inside: Array = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    return inside
