"""The rows of an evaluation: an image and what is explained of it, and what that comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.scores import by_class, probabilities
from onnx_gradcam.graph.names import TARGET_INDEX
from onnx_gradcam.targets import BACKGROUND, BoundTarget, Context, ForwardPass, RowTarget, add_class_boxes, fixed_target
from onnx_gradcam.targets.written import WrittenScore

Array = npt.NDArray[Any]
NO_CELL = -1


@dataclass(frozen=True)
class Row:
    """A row of results: one target (and one view) of one image.

    Attributes:
        image: the number of the image.
        target: what is explained of it.
        view: in which of its views or frames.
        number: which of the targets of the image that is of; one target may have several rows.
    """

    image: int
    target: RowTarget
    view: int = 0
    number: int = 0


Rows = Sequence[Row]


def hold_targets(rows: Rows, images: int) -> list[tuple[BoundTarget, ...]]:
    """Return for each image what its rows explain, so that copies of the image are explained for the same."""
    return [
        tuple(fixed_target(row.target) for row in rows if row.image == image and row.view == 0)
        for image in range(images)
    ]


def each_view(rows: Rows, views: int) -> tuple[Row, ...]:
    """Return for each row one for each view of its image."""
    return tuple(replace(row, view=view) for row in rows for view in range(views))


def view_index(rows: Rows) -> Array:
    """Return (R,) int64, which view of its image each row explains; 0 where images have one."""
    return np.array([row.view for row in rows], np.int64)


def image_index(rows: Rows) -> Array:
    """Return (R,) int64, which image each row explains."""
    return np.array([row.image for row in rows], np.int64)


def class_index(rows: Rows) -> Array:
    """Return (R,) int64, the class of each row, −1 where the score is of none."""
    return np.array([row.target.class_index for row in rows], np.int64)


def with_class_boxes(context: Context, of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return the rows, those of a detector's classes with their box and with what their probability is made of."""
    if of.dense is None or not of.dense.detection:
        return tuple(rows)
    dense = {name: np.asarray(results[value.name or ""]) for name, value in of.dense.detection.items()}
    forward = ForwardPass(results, dense, np.asarray(results[of.dense.ranking.name or ""]))
    targets = add_class_boxes(context, forward, [row.image for row in rows], [row.target for row in rows])
    return tuple(replace(row, target=target) for row, target in zip(rows, targets, strict=True))


def made_of(rows: Rows) -> list[str]:
    """Return what the probability of each row is a product of, "" where it is of one piece."""
    return [row.target.made_of for row in rows]


def kinds(rows: Rows) -> list[str]:
    """Return the name of the kind of target of each row."""
    return [row.target.kind.name for row in rows]


def warnings(rows: Rows) -> list[str]:
    """Return the warnings of the targets, once each."""
    return list(dict.fromkeys(row.target.warning for row in rows if row.target.warning))


