"""From changed copies of a value of one image to the scores of what is explained of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.checks import IN_THE_MODEL, refusal
from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.rows import Row
from onnx_gradcam.explain.drawn import MapTask, Progress
from onnx_gradcam.methods.perturbation.records import PerturbedMaps
from onnx_gradcam.methods.perturbation.table import PERTURBATIONS
from onnx_gradcam.methods.recipe import Recipe

Array = npt.NDArray[Any]
Values = Mapping[str, Any]
Score = Callable[[Array], Array]


def run_forward(evaluation: Evaluation, task: MapTask, names: Sequence[str]) -> RunResult:
    """Return what the forward pass of an evaluation gives, and with it what the graphs behind some values read."""
    for kind in dict.fromkeys(target.kind for several in task.targets for target in several):
        for name in names:
            evaluation.tail(kind, name)
    return evaluation.evaluate(task.feeds, task.targets, False)


def values_of_image(
    evaluation: Evaluation, task: MapTask, run: RunResult, number: int, rows: Sequence[Row], names: Sequence[str]
) -> Values:
    """Return the values ``names`` of one image, and what the graphs behind them read beside; the others as they are.

    Args:
        evaluation: what was run.
        task: what maps are made of.
        run: what ``run_forward`` returned.
        number: the number of the image.
        rows: its rows.
        names: values of the model, or its image input.
    """
    kinds = dict.fromkeys(row.target.kind for row in rows)
    read = [beside for kind in kinds for name in names for beside in evaluation.tail(kind, name).beside]
    own = {name: array if name in task.shared else array[[number]] for name, array in task.feeds.items()}
    is_alone = len(task.x) == 1
    held = {**run.results, **own} if is_alone else own
    missing = [name for name in dict.fromkeys([*names, *read]) if name not in held]
    return {**held, **(evaluation.values(own, missing) if missing else {})}


def scoring(
    evaluation: Evaluation, name: str, rows: Sequence[Row], values: Values, tick: Callable[[int], None]
) -> Score:
    """Return a function from copies (B, …) of a value of one image to the scores of its K rows, (B, K) float64.

    Cells of dense scores are those of the image as it is.

    Args:
        evaluation: what was run.
        name: the value, or the image input.
        rows: the rows of the image.
        values: what ``values_of_image`` returned.
        tick: is told after each run of how many copies it was.
    """
    kinds = dict.fromkeys(row.target.kind for row in rows)
    numbers = {kind: [k for k, row in enumerate(rows) if row.target.kind == kind] for kind in kinds}
    tails = {kind: evaluation.tail(kind, name) for kind in kinds}

    def score(copies: Array) -> Array:
        parts = {
            kind: tails[kind].scores(copies, values, [rows[k].target for k in of_kind])
            for kind, of_kind in numbers.items()
        }
        count = len(next(iter(parts.values())))
        scores = np.empty((count, len(rows)))
        for kind, of_kind in numbers.items():
            scores[:, of_kind] = parts[kind]
        _refuse_broken(scores, rows[0].image)
        tick(count)
        return scores

    return score


def _refuse_broken(scores: Array, image: int) -> None:
    """Raise ``NotFinite`` for scores of copies of an image that are NaN or infinite."""
    if not np.isfinite(scores).all():
        raise refusal("the scores hold NaN or infinity in a changed copy", [image], "", IN_THE_MODEL, "")


def perturb(recipe: Recipe, changed: Sequence[Array], scores: Array, score: Score) -> PerturbedMaps:
    """Return the maps of a method for one image; for counterfactual ones that of −score.

    Args:
        recipe: the method.
        changed: the arrays that the method reads before the scores.
        scores: of the image as it is, (K,).
        score: the scoring function of the image.
    """
    sign = -1 if recipe.counterfactual else 1
    function: Callable[..., PerturbedMaps] = PERTURBATIONS[recipe.method].function
    return function(*changed, sign * scores, lambda copies: sign * score(copies), **recipe.options)


def counter(progress: Progress, total: int) -> Callable[[int], None]:
    """Return a function that is told of how many copies each run was, and tells ``progress`` how many are done."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    progress(0, total)
    return tick
