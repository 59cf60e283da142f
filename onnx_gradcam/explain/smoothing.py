"""From one evaluation of a model to the cams of its target layers, smoothed over copies of the input on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.engine.checks import over_copies
from onnx_gradcam.engine.evaluation import RunResult, Targets
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.engine.rows import Row, Rows, each_view, hold_targets
from onnx_gradcam.errors import MethodError
from onnx_gradcam.explain.layer_maps import count_views, layer_result
from onnx_gradcam.methods.cam import NEEDS_CURVATURE, NEEDS_GRADIENT, NEEDS_NOISE
from onnx_gradcam.methods.copies import SMOOTHING_COPIES, Noise, batches, noisy_copies
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.inputs import map_axes
from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.results import cautions, notes
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.targets import BoundTarget

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Results = Mapping[str, Any]
Evaluate = Callable[[Feeds, Targets, bool], RunResult]
"""As ``Evaluation.evaluate``: feeds, targets, whether gradients are needed."""


@dataclass(frozen=True, eq=False)
class CamTask:
    """What the cams of one call need: how to evaluate the model, at which layers, and for which images and targets.

    Attributes:
        evaluate: runs the model forward, and backward to the layers.
        layers: the target layers.
        feeds: arrays by input name, for N images.
        targets: for each image what is explained.
        image: the input that is explained; smoothing makes copies of it.
        shared: the names of the inputs without a batch axis.
        noise: how many noisy copies are made, and how much noise they get.
    """

    evaluate: Evaluate
    layers: Sequence[Layer]
    feeds: Feeds
    targets: Targets
    image: InputSpec
    shared: Sequence[str]
    noise: Noise

    @property
    def x(self) -> Array:
        """Return the images, (N, …)."""
        return self.feeds[self.image.name]


@dataclass(frozen=True, eq=False)
class Cams:
    """The cams of the target layers.

    Attributes:
        results: what the forward pass gave, one entry per image.
        rows: for each row its image and its target.
        layers: the result at each target layer, with one cam per row.
        notes: what the user should know, one sentence each.
        cautions: for each row a line that must stand in its picture, "" for nothing.
    """

    results: Results
    rows: tuple[Row, ...]
    layers: list[LayerResult]
    notes: tuple[str, ...]
    cautions: tuple[str, ...]


def compute_cams(task: CamTask, recipe: Recipe) -> Cams:
    """Return the cams of a recipe, smoothed where the recipe says so.

    Copies are run for the targets that the input itself settles. Activation, gradient and weights in the result are
    those of the input itself; only for methods over noisy copies the gradient is the mean over the copies.
    """
    needs_gradient = recipe.method in NEEDS_GRADIENT
    run = task.evaluate(task.feeds, task.targets, needs_gradient)
    gradients, targets = run.gradients, hold_targets(run.rows, len(task.x))
    if recipe.method in NEEDS_NOISE:
        gradients = mean_powers(_run_copies(task, targets, noisy_copies(task.x, task.noise), True))
    rows = each_view(run.rows, count_views(task.layers, run.results, task.image, task.x))
    layers = [layer_result(layer, run.results, rows, gradients, recipe) for layer in task.layers]
    for name in recipe.smooth:
        if name in SMOOTHING_COPIES:
            _check_places(name, run.rows)
            axes = map_axes(task.image, task.x.shape, layers[0].cam.shape[1:])
            copies = SMOOTHING_COPIES[name](task.x, _required(name, axes, layers[0].name), task.noise)
            runs = _run_copies(task, targets, copies.arrays, needs_gradient)
            layers = average_cams(layers, runs, task.layers, recipe, copies.mirrored, 1 + rows[-1].view)
    straight = _without_curvature(task, recipe, gradients)
    lines = cautions.no_curvature(len(rows), straight)
    return Cams(run.results, rows, layers, tuple(notes.no_curvature(straight)), tuple(lines))


def _without_curvature(task: CamTask, recipe: Recipe, gradients: Gradients | None) -> list[str]:
    """Return the layers in which a method of second order has nothing to read."""
    if recipe.method not in NEEDS_CURVATURE or gradients is None:
        return []
    curvature = gradients.beside["curvature"]
    return [layer.name for layer in task.layers if not curvature[layer.name].any()]


def _required(name: str, axes: tuple[int, ...] | None, layer: str) -> tuple[int, ...]:
    """Return the axes along which copies are mirrored; ``MethodError`` where the input has none for the map."""
    if axes is None and name == "aug":
        raise MethodError(
            f"smoothing by 'aug' mirrors the input, which has no axes for the map of {layer!r}",
            hint="smoothing by 'noise' or 'eigen'",
            smooth=name,
        )
    return axes or ()


def _check_places(name: str, rows: Rows) -> None:
    """Raise ``MethodError`` for a target at a place of the image: in a mirrored copy that place lies elsewhere."""
    placed = [row.target for row in rows if row.target.is_placed]
    if name == "aug" and placed:
        raise MethodError(
            f"smoothing by 'aug' mirrors the image, and then the place in {placed[0].text!r} is another one",
            hint="smoothing by 'noise' or 'eigen'",
            smooth=name,
        )


@dataclass(frozen=True, eq=False)
class CopyRun:
    """What one run of several copies gave; the entries of all arrays lie copy after copy.

    Attributes:
        copies: how many copies were run.
        run: what the evaluation gave for them.
    """

    copies: int
    run: RunResult


def _run_copies(
    task: CamTask, targets: list[tuple[BoundTarget, ...]], copies: Iterable[Array], needs_gradient: bool
) -> Iterator[CopyRun]:
    copied = ({task.image.name: copy} for copy in copies)
    for feeds, of_copies, count in batches(copied, task.feeds, task.image.name, targets, task.shared):
        with over_copies(len(task.x)):
            run = task.evaluate(feeds, of_copies, needs_gradient)
        yield CopyRun(count, run)


def average_cams(
    originals: Sequence[LayerResult],
    runs: Iterable[CopyRun],
    layers: Sequence[Layer],
    recipe: Recipe,
    mirrored: Sequence[bool],
    views: int = 1,
) -> list[LayerResult]:
    """Return the results of the input itself, each with the mean of the copies' cams in the place of its own.

    The cams of copies that are ``mirrored`` are mirrored back along their last axis. ``views``: how many an image has.
    """
    totals = [np.zeros(layer.cam.shape) for layer in originals]
    flags = iter(mirrored)
    for several in runs:
        run, flipped = several.run, [next(flags) for _ in range(several.copies)]
        rows = each_view(run.rows, views)
        for total, layer in zip(totals, layers, strict=True):
            cams = layer_result(layer, run.results, rows, run.gradients, recipe).cam
            for cam, is_mirrored in zip(cams.reshape(several.copies, *total.shape), flipped, strict=True):
                total += np.flip(cam, -1) if is_mirrored else cam
    means = [(total / len(mirrored)).astype(np.float32) for total in totals]
    return [replace(layer, cam=mean) for layer, mean in zip(originals, means, strict=True)]


def mean_powers(runs: Iterable[CopyRun]) -> Gradients:
    """Return the means over the copies of the powers of each layer's gradient G.

    G is float32; beside it stand G² ("square") and G³ ("cube"), float64: a cube leaves the range of float32.
    """
    totals: dict[str, list[Any]] = {}
    count = 0
    for several in runs:
        assert several.run.gradients is not None
        count += several.copies
        for name, gradient in several.run.gradients.of.items():
            each = gradient.astype(np.float64).reshape(several.copies, -1, *gradient.shape[1:])
            before = totals.get(name, [0, 0, 0])
            totals[name] = [total + np.sum(each**power, axis=0) for power, total in enumerate(before, start=1)]
    first, square, cube = ({name: powers[k] / count for name, powers in totals.items()} for k in range(3))
    return Gradients({n: mean.astype(np.float32) for n, mean in first.items()}, {"square": square, "cube": cube})
