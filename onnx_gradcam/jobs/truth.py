"""``--true``: the prediction against the label that a photo has."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.results.contrast import contrast, explain_both, has_both_sides
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.targets import Classes, Difference, TopK, class_index

TABLE = ".csv"


def true_classes(true: str, paths: Sequence[Path], explainer: Explainer) -> dict[Path, int]:
    """Return the class of each photo, from one label or class index for all or a table of lines ``photo,label``.

    A photo stands in the table by its path or by its name; those that do not are left out.

    Raises:
        InputError: the table cannot be read, or a line is not ``photo,label``.
        TargetError: a label is unknown or ambiguous, or the model has no classes to tell apart.
    """
    count = explainer.score.count
    if count < 2:
        raise TargetError(
            f"the score {explainer.score.name!r} has no classes of which one could be the true one",
            hint="without --true the value itself is explained",
        )
    if not true.lower().endswith(TABLE):
        return dict.fromkeys(paths, class_index(true, count, explainer.labels))
    table = read_table(Path(true))
    names = {path: name for path in paths for name in (path.name, str(path)) if name in table}
    return {path: class_index(table[name], count, explainer.labels) for path, name in names.items()}


def read_table(file: Path) -> Mapping[str, str]:
    """Return photo → label of a table. Raises ``InputError`` where it cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the table of true labels {str(file)!r} cannot be read: {error}",
            hint="a text file of lines 'cat.jpg,tabby'",
        ) from None
    for number, row in enumerate(rows, 1):
        if row and len(row) != 2:
            raise InputError(
                f"{len(row)} columns instead of a photo and its label",
                where=f"line {number} of {str(file)!r}",
                hint='cat.jpg,tabby (a label with a comma in quotes: cat.jpg,"tabby, tabby cat")',
            )
    return dict(row for row in rows if row)


def against_truth(explain: Callable[..., Explanation], true: int) -> SideBySide:
    """Return the prediction of each image beside the class ``true``, with the difference of the two.

    Where the prediction is right, against the runner-up, which a warning says. ``explain(target)`` and
    ``explain(target, counterfactual=True)`` give explanations. Errors as in ``contrast``.
    """
    best = explain(TopK(2))
    predicted, runner_up = best.class_index[0::2], best.class_index[1::2]
    right = predicted == true
    other = np.where(right, runner_up, true)
    if np.array_equal(other, runner_up):
        first, second = best[0::2], best[1::2]
    else:  # all classes in one run: in two, the same activations may be rounded differently
        classes = np.unique([*predicted, *other])
        rows = explain(Classes(classes.tolist()))
        start = np.arange(len(predicted)) * len(classes)
        first, second = (rows[start + np.searchsorted(classes, c)] for c in (predicted, other))
    name = "runner-up" if right.all() else "other" if right.any() else "true"
    difference = None
    if not has_both_sides(first) and first.cell is None:
        pairs = zip(predicted.tolist(), other.tolist(), strict=True)
        difference = explain_both(explain, [Difference(a, b) for a, b in pairs]).parts["net"]
    found = contrast(first, second, difference, names=("predicted", name))
    if not right.any():
        return found
    label = label_of(true, best.labels)
    which = "the prediction is" if len(right) == 1 else f"{right.sum()} of {len(right)} predictions are"
    remark = f"{which} right ({label}): shown against the runner-up"
    return replace(found, remark=remark, warnings=(remark, *found.warnings))
