"""From the files of a run to explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np

from onnx_gradcam.engine.checks import refusal
from onnx_gradcam.engine.rows import rows_of
from onnx_gradcam.errors import InputError, NotFinite, OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.question import TOGETHER
from onnx_gradcam.explain.sentences import OWN, explain_caption
from onnx_gradcam.explain.tiles import explain_tiles
from onnx_gradcam.explain.volume import explain_volume
from onnx_gradcam.jobs.pictures import Result
from onnx_gradcam.jobs.plan import Plan, is_array, is_photo
from onnx_gradcam.jobs.truth import against_truth, no_label
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.photos.inputs import beside_image
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.asked import with_question
from onnx_gradcam.results.caption import Caption
from onnx_gradcam.results.contrast import explain_both
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.tokens import with_words
from onnx_gradcam.targets import Target


@dataclass(frozen=True, eq=False)
class Partly:
    """What the images of an array come to of which some have no map.

    Attributes:
        rest: the explanation of the others; its ``image_index`` counts all.
        error: why the others have none; its ``images`` are their numbers.
    """

    rest: Result
    error: NotFinite


Whole = Result | OnnxGradcamError
"""An explanation, or the error for which there is none."""
Explained = Whole | Partly
"""What a file comes to."""


def rest_of(result: Explained) -> Whole:
    """Return what a file comes to without the images that failed."""
    return result.rest if isinstance(result, Partly) else result


def explain_files(explainer: Explainer, paths: Sequence[Path], plan: Plan) -> Iterator[Explained]:
    """Yield for each file its explanation or its error, in order; photos go through the model together."""
    pieces = (paths[start : start + TOGETHER] for start in range(0, len(paths), TOGETHER))
    for together, alike in ((key, list(group)) for piece in pieces for key, group in groupby(piece, _is_plain(plan))):
        if together:
            yield from _explain_photos(explainer, alike, plan)
        else:
            yield from (_attempt(explainer, path, plan) for path in alike)


def _is_plain(plan: Plan) -> Callable[[Path], bool]:
    """Return what tells whether a file is a photo of which nothing but the target itself is asked."""
    one_target = (
        plan.true is None
        and not plan.both
        and plan.sentence is None
        and plan.tiling is None
        and not isinstance(plan.preprocess, InputError)
    )
    return lambda path: one_target and is_photo(path)


def _explain_photos(explainer: Explainer, paths: Sequence[Path], plan: Plan) -> Iterator[Explained]:
    for result in explainer.explain_each(
        paths,
        plan.target,
        plan.method,
        preprocess=cast(Choice, plan.preprocess),
        inputs={**plan.inputs, **plan.text},
        max_pixels=plan.max_pixels,
        **plan.keywords,
    ):
        yield with_question(result, plan.question) if isinstance(result, Explanation) else result


def _attempt(explainer: Explainer, path: Path, plan: Plan) -> Explained:
    try:
        return explain_file(explainer, path, plan)
    except NotFinite as error:
        return _without_broken(explainer, path, plan, error) if is_array(path) else error
    except OnnxGradcamError as error:
        return error


def _without_broken(explainer: Explainer, path: Path, plan: Plan, error: NotFinite) -> Partly | NotFinite:
    """Return what the other images of an array come to, or the error where there are none."""
    count, broken = len(load_tensor(path)), set(error.images)
    while len(broken) < count:
        kept = [image for image in range(count) if image not in broken]
        try:
            rest = explain_file(explainer, path, plan, kept)
        except NotFinite as another:
            broken |= {kept[image] for image in another.images}
        else:
            return Partly(rest, refusal(error.problem, sorted(broken), error.where, error.hint, error.value))
    return error


def explain_file(explainer: Explainer, path: Path, plan: Plan, only: Sequence[int] | None = None) -> Result:
    """Explain a photo, or the images of an array in an ``.npy`` file, or ``only`` some of them.

    Raises what ``explain`` and ``explain_image`` raise, and ``InputError`` for a photo that has no true label.
    """

    def explain(target: Target, **changed: Any) -> Explanation:
        keywords = {**plan.keywords, **changed}
        if is_array(path):
            explanation = _explain_array(explainer, load_tensor(path), plan, target, keywords, only)
        else:
            one = _explain_photo if is_photo(path) else _explain_volume
            explanation = one(explainer, path, plan, target, keywords)
        return with_question(explanation, plan.question)

    if plan.sentence is not None:
        return _explain_caption(explainer, path, plan)
    if plan.true is None:
        return explain_both(explain, plan.target) if plan.both else explain(plan.target)
    if path not in plan.true:
        raise no_label(path, plan.true_source)
    return against_truth(explain, plan.true[path])


def _explain_caption(explainer: Explainer, path: Path, plan: Plan) -> Caption:
    return explain_caption(
        explainer,
        path,
        None if plan.sentence == OWN else plan.sentence,
        plan.method,
        vocabulary=plan.vocabulary,
        inputs=plan.inputs,
        preprocess=_choice_of(plan),
        max_pixels=plan.max_pixels,
        **plan.keywords,
    )


def _explain_array(
    explainer: Explainer,
    x: np.ndarray,
    plan: Plan,
    target: Target,
    keywords: Mapping[str, Any],
    only: Sequence[int] | None,
) -> Explanation:
    text = {name: np.repeat(row, len(x), axis=0) for name, row in plan.text.items()}
    feeds = beside_image(explainer.image_input.name, x, {**plan.inputs, **text})
    if only is None:
        explanation = explainer.explain(feeds, target, plan.method, **keywords)
        return explanation if plan.vocabulary is None else with_words(explanation, plan.vocabulary)
    kept = np.array(only)
    some = {name: rows_of(array, kept, len(x)) for name, array in feeds.items()}
    explanation = explainer.explain(some, target, plan.method, **keywords)
    frame = replace(explanation.frame, x=x)
    return replace(explanation, image_index=kept[explanation.image_index], frame=frame)


def _explain_volume(
    explainer: Explainer, path: Path, plan: Plan, target: Target, keywords: Mapping[str, Any]
) -> Explanation:
    return explain_volume(
        explainer,
        path,
        target,
        plan.method,
        preprocess=plan.of_volumes,
        inputs=plan.inputs,
        max_pixels=plan.max_pixels,
        **keywords,
    )


def _explain_photo(
    explainer: Explainer, path: Path, plan: Plan, target: Target, keywords: Mapping[str, Any]
) -> Explanation:
    one = explainer.explain_image if plan.tiling is None else partial(explain_tiles, explainer, tile=plan.tiling)
    return one(
        path,
        target,
        plan.method,
        preprocess=_choice_of(plan),
        inputs={**plan.inputs, **plan.text},
        max_pixels=plan.max_pixels,
        **keywords,
    )


def _choice_of(plan: Plan) -> Choice:
    """Return how photos become tensors. Raises the ``InputError`` that says that the model takes none."""
    if isinstance(plan.preprocess, InputError):
        raise plan.preprocess
    assert plan.preprocess is not None
    return plan.preprocess
