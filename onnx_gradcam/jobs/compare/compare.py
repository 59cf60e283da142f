"""Two models, the same images and the same target: do their maps agree?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Unpack

from onnx_gradcam.explain.default_method import resolved
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.jobs.compare.comparison import Comparison
from onnx_gradcam.jobs.compare.measuring import measure, sides_of
from onnx_gradcam.jobs.compare.pairs import Pair
from onnx_gradcam.jobs.compare.questions import Bench, is_array_file, preprocess_both, read_target
from onnx_gradcam.jobs.compare.requirements import Requirement
from onnx_gradcam.jobs.compare.sides import SideLike, check_scores, open_side
from onnx_gradcam.jobs.requested import for_json
from onnx_gradcam.methods import table as methods
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.function import PhotoFunction
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.listing import list_images
from onnx_gradcam.photos.preprocess.choice import PreprocessLike
from onnx_gradcam.results.journal import holds_results
from onnx_gradcam.targets import Target

NOTHING: Mapping[str, Any] = MappingProxyType({})


@spelled_out
def compare(
    a: SideLike,
    b: SideLike,
    images: str | os.PathLike[str] | Iterable[Any],
    *,
    target: Target = None,
    method: str = "auto",
    counterfactual: bool = False,
    signed: bool = False,
    fusion: str = "mean",
    smooth: str | Sequence[str] = (),
    levels: str = "own",
    options: Mapping[str, Any] = NOTHING,
    inputs: Mapping[str, Any] = NOTHING,
    layer_a: str | Sequence[str] = "auto",
    layer_b: str | Sequence[str] = "auto",
    score_a: str | None = None,
    score_b: str | None = None,
    only_a: Opening | None = None,
    only_b: Opening | None = None,
    labels: LabelsLike = None,
    preprocess: PreprocessLike | PhotoFunction = "auto",
    preprocess_b: PreprocessLike | PhotoFunction | None = None,
    strict: bool = False,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
    require: Sequence[str] = (),
    keep: int = 0,
    report: Callable[[Pair], None] = lambda _: None,
    **opening: Unpack[Opening],
) -> Comparison:
    """Explain every image with both models and compare predictions and maps.

    One image: all or nothing. Several: those that cannot be explained are collected in ``errors``.

    Args:
        a, b: path, bytes or ``onnx.ModelProto``; "MODEL@provider", which runs it on that execution provider; a
            ``Network`` or an ``Explainer``, which are used as they are and stay open.
        images: files, folders or globs, or what else ``explain_image`` takes; .npy files hold arrays in the models' own
            input form.
        target: what is explained of every image: a target as ``explain`` takes it, or texts as ``--target`` has them.
            A class that it leaves open is the one that ``a`` takes; None: what ``a`` puts first, image by image.
        method: as for ``explain``; "auto": what the score of ``a`` decides.
        counterfactual, signed, fusion, smooth, levels: as for ``explain``.
        options: options of the method, by name.
        inputs: arrays for the models' other inputs, by name.
        layer_a, layer_b: the target layers of each model.
        score_a, score_b: the score tensor of each model; None: as ``score`` says.
        only_a, only_b: keywords of ``Opening`` for one of the models, such as {"grid": "14x14+1"}.
        labels: as for ``Explainer``, for both models.
        preprocess: for both models, as for ``explain_image``; "auto": what is found for ``a``. Size, layout and dtype
            are each model's own. A function is called for each model.
        preprocess_b: for ``b``, where it differs.
        strict: whether a guessed preprocessing is an error.
        threshold: as for ``explain``.
        max_pixels: the largest photo that is decoded.
        require: clauses such as "pearson:p05>=0.9", "iou:median>=0.6", "distance:p95<=0.1", "agreement>=0.99".
        keep: how many of the pairs that agree least keep their maps, in ``worst``; ``save`` draws them.
        report: is called with each pair when it is measured.
        **opening: the keywords of ``Opening``, for both models.

    Returns:
        One pair of maps for each image and target, with statistics, and the requirements, judged.

    Raises:
        RequirementError: a clause cannot be read.
        ScoreError: the models have different classes.
        InputError: no image can be compared; or a model is open already, and an option would change it.
        PreprocessError: the preprocessing is unknown, or is guessed and ``strict``.
        OnnxGradcamError: all else that ``Explainer``, ``explain`` and ``explain_image`` raise.
    """
    requirements = tuple(Requirement.parse(clause) for clause in require)
    recipe = methods.recipe_of(method, counterfactual, signed, fusion, smooth, options, levels)
    methods.require_target(recipe)
    subjects = _listed(images)
    of_a, of_b = _openings(opening, score_a, only_a), _openings(opening, score_b, only_b)
    with open_side(a, layer_a, labels, of_a) as first, open_side(b, layer_b, labels, of_b) as second:
        check_scores(first, second)
        recipe, remarks = resolved(recipe, first.score)
        keywords = {
            "method": recipe.method,
            "counterfactual": counterfactual,
            "signed": signed,
            "fusion": fusion,
            "smooth": recipe.smooth,
            "levels": levels,
            "threshold": threshold,
            **options,
        }
        photos = not all(is_array_file(subject) for subject in subjects)
        settled = preprocess_both(first, second, preprocess, preprocess_b, strict) if photos else None
        bench = Bench(first, second, read_target(target, first), keywords, inputs, settled, max_pixels)
        outcome = measure(bench, subjects, keep, report)
        versions = first.network.versions
    side_a, side_b = sides_of(outcome)
    asked = {
        "images": [subject for subject in subjects if isinstance(subject, str | os.PathLike)],
        "target": target,
        **keywords,
        "inputs": inputs,
        "layer_a": layer_a,
        "layer_b": layer_b,
        "opening_a": of_a,
        "opening_b": of_b,
        "labels": labels,
        "preprocess": preprocess,
        "preprocess_b": preprocess_b,
        "strict": strict,
        "max_pixels": max_pixels,
        "require": require,
        "keep": keep,
    }
    return Comparison(
        a=side_a,
        b=side_b,
        method=recipe.name,
        pairs=tuple(pair for of_file in outcome.measured for pair in of_file.pairs),
        errors=outcome.errors,
        warnings=tuple(
            dict.fromkeys([*remarks, *(warning for of_file in outcome.measured for warning in of_file.warnings)])
        ),
        requirements=requirements,
        versions=versions,
        request=for_json(asked),
        worst=outcome.worst,
    )


def _openings(opening: Opening, score: str | None, only: Opening | None) -> Opening:
    """Return the keywords for one of the models: those for both, changed by its own."""
    own: Opening = {**opening, **(only or {})}
    return own if score is None else {**own, "score": score}


def _listed(images: Any) -> list[Any]:
    """Return the images one by one; of texts and paths the files that they name."""
    several = [images] if isinstance(images, str | bytes | os.PathLike) else list(images)
    paths = [i for i in several if isinstance(i, str | os.PathLike)]
    return list_images(paths, holds_results) if len(paths) == len(several) else several
