"""From gradients in input space to attributions, and from these to one heatmap per row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.biases import Bias
from onnx_gradcam.engine.checks import over_copies
from onnx_gradcam.engine.evaluation import Evaluation, RunResult, Targets
from onnx_gradcam.engine.rows import Row, Rows, each_view, hold_targets
from onnx_gradcam.engine.rows import score as scores
from onnx_gradcam.errors import MethodError, NotFinite
from onnx_gradcam.methods.attribution import AVERAGED_METHODS, BIAS_METHODS, LOCAL_METHODS
from onnx_gradcam.methods.copies import batches
from onnx_gradcam.methods.differences import DIFFERENCE_METHODS
from onnx_gradcam.methods.expectation import PATH_METHODS, starts_of
from onnx_gradcam.methods.integration import spelled_out
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.relevance import RELEVANCE_METHODS
from onnx_gradcam.results import cautions, notes
from onnx_gradcam.results.records import Completeness

Array = npt.NDArray[Any]
WAYS_OUT = {
    "integrated-gradients": "more steps come nearer (--option steps=200)",
    "gradient-shap": "more samples come nearer (--option samples=200)",
    "deeplift": "numbers are rounded, or the network chooses by its input on the way",
}
"""Method → why its sum may not be the difference of the scores, or what brings it nearer."""


@dataclass(frozen=True, eq=False)
class AttributionTask:
    """What an attribution needs: how to evaluate the model, with respect to which value, for which images and targets.

    Attributes:
        evaluation: runs the model forward, and backward to the value called ``name`` and to the inputs in ``moving``.
        feeds: arrays by input name, for N images.
        targets: for each image what is explained.
        image_input: the input that is explained.
        name: this input, or the first floating-point value that is computed from it.
        space: which axes of both are space.
        biases: the biases of the network, each with the axes (N, C, *space) of its value, or None where that lies on no
            grid over the image.
        moving: the inputs that move together from a baseline, the explained one first.
        shared: the names of the inputs without a batch axis.
        at_baseline: for each input in ``moving`` the input that takes its baseline, of a model with a second pass.
    """

    evaluation: Evaluation
    feeds: dict[str, Array]
    targets: Targets
    image_input: str
    name: str
    space: tuple[int, ...]
    biases: Sequence[tuple[Bias, tuple[int, ...] | None]] = ()
    moving: Sequence[str] = ()
    shared: Sequence[str] = ()
    at_baseline: Mapping[str, str] = field(default_factory=dict)

    @property
    def x(self) -> Array:
        """Return the images, (N, …), as they are fed."""
        return self.feeds[self.image_input]


@dataclass(frozen=True, eq=False)
class Attributions:
    """The attributions of R rows.

    Attributes:
        results: what the forward pass gave, one entry per image.
        rows: for each row its image and its target.
        attribution: (R, *input shape) float32.
        notes: what the user should know, one sentence each.
        completeness: how far the attributions add up to a difference of scores; None for methods without this promise.
        cautions: for each row a line that must stand in its picture, "" for nothing; empty for nothing at all.
    """

    results: Mapping[str, Any]
    rows: tuple[Row, ...]
    attribution: Array
    notes: tuple[str, ...] = ()
    completeness: Completeness | None = None
    cautions: tuple[str, ...] = ()

    def for_each_view(self, views: int) -> Attributions:
        """Return a row for each view of each image; the attribution stays that of the whole image."""
        which = np.repeat(np.arange(len(self.rows)), views)
        return replace(
            self,
            rows=each_view(self.rows, views),
            attribution=self.attribution[which],
            completeness=None if self.completeness is None else self.completeness.rows(which),
            cautions=tuple(self.cautions[row] for row in which) if self.cautions else (),
        )


def attribute_locally(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that looks at the gradient at the input alone."""
    results, rows, gradients = _evaluate_at_x(task)
    x = _x_of_rows(task, results, rows)
    return Attributions(results, rows, LOCAL_METHODS[recipe.method](x, gradients[task.name]))


