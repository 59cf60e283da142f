"""From the files of a run to explanations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import InputError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.plan import Plan, is_array
from onnx_gradcam.jobs.truth import against_truth
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.results.contrast import explain_both
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.targets import Target


def explain_file(explainer: Explainer, path: Path, plan: Plan) -> Explanation | SideBySide:
    """Explain a photo, or the images of an array in an ``.npy`` file.

    Raises what ``explain`` and ``explain_image`` raise, and ``InputError`` for a photo that has no true label.
    """

    def explain(target: Target, **changed: Any) -> Explanation:
        return _explain(explainer, path, plan, target, {**plan.keywords, **changed})

    if plan.true is None:
        return explain_both(explain, plan.target) if plan.both else explain(plan.target)
    if path not in plan.true:
        raise InputError(f"{path.name!r} has no label in {plan.true_source!r}", hint=f"a line '{path.name},LABEL'")
    return against_truth(explain, plan.true[path])


def _explain(explainer: Explainer, path: Path, plan: Plan, target: Target, keywords: Mapping[str, Any]) -> Explanation:
    if is_array(path):
        feeds = {explainer.image_input.name: load_tensor(path), **plan.inputs}
        return explainer.explain(feeds, target, plan.method, **keywords)
    if isinstance(plan.preprocess, InputError):
        raise plan.preprocess
    assert plan.preprocess is not None
    return explainer.explain_image(
        path, target, plan.method, preprocess=plan.preprocess, inputs=plan.inputs, **keywords
    )
