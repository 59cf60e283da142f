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
from onnx_gradcam.photos.listing import Listed
from onnx_gradcam.results.contrast import contrast, explain_both, has_both_sides
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.targets import Classes, Difference, TopK, class_index

TABLE = ".csv"
FOLDER = "folder"
"""The text that takes the true class from the folder of a photo."""


def true_classes(true: str, images: Sequence[Listed], explainer: Explainer) -> dict[Path, int]:
    """Return the class of each photo.

    It is one label or class index for all, or stands in a table of lines ``photo,label``, or "folder" takes it from the
    innermost folder of the photo that has the name of a class. Photos without a class are left out.

    Raises:
        InputError: the table cannot be read, a line is not ``photo,label``, or no folder has the name of a class.
        TargetError: a label is unknown or ambiguous, or the model has no classes to tell apart.
    """
    count = explainer.score.count
    if count < 2:
        raise TargetError(
            f"the score {explainer.score.name!r} has no classes of which one could be the true one",
            hint="without --true the value itself is explained",
        )
    if true == FOLDER:
        return _by_folder(images, count, explainer.labels)
    paths = [image.path for image in images]
    if not true.lower().endswith(TABLE):
        return dict.fromkeys(paths, class_index(true, count, explainer.labels))
    table = read_table(Path(true))
    names = {path: name for path in paths for name in (path.name, str(path)) if name in table}
    return {path: class_index(table[name], count, explainer.labels) for path, name in names.items()}


def _by_folder(images: Sequence[Listed], count: int, labels: Sequence[str] | None) -> dict[Path, int]:
    errors: dict[str, TargetError] = {}
    indices: dict[str, int] = {}
    for folder in dict.fromkeys(name for image in images for name in image.folders):
        try:
            indices[folder] = class_index(folder, count, labels)
        except TargetError as error:
            errors[folder] = error
    innermost = {image.path: next((f for f in image.folders if f in indices), None) for image in images}
    if not any(innermost.values()):
        first = errors[images[0].folders[0]]
        raise InputError(
            f"no folder of the images has the name of a class: {first.what}",
            where=f"folders {', '.join(map(repr, list(errors)[:5]))}",
            hint=first.hint or "photos/tabby/1.jpg, with the label or the index of a class as folder",
        )
    return {path: indices[folder] for path, folder in innermost.items() if folder is not None}


def no_label(path: Path, true: str) -> InputError:
    """Return the error for a photo without a true class."""
    if true == FOLDER:
        return InputError(
            f"{path.name!r} lies in no folder with the name of a class",
            where=f"'{path}'",
            hint="a folder with the label or the index of a class",
        )
    return InputError(f"{path.name!r} has no label in {true!r}", hint=f"a line '{path.name},LABEL'")


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


def _by_image(explanation: Explanation, targets: int) -> np.ndarray:
    """Return the numbers of the rows by image, target and view, (N, targets, views)."""
    return np.arange(len(explanation)).reshape(-1, targets, explanation.frame.views)


def against_truth(explain: Callable[..., Explanation], true: int) -> SideBySide:
    """Return the prediction of each image beside the class ``true``, with the difference of the two.

    Where the prediction is right, against the runner-up, which a warning says. ``explain(target)`` and
    ``explain(target, counterfactual=True)`` give explanations. Errors as in ``contrast``.
    """
    best = explain(TopK(2))
    numbers = _by_image(best, 2)
    predicted, runner_up = best.class_index[numbers[:, :, 0]].T
    right = predicted == true
    other = np.where(right, runner_up, true)
    if np.array_equal(other, runner_up):
        first, second = (best[numbers[:, k].ravel()] for k in (0, 1))
    else:  # all classes in one run: in two, the same activations may be rounded differently
        classes = np.unique([*predicted, *other])
        rows = explain(Classes(classes.tolist()))
        numbers, images = _by_image(rows, len(classes)), np.arange(len(predicted))
        first, second = (rows[numbers[images, np.searchsorted(classes, c)].ravel()] for c in (predicted, other))
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