def attribute_with_biases(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that looks at the gradients at the input and at every bias."""
    results, rows, gradients = _evaluate_at_x(task)
    x, gradient = _x_of_rows(task, results, rows), gradients[task.name]
    several = [bias.name for bias, _ in task.biases if len(gradients[bias.name]) != len(rows)]
    if several:
        raise MethodError(
            f"method {recipe.method!r} adds up what each bias says of each image, and {several[0]!r} has "
            f"{len(gradients[several[0]])} entries for {len(rows)} rows",
            hint="'integrated-gradients', or a method of a layer ('gradcam')",
            method=recipe.method,
        )
    evidence = [(gradients[bias.name] * bias.added.astype(np.float32), axes) for bias, axes in task.biases]
    on_grid = [share.transpose(axes) for share, axes in evidence if axes is not None]
    attribution = BIAS_METHODS[recipe.method](x, gradient, on_grid, task.space)
    explained = np.sum([_sum_of_rows(part) for part in [x * gradient, *(share for share, _ in evidence)]], axis=0)
    score = scores(task.evaluation.score, rows, results)
    incomplete = cautions.incomplete(explained, score, notes.COMPLETE)
    sentences = tuple(notes.missing_evidence(explained, score))
    return Attributions(results, rows, attribution, sentences, cautions=tuple(incomplete))


def attribute_relevance(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that carries the score itself back, in shares."""
    results, rows, of = _evaluate_at_x(task)
    attribution = RELEVANCE_METHODS[recipe.method](_x_of_rows(task, results, rows), of[task.name])
    score = scores(task.evaluation.score, rows, results).astype(np.float64)
    completeness = Completeness({task.name: _sum_of_rows(attribution)}, score)
    return Attributions(results, rows, attribution, tuple(notes.held_by_biases(completeness)), completeness)


def attribute_over_copies(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that averages gradients over many copies of the input.

    All copies are run for the targets that the input itself settles.
    """
    run = task.evaluation.evaluate(task.feeds, task.targets, False)
    images = np.array([row.image for row in run.rows])

    def gradients_at(copies: Iterable[Array]) -> Iterator[Array]:
        for gradients in _gradients_at(task, run.rows, ({task.image_input: copy} for copy in copies), [task.name]):
            yield gradients[task.name]

    attribution = AVERAGED_METHODS[recipe.method](task.x, images, gradients_at, **recipe.options)
    return Attributions(run.results, run.rows, attribution)


def attribute_along_path(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that integrates gradients on the way from a baseline to the inputs.

    All points are run for the targets that the inputs themselves settle.
    """
    run = task.evaluation.evaluate(task.feeds, task.targets, False)
    images = np.array([row.image for row in run.rows])
    x = {name: task.feeds[name] for name in task.moving}

    def gradients_at(points: Iterable[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
        return _gradients_at(task, run.rows, points, task.moving)

    baseline = spelled_out(recipe.options.get("baseline", 0.0), task.x, task.image_input, task.space)
    of_inputs = PATH_METHODS[recipe.method](x, images, gradients_at, **{**recipe.options, "baseline": baseline})
    return _from_baseline(task, recipe, run, of_inputs, starts_of(baseline, x))


def attribute_difference(task: AttributionTask, recipe: Recipe) -> Attributions:
    """Return the attributions of a method that carries multipliers between a baseline and the inputs back."""
    x = {name: task.feeds[name] for name in task.moving}
    baseline = spelled_out(recipe.options.get("baseline", 0.0), task.x, task.image_input, task.space)
    starts = starts_of(baseline, x)
    fed = [{**task.feeds, **{task.at_baseline[name]: each for name, each in start.items()}} for start in starts]
    first = task.evaluation.evaluate(fed[0], task.targets, True)
    targets = hold_targets(first.rows, len(task.x))
    runs = [first, *(task.evaluation.evaluate(feeds, targets, True) for feeds in fed[1:])]
    images = np.array([row.image for row in first.rows])
    parts = [
        DIFFERENCE_METHODS[recipe.method](x, images, _multipliers(task, run), baseline=start)
        for run, start in zip(runs, starts, strict=True)
    ]
    of_inputs = {name: np.mean([part[name] for part in parts], axis=0) for name in x}
    return _from_baseline(replace(task, feeds=fed[0]), recipe, first, of_inputs, starts)


def _multipliers(task: AttributionTask, run: RunResult) -> dict[str, Array]:
    assert run.gradients is not None
    return {name: run.gradients.of[name].astype(np.float32) for name in task.moving}


def _from_baseline(
    task: AttributionTask,
    recipe: Recipe,
    run: RunResult,
    of_inputs: Mapping[str, Array],
    starts: Sequence[Mapping[str, Array]],
) -> Attributions:
    """Return attributions that add up to the difference of the scores from those at baselines, with how far they do."""
    try:
        completeness = _completeness(task, run, of_inputs, starts)
        sentences = [] if completeness is None else notes.integration_error(completeness, WAYS_OUT[recipe.method])
        incomplete = _incomplete(completeness)
    except NotFinite:  # all points between may be finite: a black image may have the norm 0
        completeness, sentences, incomplete = None, [notes.NO_SCORE_AT_BASELINE], []
    map_of_image = of_inputs[task.image_input]
    return Attributions(run.results, run.rows, map_of_image, tuple(sentences), completeness, tuple(incomplete))


def _incomplete(completeness: Completeness | None) -> list[str]:
    if completeness is None:
        return []
    return cautions.incomplete(completeness.total, completeness.difference, notes.INTEGRATED)


def _gradients_at(
    task: AttributionTask, rows: Rows, copies: Iterable[Mapping[str, Array]], names: Sequence[str]
) -> Iterator[dict[str, Array]]:
    """Yield the gradients of the rows' scores at copies of inputs, several copies at a time: (copies, R, …)."""
    targets = hold_targets(rows, len(task.x))
    for feeds, of_copies, count in batches(copies, task.feeds, task.image_input, targets, task.shared):
        with over_copies(len(task.x)):
            gradients = task.evaluation.evaluate(feeds, of_copies, True).gradients
        assert gradients is not None
        of = {name: gradients.of[name].astype(np.float32) for name in names}
        yield {name: gradient.reshape(count, len(rows), *gradient.shape[1:]) for name, gradient in of.items()}


def _completeness(
    task: AttributionTask, run: RunResult, of_inputs: Mapping[str, Array], starts: Sequence[Mapping[str, Array]]
) -> Completeness | None:
    """Return how far integrals add up to the difference of the scores at the ends of their path, or of their paths.

    Dense scores are not compared: the most probable cell may be another one at the baseline.
    """
    score = task.evaluation.score
    if score.dense is not None:
        return None
    targets = hold_targets(run.rows, len(task.x))
    runs = [task.evaluation.evaluate({**task.feeds, **start}, targets, False) for start in starts]
    at_baselines = np.mean([scores(score, at.rows, at.results).astype(np.float64) for at in runs], axis=0)
    sums = {name: _sum_of_rows(attribution) for name, attribution in of_inputs.items()}
    return Completeness(sums, scores(score, run.rows, run.results).astype(np.float64) - at_baselines)


def _evaluate_at_x(task: AttributionTask) -> tuple[Mapping[str, Any], tuple[Row, ...], dict[str, Array]]:
    """Return the results of the forward pass, the rows, and the gradients by the name of their value."""
    run = task.evaluation.evaluate(task.feeds, task.targets, True)
    assert run.gradients is not None
    return run.results, run.rows, {name: g.astype(np.float32) for name, g in run.gradients.of.items()}


def _x_of_rows(task: AttributionTask, results: Mapping[str, Any], rows: Rows) -> Array:
    """Return for each row the floating-point input that it explains, (R, …) float32."""
    x: Array = task.x if task.name == task.image_input else results[task.name]
    return x[[row.image for row in rows]].astype(np.float32)


def _sum_of_rows(array: Array) -> Array:
    total: Array = array.reshape(len(array), -1).sum(axis=1, dtype=np.float64)
    return total


ATTRIBUTE: Mapping[str, Callable[[AttributionTask, Recipe], Attributions]] = {
    **dict.fromkeys(LOCAL_METHODS, attribute_locally),
    **dict.fromkeys(PATH_METHODS, attribute_along_path),
    **dict.fromkeys(AVERAGED_METHODS, attribute_over_copies),
    **dict.fromkeys(BIAS_METHODS, attribute_with_biases),
    **dict.fromkeys(RELEVANCE_METHODS, attribute_relevance),
    **dict.fromkeys(DIFFERENCE_METHODS, attribute_difference),
}
"""Method → what attributes a score to the input by it."""