def score(of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> Array:
    """Return (R,) float32: of a class its score in the deployed model, else what the graph of the target computed."""
    columns = by_class(of, results[of.value.name or ""])
    scores = [
        columns[row.image, row.target.class_index] if row.target.kind.is_score_entry else row.target.score
        for row in rows
    ]
    return np.array(scores, np.float32)


def probability(of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> Array:
    """Return (R,) float32: the probability of the class, or of the cell that was picked; NaN where there is neither."""
    columns = class_probabilities(of, results)
    return np.array([_probability(row.target, columns[row.image]) for row in rows], np.float32)


def top_probability(of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> Array:
    """Return (R,) float32: the probability of the most probable class of each row's image, whatever the row explains.

    A background is left out. It is NaN for a regression.
    """
    columns = class_probabilities(of, results)
    if of.dense is not None:
        columns = np.where(np.asarray(results[of.dense.ranking.name or ""]) <= BACKGROUND, 0, columns)
    top: Array = columns.max(axis=1)
    return top[image_index(rows)]


def class_probabilities(of: WrittenScore, results: Mapping[str, Any]) -> Array:
    """Return (N, K) float32, the probability of each class; of many scores for each image that of its best cell."""
    if of.dense is None:
        return probabilities(of, by_class(of, results[of.value.name or ""]))
    return np.asarray(results[of.dense.probability.name or ""], np.float32)


def _probability(target: RowTarget, of_classes: Array) -> float:
    return float(of_classes[target.class_index]) if target.of_best_cell else target.probability


def cell(of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> Array | None:
    """Return (R, n), the index of each cell as in ``Explanation.cell``, or None for a model without cells.

    It is −1 where the score is of no single cell.
    """
    if of.dense is None:
        return None
    cells = np.asarray(results[of.dense.cell.name or ""])
    sides = np.asarray(results[of.dense.sides.name or ""])[0] if _any_place(rows) else None
    found = np.full((len(rows), cells.shape[2]), NO_CELL, np.int64)
    for number, row in enumerate(rows):
        if row.target.cell_number is not None:
            assert sides is not None
            found[number] = cell_of(row.target.cell_number, sides)
        elif row.target.of_best_cell:
            found[number] = cells[row.image, row.target.class_index]
    return found


def box(rows: Rows) -> Array | None:
    """Return (R, 4) float32, the box that each row is about, in pixels of the input, or None where no row is.

    It is NaN where a row is about no box.
    """
    boxes = [row.target.box for row in rows]
    if not any(boxes):
        return None
    return np.array([box or (np.nan,) * 4 for box in boxes], np.float32)


def level(of: WrittenScore, rows: Rows, results: Mapping[str, Any]) -> Array | None:
    """Return (R,), which level of a detector each row is of, −1 for all of them; None for a model without levels."""
    if of.dense is None:
        return None
    levels = np.asarray(results[of.dense.level.name or ""])
    return np.array([_level(row.target, levels[row.image]) for row in rows], np.int64)


def _level(target: RowTarget, of_classes: Array) -> int:
    if target.cell_number is not None:
        return target.level
    return int(of_classes[target.class_index]) if target.of_best_cell else NO_CELL


def cell_of(number: int, sides: Array) -> list[int]:
    """Return the index of a cell in its output, behind the number of the output where there are several."""
    counts = sides.prod(axis=1)
    ends = np.cumsum(counts)
    output = int(np.searchsorted(ends, number, side="right"))
    index = np.unravel_index(number - int(ends[output] - counts[output]), tuple(int(n) for n in sides[output]))
    return [*([output] if len(sides) > 1 else []), *(int(i) for i in index)]


def _any_place(rows: Rows) -> bool:
    return any(row.target.cell_number is not None for row in rows)


def rows_of(array: Array, images: Array, count: int) -> Array:
    """Return the entries of some of ``count`` images; an array without an entry for each is the same for all."""
    return array[images] if array.ndim and len(array) == count else array


def parameters_of(targets: Sequence[RowTarget], inputs: Mapping[str, str]) -> dict[str, Array]:
    """Return the parameters of targets of one kind, stacked, by the names of the graph's ``inputs`` for them."""
    names = targets[0].parameters
    stacked = {inputs[name]: np.stack([target.parameters[name] for target in targets]) for name in names}
    return {inputs[TARGET_INDEX]: np.array([target.class_index for target in targets], np.int64), **stacked}


def known_ahead(targets: Sequence[tuple[BoundTarget, ...]]) -> list[RowTarget] | None:
    """Return what is explained of each image, where that is one thing of one kind, known before the run; else None."""
    ahead = [target.ahead for several in targets for target in several]
    known = [target for target in ahead if target is not None]
    is_one_each = all(len(several) == 1 for several in targets) and len(known) == len(ahead)
    return known if is_one_each and len({target.kind for target in known}) == 1 else None


def settled(target: RowTarget, class_index: int, score: float) -> RowTarget:
    """Return the target with its score, and with the class that the graph chose where it is a class."""
    index = class_index if target.kind.is_score_entry else target.class_index
    return replace(target, class_index=index, score=score)
