"""The main job: one model, many images, a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import InputError, OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.plan import Plan, is_array, open_explainer, settle
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.truth import against_truth
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.photos.listing import list_images
from onnx_gradcam.results import files
from onnx_gradcam.results.contrast import explain_both
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.targets import Target


@dataclass(frozen=True)
class ExplainedRow:
    """One row whose files are written.

    Attributes:
        image: the path of the image.
        label: what was explained, in words.
        probability: of the class, in [0, 1]; NaN where there is none.
        path: the picture, or the array where maps are not drawn.
        warnings: what the user should know of the image, in the first of its rows.
        cell: the index of the explained cell, None where there is none.
    """

    image: str
    label: str
    probability: float
    path: str
    warnings: tuple[str, ...]
    cell: tuple[int, ...] | None = None


@dataclass
class Outcome:
    """The path of the manifest, and the images that failed, each with its error."""

    manifest: Path
    errors: list[tuple[str, OnnxGradcamError]] = field(default_factory=list)


def run(
    request: Request,
    folder: Path,
    *,
    overwrite: bool = False,
    report: Callable[[ExplainedRow], None] = lambda _: None,
) -> Outcome:
    """Explain every image and write the results.

    One image: all or nothing. Several: those that cannot be read are collected, the others are written.

    Args:
        request: what is explained, and how.
        folder: where the results go.
        overwrite: replace results that are there already.
        report: is called with each row when it is written.

    Returns:
        The manifest's path, and the images that failed.

    Raises:
        OutputError: the folder cannot be written, or holds results already.
        InputError: no image can be explained.
        OnnxGradcamError: all else that ``Explainer`` and ``explain_image`` raise.
    """
    paths = list_images(request.images)
    files.check_folder(folder, overwrite)
    outcome = Outcome(folder / files.MANIFEST)
    results: list[dict[str, Any]] = []
    first: list[Explanation | SideBySide] = []
    with open_explainer(request) as explainer:
        plan = settle(request, explainer, paths)
        for path, stem in zip(paths, files.stems(paths), strict=True):
            try:
                result = explain_file(explainer, path, plan)
            except InputError as error:
                if len(paths) == 1:
                    raise
                outcome.errors.append((str(path), error))
                continue
            subject = files.Subject(stem, str(path), files.sha256(path))
            results.append(files.write_rows(result, subject, folder, overwrite=overwrite))
            first = first or [result]
            for row in _rows(result, results[-1], folder):
                report(row)
    if not results:
        raise InputError(
            f"none of the {len(paths)} images could be explained",
            where=outcome.errors[0][1].what,
            hint="JPEG, PNG, WebP or BMP photos, or .npy arrays",
        )
    files.write_manifest(folder, first, results, errors=outcome.errors, request=request.as_dict())
    return outcome


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


def _rows(result: Explanation | SideBySide, entry: Mapping[str, Any], folder: Path) -> list[ExplainedRow]:
    sheets = result.sheets()
    rows = entry["rows"][:: len(entry["rows"]) // len(sheets)]
    return [
        ExplainedRow(
            str(entry["image"]),
            sheet.title,
            float("nan") if row["probability"] is None else row["probability"],
            str(folder / (row["png"] or row["npy"])),
            (*result.warnings, *_undrawn(sheet)) if k == 0 else (),
            None if row["cell"] is None else tuple(row["cell"]),
        )
        for k, (row, sheet) in enumerate(zip(rows, sheets, strict=True))
    ]


def _undrawn(sheet: files.Sheet) -> tuple[str, ...]:
    count = next(iter(sheet.maps.values())).heatmap.ndim
    if count == 2:
        return ()
    return (f"maps with {count} spatial {'axis' if count == 1 else 'axes'} are not drawn: the .npy holds the numbers",)
