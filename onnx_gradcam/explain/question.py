"""What is explained, bound to the model; several questions of the same form are run together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from onnx_gradcam.engine.evaluation import RunResult, Targets
from onnx_gradcam.engine.gradients import Gradients
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.explain.drawn import Feeds, MapTask, Progress
from onnx_gradcam.explain.maps import evaluation_at_layers, is_one_run
from onnx_gradcam.explain.network import Network
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.targets import Context

Result = TypeVar("Result")
TOGETHER = 8
"""How many photos are prepared and run together: their activations are in memory at once."""


@dataclass(frozen=True, eq=False)
class Question:
    """Images, and what is explained of them by which method.

    Attributes:
        networks: the model, on each branch that the targets read.
        context: the model as targets see it.
        feeds: arrays by input name, for N images.
        targets: for each image what is explained.
        recipe: the method.
        frame: where the maps are drawn.
        choice: how the photo of the frame became an array; None without a photo.
        notes: what the user should know of photo and method, one sentence each.
    """

    networks: tuple[Network, ...]
    context: Context
    feeds: Feeds
    targets: Targets
    recipe: Recipe
    frame: Frame
    choice: Choice | UserFunction | None = None
    notes: tuple[str, ...] = ()

    def task(self, progress: Progress) -> MapTask:
        """Return what the maps on the first of the networks are made of; ``progress`` is told of their runs."""
        return MapTask(self.networks[0], self.feeds, self.targets, self.recipe, self.frame, progress)


def run_together(questions: Mapping[int, Question]) -> dict[int, RunResult]:
    """Return what the model gives for questions of one image each, in as few runs as their shapes allow.

    Questions that cannot be run together, or whose common run fails, are left out: each is run by itself later, so that
    an image that fails does so alone.
    """
    ahead: dict[int, RunResult] = {}
    one_run = [n for n, each in questions.items() if is_one_run(each.recipe) and len(each.networks) == 1]
    numbers = sorted(one_run, key=lambda n: _form(questions[n]))
    for _, group in groupby(numbers, key=lambda n: _form(questions[n])):
        alike = list(group)
        if len(alike) > 1:
            ahead.update(zip(alike, _run([questions[n] for n in alike]), strict=False))
    return ahead


def _form(question: Question) -> tuple[Any, ...]:
    return id(question.networks[0]), *((name, array.shape) for name, array in sorted(question.feeds.items()))


def _run(questions: Sequence[Question]) -> Iterator[RunResult]:
    """Yield what each of several questions of the same form gets; nothing where they cannot be run together."""
    network, recipe, count = questions[0].networks[0], questions[0].recipe, len(questions)
    shared = inputs.inputs_without_batch(questions[0].feeds, network.inputs, network.image_input)
    feeds = {
        name: array if name in shared else np.concatenate([question.feeds[name] for question in questions])
        for name, array in questions[0].feeds.items()
    }
    targets = [of_image for question in questions for of_image in question.targets]
    try:
        run = evaluation_at_layers(network, recipe).evaluate(feeds, targets, methods.needs_gradient(recipe.method))
    except OnnxGradcamError:  # each is run by itself: those that fail say why
        return
    if all(isinstance(array, np.ndarray) and array.ndim and len(array) in (1, count) for array in run.results.values()):
        yield from (_of_image(run, image, count) for image in range(count))


def _of_image(run: RunResult, image: int, count: int) -> RunResult:
    """Return what a run of several images gave for one of them."""
    numbers = [number for number, row in enumerate(run.rows) if row.image == image]
    rows = tuple(replace(run.rows[number], image=0) for number in numbers)
    results = {name: array[[image]] if len(array) == count else array for name, array in run.results.items()}
    if run.gradients is None:
        return RunResult(results, rows, None)
    of = {name: array[numbers] for name, array in run.gradients.of.items()}
    beside = {
        what: {name: array[numbers] for name, array in arrays.items()} for what, arrays in run.gradients.beside.items()
    }
    return RunResult(results, rows, Gradients(of, beside))


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | OnnxGradcamError:
    """Return what a function gives, or the error that it raises."""
    try:
        return function(*arguments)
    except OnnxGradcamError as error:
        return error
