"""What the rows (image, what) of an evaluation say: class, score, probability, cell, words.

``what`` is a class index or an aim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.engine.scores import by_class, probabilities
from onnx_gradcam.targets import CLASS, RowTarget

Array = npt.NDArray[Any]
Rows = Sequence[tuple[int, Any]]
NO_CELL = -1


def image_index(rows: Rows) -> Array:
    """(R,) int64."""
    return np.array([image for image, _ in rows], np.int64)


def class_index(rows: Rows) -> Array:
    """(R,) int64, −1 where the score is of no class."""
    return np.array([_aim(what).class_index for _, what in rows], np.int64)


def words(rows: Rows) -> list[tuple[str, str]]:
    """Return what each row explains in words: as ``--target`` has it, and as a title."""
    return [(_aim(what).text, _aim(what).title) for _, what in rows]


def kinds(rows: Rows) -> set[str]:
    """The names of the kinds of target."""
    return {_aim(what).kind.name for _, what in rows}


def warnings(rows: Rows) -> list[str]:
    """What the aims have to say, once each."""
    return list(dict.fromkeys(_aim(what).warning for _, what in rows if _aim(what).warning))


def score(of: Score, rows: Rows, results: Mapping[str, Any]) -> Array:
    """(R,) float32: of a class its score as the deployed model has it, else what the graph of the target computed."""
    columns = by_class(of, results[of.value.name or ""])
    found = [
        columns[image, _aim(what).class_index] if _aim(what).kind == CLASS else _aim(what).score for image, what in rows
    ]
    return np.array(found, np.float32)


def probability(of: Score, rows: Rows, results: Mapping[str, Any]) -> Array:
    """(R,) float32: that of the class, or of the cell that was picked; NaN where there is neither."""
    if of.dense is None:
        columns = probabilities(of, by_class(of, results[of.value.name or ""]))
    else:
        columns = np.asarray(results[of.dense.probability.name or ""], np.float32)
    return np.array([_probability(_aim(what), columns[image]) for image, what in rows], np.float32)


def _probability(aim: RowTarget, of_classes: Array) -> float:
    return float(of_classes[aim.class_index]) if aim.class_index >= 0 and aim.of_best_cell else aim.probability


def cell(of: Score, rows: Rows, results: Mapping[str, Any]) -> Array | None:
    """(R, n), as in ``Explanation.cell``; −1 where the score is of no single cell. None where there are no cells."""
    if of.dense is None:
        return None
    cells = np.asarray(results[of.dense.cell.name or ""])
    sides = np.asarray(results[of.dense.sides.name or ""])[0] if _any_place(rows) else None
    found = np.full((len(rows), cells.shape[2]), NO_CELL, np.int64)
    for row, (image, what) in enumerate(rows):
        aim = _aim(what)
        if aim.cell_number is not None:
            assert sides is not None
            found[row] = cell_of(aim.cell_number, sides)
        elif aim.of_best_cell:
            found[row] = cells[image, aim.class_index]
    return found


def box(rows: Rows) -> Array | None:
    """(R, 4) float32, the box that each row is about, in pixels of the input, NaN where it is about none; None where
    none of them is."""
    found = [_aim(what).box for _, what in rows]
    if not any(found):
        return None
    return np.array([one or (np.nan,) * 4 for one in found], np.float32)


def level(of: Score, rows: Rows, results: Mapping[str, Any]) -> Array | None:
    """(R,), which level of a detector each row is of; −1 for all of them. None where there are none."""
    if of.dense is None:
        return None
    levels = np.asarray(results[of.dense.level.name or ""])
    return np.array([_level(_aim(what), levels[image]) for image, what in rows], np.int64)


def _level(aim: RowTarget, of_classes: Array) -> int:
    if aim.cell_number is not None:
        return aim.level
    return int(of_classes[aim.class_index]) if aim.of_best_cell else NO_CELL


def cell_of(number: int, sides: Array) -> list[int]:
    """The index of a cell in its output, behind the number of the output where there are several."""
    counts = sides.prod(axis=1)
    ends = np.cumsum(counts)
    output = int(np.searchsorted(ends, number, side="right"))
    index = np.unravel_index(number - int(ends[output] - counts[output]), tuple(int(n) for n in sides[output]))
    return [*([output] if len(sides) > 1 else []), *(int(i) for i in index)]


def _any_place(rows: Rows) -> bool:
    return any(_aim(what).cell_number is not None for _, what in rows)


def _aim(what: int | RowTarget) -> RowTarget:
    return what if isinstance(what, RowTarget) else RowTarget(CLASS, int(what))
