"""Two models, the same images and the same target: do their maps agree?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.errors import InputError
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.jobs.compare.agreement import agreement_of
from onnx_gradcam.jobs.compare.comparison import Comparison, Pair, Side
from onnx_gradcam.jobs.compare.questions import Answers, Bench, is_array_file, preprocess_both, read_target
from onnx_gradcam.jobs.compare.requirements import Requirement
from onnx_gradcam.jobs.compare.sides import SideLike, check_scores, open_side
from onnx_gradcam.methods import table as methods
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.listing import list_images
from onnx_gradcam.photos.preprocess.choice import PreprocessLike
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Target

NOTHING: Mapping[str, Any] = MappingProxyType({})


@spelled_out
def compare(
    a: SideLike,
    b: SideLike,
    images: str | os.PathLike[str] | Iterable[Any],
    *,
    target: Target = None,
    method: str = "gradcam",
    counterfactual: bool = False,
    signed: bool = False,
    fusion: str = "mean",
    smooth: str | Sequence[str] = (),
    options: Mapping[str, Any] = NOTHING,
    inputs: Mapping[str, Any] = NOTHING,
    layer_a: str | Sequence[str] = "auto",
    layer_b: str | Sequence[str] = "auto",
    score_a: str | None = None,
    score_b: str | None = None,
    labels: LabelsLike = None,
    preprocess: PreprocessLike = "auto",
    preprocess_b: PreprocessLike | None = None,
    require: Sequence[str] = (),
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
        method, counterfactual, signed, fusion, smooth: as for ``explain``.
        options: options of the method, by name.
        inputs: arrays for the models' other inputs, by name.
        layer_a, layer_b: the target layers of each model.
        score_a, score_b: the score tensor of each model; None: as ``score`` says.
        labels: as for ``Explainer``, for both models.
        preprocess: for both models; "auto": what is found for ``a``. Size, layout and dtype are each model's own.
        preprocess_b: for ``b``, where it differs.
        require: clauses such as "pearson:p05>=0.9", "iou:median>=0.6", "distance:p95<=0.1", "agreement>=0.99".
        report: is called with each pair when it is measured.
        **opening: the keywords of ``Opening``, for both models.

    Returns:
        One pair of maps for each image and target, with statistics, and the requirements, judged.

    Raises:
        RequirementError: a clause cannot be read.
        ScoreError: the models have different classes.
        InputError: no image can be compared; or a model is open already, and an option would change it.
        OnnxGradcamError: all else that ``Explainer``, ``explain`` and ``explain_image`` raise.
    """
    requirements = tuple(Requirement.parse(clause) for clause in require)
    recipe = methods.recipe_of(method, counterfactual, signed, fusion, smooth, options)
    subjects = _listed(images)
    keywords = {
        "method": recipe.method,
        "counterfactual": counterfactual,
        "signed": signed,
        "fusion": fusion,
        "smooth": recipe.smooth,
        **options,
    }
    with (
        open_side(a, layer_a, score_a, labels, opening) as first,
        open_side(b, layer_b, score_b, labels, opening) as second,
    ):
        check_scores(first, second)
        photos = not all(is_array_file(subject) for subject in subjects)
        bench = Bench(
            first,
            second,
            read_target(target, first),
            keywords,
            inputs,
            preprocess_both(first, second, preprocess, preprocess_b) if photos else None,
        )
        measured, errors = _measure(bench, subjects, report)
    return Comparison(
        a=measured[0].a,
        b=measured[0].b,
        method=recipe.name,
        pairs=tuple(pair for of_file in measured for pair in of_file.pairs),
        errors=tuple(errors),
        warnings=tuple(dict.fromkeys(warning for of_file in measured for warning in of_file.warnings)),
        requirements=requirements,
    )


@dataclass(frozen=True)
class _Measured:
    """What was measured of one image, or of the images in one .npy file."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


def _measure(
    bench: Bench, subjects: Sequence[Any], report: Callable[[Pair], None]
) -> tuple[list[_Measured], list[tuple[str, str]]]:
    """Return what was measured, and the images that could not be explained, each with the reason."""
    measured: list[_Measured] = []
    errors: list[tuple[str, str]] = []
    for k, subject in enumerate(subjects):
        name = str(subject) if isinstance(subject, str | os.PathLike) else str(k)
        try:
            measured.append(_of_answers(bench.ask(subject), name))
        except InputError as error:
            if len(subjects) == 1:
                raise
            errors.append((name, str(error)))
        else:
            for pair in measured[-1].pairs:
                report(pair)
    if not measured:
        raise InputError(
            f"none of the {len(subjects)} images could be compared",
            where=errors[0][1].splitlines()[0] if errors else "",
            hint="photos, or .npy arrays in the form that both models take",
        )
    return measured, errors


def _listed(images: Any) -> list[Any]:
    """Return the images one by one; of texts and paths the files that they name."""
    several = [images] if isinstance(images, str | bytes | os.PathLike) else list(images)
    paths = [i for i in several if isinstance(i, str | os.PathLike)]
    return list_images(paths) if len(paths) == len(several) else several


def _of_answers(answers: Answers, name: str) -> _Measured:
    of_each = len(answers.b)
    pairs = tuple(
        _pair(answers, name, image, image * of_each + k, b)
        for image in range(len(answers.own_a))
        for k, b in enumerate(answers.b)
    )
    warnings = [*answers.a.warnings, *(warning for b in answers.b for warning in b.warnings)]
    return _Measured(_side(answers.a), _side(answers.b[0]), pairs, tuple(warnings))


def _pair(answers: Answers, name: str, image: int, row: int, b: Explanation) -> Pair:
    """Compare a row of A with the row of an image in B."""
    a = answers.a
    agreement = agreement_of(*_seen_by_both(a, row, b, image))
    return Pair(
        image=name,
        image_index=image,
        class_index=int(a.class_index[row]),
        label=a.label(row),
        target=a.target(row),
        top1_a=int(answers.own_a.class_index[image]),
        top1_b=int(answers.own_b.class_index[image]),
        pearson=agreement.pearson,
        iou=agreement.iou,
        distance_px=agreement.distance_px,
        distance=agreement.distance,
        note=agreement.note or _apart(a, row, b, image),
    )


def _side(explanation: Explanation) -> Side:
    return Side(
        model=explanation.provenance.model,
        providers=explanation.provenance.providers,
        score=explanation.score_name,
        layers=tuple(layer.name for layer in explanation.layers),
        attributed=explanation.attributed,
    )


def _seen_by_both(a: Explanation, row_a: int, b: Explanation, row_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two maps within what both models saw: outside both are 0, which is no agreement."""
    maps = a.heatmap[row_a], b.heatmap[row_b]
    if maps[0].ndim != 2:
        return maps
    x1, y1 = np.maximum(a.seen[row_a, :2], b.seen[row_b, :2])
    x2, y2 = np.minimum(a.seen[row_a, 2:], b.seen[row_b, 2:])
    return maps[0][y1:y2, x1:x2], maps[1][y1:y2, x1:x2]


def _apart(a: Explanation, row_a: int, b: Explanation, row_b: int) -> str:
    """Return a note where two models of many scores per image explain different cells of the same class."""
    if a.cell is None or b.cell is None or np.array_equal(a.cell[row_a], b.cell[row_b]):
        return ""
    cells = [tuple(int(k) for k in e.cell[row]) for e, row in ((a, row_a), (b, row_b)) if e.cell is not None]
    return f"A explains cell {cells[0]}, B cell {cells[1]}"
