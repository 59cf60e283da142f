"""Make the cams of the target layers, smoothed over copies of the input or combined otherwise where that is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.errors import MethodError
from onnx_gradcam.explain.layer_maps import layer_result
from onnx_gradcam.methods.cam import NEEDS_CURVATURE, NEEDS_GRADIENT, NEEDS_NOISE
from onnx_gradcam.methods.copies import COPIES, Classes, Noise, batches, frozen, noisy
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.inputs import spatial_axes
from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.results import notes
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.targets import RowTarget

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Results = dict[str, Any]
Rows = Sequence[tuple[int, Any]]
Evaluate = Callable[[Feeds, Any, bool], tuple[Results, Rows, Gradients | None]]
"""Feeds, what is wanted, whether gradients are → results by image, rows (image, class or aim), gradients by row."""


@dataclass(frozen=True)
class Question:
    """What is asked of a model: cams of ``layers`` for ``wanted``. ``image``: the input that is explained, of which
    copies are made, with ``noise``; the inputs of ``shared`` have no batch axis."""

    evaluate: Evaluate
    layers: Sequence[Layer]
    feeds: Feeds
    wanted: Any
    image: InputSpec
    shared: Sequence[str]
    noise: Noise

    @property
    def x(self) -> Array:
        """The images, (N, …)."""
        return self.feeds[self.image.name]


class Answer(NamedTuple):
    """Forward results (one entry per image), rows (image, class), the cams of the layers (one per row), and what the
    user should know."""

    results: Results
    rows: Rows
    layers: list[LayerResult]
    notes: tuple[str, ...]


def smoothed(question: Question, recipe: Recipe) -> Answer:
    """The cams that ``recipe`` asks for.

    Copies are run for the classes of the input itself; activation, gradient and weights of the results are its own, but
    for the gradient of methods over noisy copies, which is the copies' mean.
    """
    needs_gradient = recipe.method in NEEDS_GRADIENT
    results, rows, gradients = question.evaluate(question.feeds, question.wanted, needs_gradient)
    classes = frozen(rows, len(question.x))
    if recipe.method in NEEDS_NOISE:
        gradients = mean_powers(_runs(question, classes, noisy(question.x, question.noise), True))
    found = [layer_result(layer, results, rows, gradients, recipe) for layer in question.layers]
    for name in recipe.smooth:
        if name in COPIES:
            _check_places(name, rows)
            copies = COPIES[name](question.x, spatial_axes(question.image, found[0].cam.ndim - 1), question.noise)
            runs = _runs(question, classes, copies.arrays, needs_gradient)
            found = averaged(found, runs, question.layers, recipe, copies.mirrored)
    return Answer(results, rows, found, _notes(question, recipe, gradients))


def _notes(question: Question, recipe: Recipe, gradients: Gradients | None) -> tuple[str, ...]:
    if recipe.method not in NEEDS_CURVATURE or gradients is None:
        return ()
    curvature = gradients.beside["curvature"]
    return tuple(notes.flat([layer.name for layer in question.layers if not curvature[layer.name].any()]))


def _check_places(name: str, rows: Rows) -> None:
    """Raise ``MethodError`` where what is explained lies at a place that a mirrored copy has elsewhere."""
    placed = [what for _, what in rows if isinstance(what, RowTarget) and what.is_placed]
    if name == "aug" and placed:
        raise MethodError(
            f"smoothing by 'aug' mirrors images, and with them the place that {placed[0].text!r} is about",
            hint="smoothing by 'noise' or 'eigen'",
            smooth=name,
        )


class Run(NamedTuple):
    """What some copies gave, copy after copy: their number, results by image, rows (image, class), gradients by row."""

    copies: int
    results: Results
    rows: Rows
    gradients: Gradients | None


def _runs(question: Question, classes: Classes, copies: Iterable[Array], needs_gradient: bool) -> Iterator[Run]:
    for feeds, wanted, count in batches(copies, question.feeds, question.image.name, classes, question.shared):
        yield Run(count, *question.evaluate(feeds, wanted, needs_gradient))


def averaged(
    found: Sequence[LayerResult],
    runs: Iterable[Run],
    layers: Sequence[Layer],
    recipe: Recipe,
    mirrored: Sequence[bool],
) -> list[LayerResult]:
    """``found`` with the mean of the copies' cams, those of mirrored copies mirrored back along their last axis."""
    totals = [np.zeros(layer.cam.shape) for layer in found]
    back = iter(mirrored)
    for run in runs:
        turned = [next(back) for _ in range(run.copies)]
        for total, layer in zip(totals, layers, strict=True):
            cams = layer_result(layer, run.results, run.rows, run.gradients, recipe).cam
            for cam, is_mirrored in zip(cams.reshape(run.copies, *total.shape), turned, strict=True):
                total += np.flip(cam, -1) if is_mirrored else cam
    means = [(total / len(mirrored)).astype(np.float32) for total in totals]
    return [replace(layer, cam=mean) for layer, mean in zip(found, means, strict=True)]


def mean_powers(runs: Iterable[Run]) -> Gradients:
    """Return the means over the copies of each layer's G, float32, and beside it of G² ("square") and G³ ("cube"), both
    float64: a cube leaves the range of float32."""
    totals: dict[str, list[Any]] = {}
    count = 0
    for run in runs:
        assert run.gradients is not None
        count += run.copies
        for name, gradient in run.gradients.of.items():
            each = gradient.astype(np.float64).reshape(run.copies, -1, *gradient.shape[1:])
            before = totals.get(name, [0, 0, 0])
            totals[name] = [total + np.sum(each**power, axis=0) for power, total in enumerate(before, start=1)]
    first, square, cube = ({name: powers[k] / count for name, powers in totals.items()} for k in range(3))
    return Gradients({n: mean.astype(np.float32) for n, mean in first.items()}, {"square": square, "cube": cube})
