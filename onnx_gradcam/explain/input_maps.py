"""From gradients in input space to attributions, and from these to one heatmap per row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.biases import Bias
from onnx_gradcam.engine.evaluation import Evaluation, Wanted
from onnx_gradcam.engine.rows import Rows
from onnx_gradcam.engine.rows import score as scores
from onnx_gradcam.methods.attribution import AVERAGED, INTEGRALS, LAYERED, LOCAL, baseline_of
from onnx_gradcam.methods.copies import batches, frozen
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.results import notes

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Question:
    """What is asked of a model in input space.

    ``evaluation`` differentiates with respect to the value called ``name``: the input ``image_input``, or the first
    floating-point value made of it. ``space``: which axes of both are space. ``added``: the biases of the network, with
    the axes (N, C, *space) of those that lie on a grid over the image.
    """

    evaluation: Evaluation
    feeds: dict[str, Array]
    wanted: Wanted
    image_input: str
    name: str
    space: tuple[int, ...]
    added: Sequence[tuple[Bias, tuple[int, ...] | None]] = ()

    @property
    def x(self) -> Array:
        """The images, (N, …), as they are fed."""
        return self.feeds[self.image_input]


@dataclass(frozen=True)
class Answer:
    """Forward results, one per image, and the attribution (R, *input shape) float32, one per row (image, class);
    ``notes``: what the user should know of it."""

    results: dict[str, Any]
    rows: Rows
    attribution: Array
    notes: tuple[str, ...] = ()


def local(question: Question, recipe: Recipe) -> Answer:
    """A method that looks at one gradient."""
    results, rows, gradients = _at_x(question)
    x = _rows_of_x(question, results, rows)
    return Answer(results, rows, LOCAL[recipe.method](x, gradients[question.name]))


def layered(question: Question, recipe: Recipe) -> Answer:
    """A method that looks at the gradient at every bias, too."""
    results, rows, gradients = _at_x(question)
    x, gradient = _rows_of_x(question, results, rows), gradients[question.name]
    evidence = [(gradients[bias.name] * bias.added.astype(np.float32), axes) for bias, axes in question.added]
    placed = [found.transpose(axes) for found, axes in evidence if axes is not None]
    attribution = LAYERED[recipe.method](x, gradient, placed, question.space)
    explained = np.sum([_per_row(part) for part in [x * gradient, *(found for found, _ in evidence)]], axis=0)
    score = scores(question.evaluation.score, rows, results)
    return Answer(results, rows, attribution, tuple(notes.incomplete(explained, score)))


def averaged(question: Question, recipe: Recipe) -> Answer:
    """A method that looks at gradients at many copies of the input, all for the classes of the input itself."""
    results, rows, _ = question.evaluation.evaluate(question.feeds, question.wanted, False)
    images = np.array([image for image, _ in rows])
    classes = frozen(rows, len(question.x))
    shared = [name for name, x in question.feeds.items() if not x.ndim or len(x) != len(question.x)]

    def gradients_at(copies: Iterable[Array]) -> Iterator[Array]:
        for feeds, wanted, count in batches(copies, question.feeds, question.image_input, classes, shared):
            _, _, gradients = question.evaluation.evaluate(feeds, wanted, True)
            assert gradients is not None
            found = gradients.of[question.name].astype(np.float32)
            yield found.reshape(count, len(rows), *found.shape[1:])

    attribution = AVERAGED[recipe.method](question.x, images, gradients_at, **recipe.options)
    told = _missing(question, results, rows, attribution, recipe.options) if recipe.method in INTEGRALS else ()
    return Answer(results, rows, attribution, tuple(told))


def _missing(
    question: Question, results: Mapping[str, Any], rows: Rows, attribution: Array, options: Mapping[str, Any]
) -> list[str]:
    """Whether an integral from a baseline adds up to the difference of the scores; of one cell of many it is not
    asked, which at the baseline is another one."""
    score = question.evaluation.score
    if score.dense is not None:
        return []
    start = baseline_of(options.get("baseline", 0.0), question.x)
    feeds = {**question.feeds, question.image_input: start}
    before, _, _ = question.evaluation.evaluate(feeds, frozen(rows, len(question.x)), False)
    difference = scores(score, rows, results) - scores(score, rows, before)
    return notes.inexact(_per_row(attribution), difference)


def _at_x(question: Question) -> tuple[dict[str, Any], Rows, dict[str, Array]]:
    """Forward results, rows, and gradients by the name of the value."""
    results, rows, gradients = question.evaluation.evaluate(question.feeds, question.wanted, True)
    assert gradients is not None
    return results, rows, {name: g.astype(np.float32) for name, g in gradients.of.items()}


def _rows_of_x(question: Question, results: Mapping[str, Any], rows: Rows) -> Array:
    """The floating-point input that each row explains."""
    x = question.x if question.name == question.image_input else results[question.name]
    found: Array = x[[image for image, _ in rows]].astype(np.float32)
    return found


def _per_row(array: Array) -> Array:
    total: Array = array.reshape(len(array), -1).sum(axis=1, dtype=np.float64)
    return total


ANSWERS: Mapping[str, Callable[[Question, Recipe], Answer]] = {
    **dict.fromkeys(LOCAL, local),
    **dict.fromkeys(AVERAGED, averaged),
    **dict.fromkeys(LAYERED, layered),
}
