"""From the files of a run to explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from onnx_gradcam.errors import InputError, OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.question import TOGETHER
from onnx_gradcam.jobs.plan import Plan, is_array
from onnx_gradcam.jobs.truth import against_truth, no_label
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.contrast import explain_both
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.targets import Target

Explained = Explanation | SideBySide | OnnxGradcamError
"""What a file comes to: an explanation, or the error for which it has none."""


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
    one_target = plan.true is None and not plan.both and not isinstance(plan.preprocess, InputError)
    return lambda path: one_target and not is_array(path)


def _explain_photos(explainer: Explainer, paths: Sequence[Path], plan: Plan) -> Iterator[Explained]:
    yield from explainer.explain_each(
        paths,
        plan.target,
        plan.method,
        preprocess=cast(Choice, plan.preprocess),
        inputs=plan.inputs,
        max_pixels=plan.max_pixels,
        **plan.keywords,
    )


def _attempt(explainer: Explainer, path: Path, plan: Plan) -> Explained:
    try:
        return explain_file(explainer, path, plan)
    except OnnxGradcamError as error:
        return error


def explain_file(explainer: Explainer, path: Path, plan: Plan) -> Explanation | SideBySide:
    """Explain a photo, or the images of an array in an ``.npy`` file.

    Raises what ``explain`` and ``explain_image`` raise, and ``InputError`` for a photo that has no true label.
    """

    def explain(target: Target, **changed: Any) -> Explanation:
        return _explain(explainer, path, plan, target, {**plan.keywords, **changed})

    if plan.true is None:
        return explain_both(explain, plan.target) if plan.both else explain(plan.target)
    if path not in plan.true:
        raise no_label(path, plan.true_source)
    return against_truth(explain, plan.true[path])


def _explain(explainer: Explainer, path: Path, plan: Plan, target: Target, keywords: Mapping[str, Any]) -> Explanation:
    if is_array(path):
        feeds = {explainer.image_input.name: load_tensor(path), **plan.inputs}
        return explainer.explain(feeds, target, plan.method, **keywords)
    if isinstance(plan.preprocess, InputError):
        raise plan.preprocess
    assert plan.preprocess is not None
    return explainer.explain_image(
        path,
        target,
        plan.method,
        preprocess=plan.preprocess,
        inputs=plan.inputs,
        max_pixels=plan.max_pixels,
        **keywords,
    )
