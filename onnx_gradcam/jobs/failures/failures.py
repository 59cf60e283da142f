"""Which photos does a classifier get wrong, how sure is it, and what does it look at?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.errors import InputError, MethodError, OnnxGradcamError, ScoreError
from onnx_gradcam.explain.default_method import resolved
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.explain.preprocessing import refuse_guesses
from onnx_gradcam.explain.probing import class_scores, feeds_of_images
from onnx_gradcam.explain.question import TOGETHER, attempt
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.jobs.data.reading import read_data
from onnx_gradcam.jobs.data.samples import Sample
from onnx_gradcam.jobs.evaluate.subjects import ReadySample, class_of, classes_of_folders, prepare
from onnx_gradcam.jobs.explain import OF_ALL_IMAGES
from onnx_gradcam.jobs.failures.result import Failure, FailureReport
from onnx_gradcam.jobs.plan import is_array
from onnx_gradcam.jobs.requested import for_json
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.attribution import ATTRIBUTIONS
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.inputs import beside_image
from onnx_gradcam.photos.labels import LabelsLike, label_of
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.results import notes
from onnx_gradcam.results.contrast import explain_both
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Classes

LIMIT = 20
ONE_SIDED = frozenset((*ATTRIBUTIONS, *methods.GUIDED_CAMS))
NO_FEEDS: Mapping[str, Any] = MappingProxyType({})
NO_LABELS = "the data name no class, so that no prediction can be called wrong"


@spelled_out
def failures(
    model: ModelLike,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    limit: int = LIMIT,
    method: str = "auto",
    target_layer: str | Sequence[str] = "auto",
    fusion: str = "mean",
    smooth: str | Sequence[str] = (),
    options: Mapping[str, Any] = NO_FEEDS,
    inputs: Mapping[str, Any] = NO_FEEDS,
    labels: LabelsLike = None,
    preprocess: PreprocessLike = "auto",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    start: Callable[[str], None] = lambda method: None,
    report: Callable[[int, int], None] = lambda number, total: None,
    **opening: Unpack[Opening],
) -> FailureReport:
    """Return the mistakes of a classifier on labelled photos, the most confident first, and explain some of them.

    A photo with objects of several classes is a mistake where the model puts none of them first. Of each mistake there
    is what speaks for the predicted class and against it, and the same of the true class.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        data: a table (``.csv``), COCO annotations (``.json``), or photos in folders named after classes, as for
            ``evaluate``.
        limit: how many mistakes are explained.
        method, fusion, smooth: as for ``Explainer.explain``; a method of a layer.
        target_layer, labels: as for ``Explainer``.
        options: options of the method, by name.
        inputs: arrays for the model's other inputs, by name.
        preprocess: as for ``explain_image``; no function.
        strict: whether a guessed preprocessing is an error.
        max_pixels: the largest photo that is decoded.
        start: is called with the name of the method before the first photo is read; what it raises ends the run.
        report: is called when a photo is judged, with the number of those that are, and of all.
        **opening: the keywords of ``Opening``.

    Returns:
        All mistakes, with the maps of the first ones.

    Raises:
        InputError: the data cannot be read, name no classes, or no photo can be judged.
        MethodError: the method is unknown, or does not have two sides.
        ScoreError: the model has no classes.
        OnnxGradcamError: all else that ``Explainer`` and ``explain`` raise.
    """
    if limit < 1:
        raise MethodError(f"{limit} mistakes are to be explained", hint="at least 1")
    recipe = methods.recipe_of(method, False, False, fusion, smooth, options)
    methods.require_target(recipe)
    if recipe.method in ONE_SIDED:
        raise MethodError(
            f"method {recipe.method!r} does not have two sides: it makes no cam of a layer",
            hint="gradcam, or another method of a layer",
            method=recipe.method,
        )
    by_photo = _by_photo(read_data(data))
    with Explainer(model, target_layer, labels=labels, **opening) as explainer:
        if explainer.score.count < 2:
            raise ScoreError(
                f"the score {explainer.score.name!r} has no classes that could be mistaken for each other",
                hint="a classifier; --score NAME or --head NAME where the model has one",
            )
        photos = not all(is_array(path) for path in by_photo)
        choice = explainer.preprocessing(preprocess) if photos else None
        if strict and choice is not None:
            refuse_guesses(choice, explainer.image_input)
        recipe, remarks = resolved(recipe, explainer.score)
        start(recipe.method)
        bench = FailureBench(explainer, choice, _folders(by_photo, explainer), inputs, max_pixels)
        judged: list[Failure | None] = []
        errors: list[tuple[str, str]] = []
        for path, result in _judge_all(bench, by_photo):
            if isinstance(result, OnnxGradcamError):
                if isinstance(result, OF_ALL_IMAGES) or len(by_photo) == 1:
                    raise result
                errors.append((str(path), str(result)))
            else:
                judged.append(result)
            report(len(judged) + len(errors), len(by_photo))
        if not judged:
            raise InputError(f"none of the {len(by_photo)} photos could be judged", where=errors[0][1].splitlines()[0])
        wrong = sorted((failure for failure in judged if failure is not None), key=lambda f: -f.predicted_probability)
        keywords = {"fusion": fusion, "smooth": recipe.smooth, **recipe.options}
        rows = tuple(
            bench.explained(failure, recipe.method, keywords) if number < limit else failure
            for number, failure in enumerate(wrong)
        )
        request = {
            "data": data,
            "limit": limit,
            "method": method,
            "target_layer": target_layer,
            "fusion": fusion,
            "smooth": smooth,
            "options": options,
            "inputs": inputs,
            "labels": labels,
            "preprocess": preprocess,
            "opening": opening,
        }
        return FailureReport(
            model=explainer.source.name,
            sha256=explainer.network.sha256,
            method=recipe.name,
            photos=len(judged),
            failures=rows,
            errors=tuple(errors),
            warnings=(
                *remarks,
                *(choice.warnings if choice else ()),
                *notes.guessed_labels(explainer.labels_source),
            ),
            versions=explainer.network.versions,
            request=for_json(request),
        )


@dataclass(frozen=True, eq=False)
class FailureBench:
    """What every photo is judged with.

    Attributes:
        explainer: the model.
        choice: how photos become tensors; None where all samples are arrays.
        folders: the classes of folders, by name.
        inputs: arrays for the model's other inputs, by name.
        max_pixels: the largest photo that is decoded.
    """

    explainer: Explainer
    choice: Choice | None
    folders: Mapping[str, int]
    inputs: Mapping[str, Any]
    max_pixels: int

    def explained(self, failure: Failure, method: str, keywords: Mapping[str, Any]) -> Failure:
        """Return a mistake with what speaks for and against both classes."""
        both = Classes([failure.predicted, failure.true])
        name, path = self.explainer.image_input.name, Path(failure.image)

        def explain(target: object, **changed: Any) -> Explanation:
            how = {**keywords, **changed}
            if self.choice is None or is_array(path):
                x = prepare(Sample(path), {}, self.explainer, None, self.max_pixels).x
                return self.explainer.explain(beside_image(name, x, self.inputs), both, method, **how)
            how = {**how, "preprocess": self.choice, "inputs": self.inputs, "max_pixels": self.max_pixels}
            return self.explainer.explain_image(path, both, method, **how)

        return replace(failure, sides=explain_both(explain, both))


def _by_photo(samples: Sequence[Sample]) -> dict[Path, list[Sample]]:
    by_photo: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_photo[sample.path].append(sample)
    return dict(by_photo)


def _folders(by_photo: Mapping[Path, Sequence[Sample]], explainer: Explainer) -> dict[str, int]:
    samples = [sample for several in by_photo.values() for sample in several]
    folders = classes_of_folders(samples, explainer)
    if not folders and all(sample.label is None for sample in samples):
        raise InputError(
            NO_LABELS,
            hint="a table with the columns path,label, COCO annotations, or photos in folders with the name or the "
            "index of a class",
        )
    return folders


Judged = Failure | None | OnnxGradcamError
"""A mistake, None for a right prediction, or the error for which there is none."""


def _judge_all(bench: FailureBench, by_photo: Mapping[Path, Sequence[Sample]]) -> Iterator[tuple[Path, Judged]]:
    """Yield for each photo whether it is a mistake; those of the same size go through the model together."""
    items = list(by_photo.items())
    for start in range(0, len(items), TOGETHER):
        ready = [(path, attempt(_ready, bench, samples)) for path, samples in items[start : start + TOGETHER]]
        for _, group in groupby(
            ready, key=lambda each: () if isinstance(each[1], OnnxGradcamError) else each[1][0].x.shape
        ):
            alike = list(group)
            yield from ((path, error) for path, error in alike if isinstance(error, OnnxGradcamError))
            fine = [(path, each) for path, each in alike if not isinstance(each, OnnxGradcamError)]
            if fine:
                yield from _judge_alike(bench, fine)


def _ready(bench: FailureBench, samples: Sequence[Sample]) -> tuple[ReadySample, list[int]]:
    """Return a photo as the model takes it, and the classes that the data name for it."""
    explainer = bench.explainer
    named = [class_of(sample, bench.folders, explainer) for sample in samples]
    classes = [index for index in named if index is not None]
    if not classes:
        raise InputError(f"{samples[0].path.name!r} has no label", where=f"'{samples[0].path}'", hint=NO_LABELS)
    plain = replace(samples[0], boxes=(), polygons=(), mask=None, regions={})
    return prepare(plain, bench.folders, explainer, bench.choice, bench.max_pixels), classes


def _judge_alike(
    bench: FailureBench, alike: Sequence[tuple[Path, tuple[ReadySample, list[int]]]]
) -> Iterator[tuple[Path, Judged]]:
    explainer = bench.explainer

    def run(some: Sequence[tuple[Path, tuple[ReadySample, list[int]]]]) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([ready.x for _, (ready, _) in some])
        return class_scores(explainer, feeds_of_images(explainer, x, bench.inputs))

    together = attempt(run, alike)
    for k, (path, (_, classes)) in enumerate(alike):
        own = (
            attempt(run, [alike[k]])
            if isinstance(together, OnnxGradcamError)
            else tuple(a[k : k + 1] for a in together)
        )
        if isinstance(own, OnnxGradcamError):
            yield path, own
            continue
        scores, probabilities = (array[0] for array in own)
        yield path, _failure(explainer, path, classes, scores, probabilities)


def _failure(
    explainer: Explainer, path: Path, classes: Sequence[int], scores: np.ndarray, probabilities: np.ndarray
) -> Failure | None:
    """Return the mistake of a photo; None where the model puts one of its classes first."""
    predicted = int(scores.argmax())
    if predicted in classes:
        return None
    true = max(classes, key=lambda index: float(scores[index]))
    return Failure(
        image=str(path),
        predicted=predicted,
        true=true,
        predicted_label=label_of(predicted, explainer.labels),
        true_label=label_of(true, explainer.labels),
        predicted_probability=float(probabilities[predicted]),
        true_probability=float(probabilities[true]),
        rank=int((scores > scores[true]).sum()),
    )
