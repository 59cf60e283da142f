"""Targets bound to a model: by which kind of score each is explained, and what it comes to for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.score import NO_CLASSES, Score
from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.targets.classes import TOP1, class_index
from onnx_gradcam.targets.detections import Layouts
from onnx_gradcam.targets.kinds import CLASS, Kind

Array = npt.NDArray[Any]

ANY_CLASS = "CLASS, top5, prob:CLASS, logprob:CLASS"
SEVERAL = f"{ANY_CLASS}, diff:A,B, finer:CLASS"
FITTING = {
    "classes": f"{SEVERAL}, output:K, -output:K, similar:FILE.npy",
    "binary": f"{ANY_CLASS}, output:0, -output:0",
    "regression": "output:0, -output:0",
    "values": "output:K, -output:K",
    "embedding": "similar:FILE.npy, output:K, -output:K",
    "map": f"{SEVERAL}, mask:CLASS@FILE, box:CLASS@X1,Y1,X2,Y2, argmax:CLASS",
    "detector": f"boxes, {SEVERAL}, cell:K, point:X,Y",
    "sequence": f"{SEVERAL}, tokens:A,B,C, logits:A,B,C",
}
THINGS = {"values": "the values of a regression or the pixels of an image", "embedding": "an embedding"}
PLURALS = {
    "classes": "a model with one score per class",
    "binary": "a model with one sigmoid logit",
    "regression": "a regression",
    "values": "a model whose numbers are no classes",
    "embedding": "an embedding",
    "map": "a dense map of classes",
    "detector": "a detector",
    "sequence": "a sequence of scores",
}


def family_of(score: Score) -> str:
    """Return which family of models a score tells: a key of ``FITTING``."""
    dense = score.dense
    if dense is None:
        return score.kind
    if dense.detector:
        return "detector"
    return "sequence" if dense.cell_axes == 1 else "map"


@dataclass(frozen=True)
class Context:
    """What a target has to know of the model.

    Attributes:
        score: the score of the model.
        labels: the labels of its classes; None: not known.
        size: (height, width) of the image input.
        threshold: the probability from which on something is taken as detected.
        layouts: in which form the model gives its boxes, by size of the input, as far as images have shown it; it is
            filled while images are explained.
    """

    score: Score
    labels: Sequence[str] | None
    size: tuple[int, ...]
    threshold: float = 0.25
    layouts: Layouts = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return which family of models it is: a key of ``FITTING``."""
        return family_of(self.score)

    @property
    def fitting(self) -> str:
        """Return the forms of ``--target`` that fit the model."""
        dense = self.score.dense
        objectness = ", objectness:X,Y" if dense is not None and dense.objectness is not None else ""
        boxes = ", iou:X1,Y1,X2,Y2" if dense is not None and dense.boxes is not None else ""
        return f"{FITTING[self.kind]}{objectness}{boxes}"

    def class_index(self, target: int | str | None) -> int:
        """Return the class index of an index or a label; ``TOP1`` for None and "top1"."""
        if target is None or target == "top1":
            return TOP1
        return class_index(target, self.score.count, self.labels)

    def label(self, index: int) -> str:
        """Return the label of a class, of "tabby, tabby cat" the first; "class 3" where labels are not known."""
        name = label_of(index, self.labels)
        return f"class {index}" if name == str(index) else name.partition(",")[0]

    def require_classes(self) -> None:
        """Raise ``TargetError``, saying what the numbers are and naming the forms that fit, where they are no classes.

        The single number of a regression has no choice, and is explained.
        """
        score = self.score
        if self.kind in NO_CLASSES:
            raise TargetError(
                f"{score.output!r} holds {score.count} numbers that are no classes, so that there is no top-1",
                where=f"it is taken for {THINGS[self.kind]}: {score.reason}",
                hint=f"what fits this model: {self.fitting}. If they are classes all the same: --score {score.name}",
                target=None,
            )

    def require(self, target: object, *kinds: str) -> None:
        """Raise ``TargetError``, naming the forms that fit the model, where the model is of none of these kinds."""
        if self.kind not in kinds:
            raise self.refusal(target, f"is not for {PLURALS[self.kind]}")

    def refusal(self, target: object, why: str) -> TargetError:
        """Return the error for a target that does not fit the model."""
        return TargetError(
            f"{type(target).__name__} {why}",
            where=f"score {self.score.name!r}",
            hint=f"what fits this model: {self.fitting}",
            target=target,
        )


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass, one entry per image, as targets see it.

    Attributes:
        results: arrays by name.
        dense: arrays by attribute of ``DenseTensors``.
        ranking: (N, K), by which classes are ranked.
    """

    results: Mapping[str, Any]
    dense: Mapping[str, Array]
    ranking: Array

    @cached_property
    def order(self) -> Array:
        """Return (N, K) int64, the classes of each image from the highest to the lowest."""
        order: Array = np.argsort(-self.ranking, axis=1, kind="stable")
        return order

    def best(self, image: int, index: int) -> int:
        """Return ``index``, or the top-1 of the image in the place of ``TOP1``."""
        return int(self.ranking[image].argmax()) if index == TOP1 else index


@dataclass(frozen=True)
class RowTarget:
    """What one row explains: the target of one image.

    Attributes:
        kind: how the score is written.
        class_index: the class that the score is of; −1 where it is of none.
        parameters: the arrays of the kind's parameters, by name.
        text: the target as ``--target`` has it; "" for a class.
        title: the target in words for readers; "" for a class, which has a label.
        cell_number: the number of the cell that was picked; None where none was.
        level: the level that this cell lies on.
        probability: the probability in this cell.
        made_of: what it is a product of: "objectness 0.91 × class 0.88"; "" where it is of one piece.
        box: x1, y1, x2, y2 of the box that the row is about, in pixels of the input; None where it is about none.
        warning: a sentence that the user should read; "" for none.
        score: what the graph of the kind computed for the row; NaN before that, and for a class, whose score is read
            from the score tensor.
    """

    kind: Kind
    class_index: int
    parameters: Mapping[str, Array] = field(default_factory=dict)
    text: str = ""
    title: str = ""
    cell_number: int | None = None
    level: int = -1
    probability: float = float("nan")
    made_of: str = ""
    box: tuple[float, ...] | None = None
    warning: str = ""
    score: float = float("nan")

    @property
    def is_placed(self) -> bool:
        """Return whether the score is of cells that were picked for the input as it is."""
        return self.cell_number is not None or any("cells" in parameter.dims for parameter in self.kind.parameters)

    @property
    def of_best_cell(self) -> bool:
        """Return whether the score is that of the most probable cell of the class, where there are cells."""
        return self.cell_number is None and self.class_index >= 0 and self.kind.at_best_cell


@dataclass(frozen=True)
class BoundTarget:
    """A target bound to one model.

    Attributes:
        kind: how its score is written.
        rows: ``rows(forward, image)`` returns what is explained of one image, a target for each row.
        ahead: what is explained of every image, where the target needs to see nothing for it; None where it does. The
            class may be ``TOP1``, which the graph itself finds.
    """

    kind: Kind
    rows: Callable[[ForwardPass, int], tuple[RowTarget, ...]]
    ahead: RowTarget | None = None


def one_row(kind: Kind, row: Callable[[ForwardPass, int], RowTarget]) -> BoundTarget:
    """Return the target that explains ``row(forward, image)`` of each image."""
    return BoundTarget(kind, lambda forward, image: (row(forward, image),))


def class_target(index: int) -> BoundTarget:
    """Return the target of a class, or of ``TOP1``."""
    return BoundTarget(
        CLASS, lambda forward, image: (RowTarget(CLASS, forward.best(image, index)),), RowTarget(CLASS, index)
    )


def ranked_target(rank: int) -> BoundTarget:
    """Return the target of the class that an image ranks at place ``rank``, counted from 0."""
    return one_row(CLASS, lambda forward, image: RowTarget(CLASS, int(forward.order[image, rank])))


def fixed_target(row: RowTarget) -> BoundTarget:
    """Return a bound target that explains ``row`` whatever the input."""
    return BoundTarget(row.kind, lambda forward, image: (row,), row)


def one_hot(count: int, index: int, value: float = 1.0) -> Array:
    """Return zeros (count,) float32 with ``value`` at ``index``."""
    vector = np.zeros(count, np.float32)
    vector[index] = value
    return vector
