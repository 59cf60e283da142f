"""The main job as the command line runs it: one model, many images, a folder of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, OnnxGradcamError, OutputError, PreprocessError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.truth import against_truth, true_classes
from onnx_gradcam.photos.decode import list_images, load_tensor
from onnx_gradcam.results import files
from onnx_gradcam.results.contrast import SideBySide, both_of
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Target, parse

REPEAT_TOLERANCE = 1e-3  # of a heatmap in [0, 1]: another provider or thread count rounds differently


@dataclass(frozen=True)
class Request:
    """What the user asked for, as plain data: it stands in the manifest, and repeating it repeats the run."""

    model: str
    images: tuple[str, ...]
    method: str = "gradcam"
    layers: tuple[str, ...] = ("auto",)
    score: str = "auto"
    targets: tuple[str, ...] = ("top1",)
    labels: str | None = None
    preprocess: str = "auto"
    providers: tuple[str, ...] | None = None
    grid: str | None = None
    image_input: str | None = None
    inputs: tuple[str, ...] = ()
    counterfactual: bool = False
    signed: bool = False
    both: bool = False
    true: str | None = None
    fusion: str = "mean"
    smooth: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    strict: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()}


@dataclass(frozen=True)
class Line:
    """One line of output: a row that was written."""

    image: str
    label: str
    probability: float
    path: str
    warnings: tuple[str, ...]
    cell: tuple[int, ...] | None = None


@dataclass
class Outcome:
    """The manifest's path and the images that failed."""

    manifest: Path
    errors: list[tuple[str, OnnxGradcamError]] = field(default_factory=list)


def run(
    request: Request,
    folder: Path,
    *,
    overwrite: bool = False,
    report: Callable[[Line], None] = lambda _: None,
) -> Outcome:
    """Explain every image and write the results; ``report`` hears of each row when it is written.

    One image: all or nothing. Several: those that cannot be read are collected, the others are written.

    Raises everything that ``Explainer`` and ``explain_image`` raise, and ``OutputError``.
    """
    paths = list_images(request.images)
    files.check_folder(folder, overwrite)
    outcome = Outcome(folder / files.MANIFEST)
    results: list[dict[str, Any]] = []
    first: list[Explanation | SideBySide] = []
    with open_explainer(request) as explainer:
        true = _true(request, paths, explainer)
        for path, stem in zip(paths, files.stems(paths), strict=True):
            try:
                found = explain_file(explainer, path, request, true)
            except InputError as error:
                if len(paths) == 1:
                    raise
                outcome.errors.append((str(path), error))
                continue
            subject = files.Subject(stem, str(path), files.sha256(path))
            results.append(files.write_rows(found, subject, folder, overwrite=overwrite))
            first = first or [found]
            for line in _lines(found, results[-1], folder):
                report(line)
    if not results:
        raise InputError(
            f"none of the {len(paths)} images could be explained",
            where=outcome.errors[0][1].what,
            hint="JPEG, PNG, WebP or BMP photos, or .npy arrays",
        )
    files.write_manifest(folder, first, results, errors=outcome.errors, request=request.as_dict())
    return outcome


def open_explainer(request: Request) -> Explainer:
    """The Explainer that a request describes."""
    return Explainer(
        request.model,
        target_layer=request.layers if len(request.layers) > 1 else request.layers[0],
        score=request.score,
        providers=request.providers,
        labels=request.labels,
        grid=request.grid,
        image_input=request.image_input,
    )


def _true(request: Request, paths: Sequence[Path], explainer: Explainer) -> Mapping[Path, int] | None:
    return None if request.true is None else true_classes(request.true, paths, explainer)


def explain_file(
    explainer: Explainer, path: Path, request: Request, true: Mapping[Path, int] | None = None
) -> Explanation | SideBySide:
    """Explain a photo, or an array from an ``.npy`` file; ``true``: against the class that it has."""

    def explain(target: Target, counterfactual: bool = request.counterfactual) -> Explanation:
        return _explain(explainer, path, replace(request, counterfactual=counterfactual), target)

    if true is not None:
        if path not in true:
            raise InputError(f"{path.name!r} has no label in {request.true!r}", hint=f"a line '{path.name},LABEL'")
        return against_truth(explain, true[path])
    target = parse(request.targets, explainer.score.count, explainer.labels)
    return both_of(explain, target) if request.both else explain(target)


def _explain(explainer: Explainer, path: Path, request: Request, target: Target) -> Explanation:
    options: dict[str, Any] = {
        "counterfactual": request.counterfactual,
        "signed": request.signed,
        "fusion": request.fusion,
        "smooth": request.smooth,
        **read_options(request.options),
    }
    others = read_arrays(request.inputs)
    if path.suffix.lower() == ".npy":
        x = load_tensor(path)
        feeds = {explainer.image_input.name: x, **others}
        return explainer.explain(feeds, target, request.method, **options)
    choice = explainer.preprocessing(request.preprocess)
    guessed = [k for k, source in choice.sources.items() if source.startswith("guessed")]
    if request.strict and guessed:
        raise PreprocessError(
            f"the preprocessing is guessed: {', '.join(guessed)}",
            where=f"input {explainer.image_input}",
            hint="--preprocess NAME or FILE.json settles it; without --strict a guess is a warning",
            guessed=tuple(guessed),
        )
    return explainer.explain_image(
        path, target, request.method, preprocess=request.preprocess, inputs=others, **options
    )


def _lines(found: Explanation | SideBySide, entry: Mapping[str, Any], folder: Path) -> list[Line]:
    sheets = found.sheets()
    rows = entry["rows"][:: len(entry["rows"]) // len(sheets)]
    return [
        Line(
            str(entry["image"]),
            sheet.title,
            float("nan") if row["probability"] is None else row["probability"],
            str(folder / (row["png"] or row["npy"])),
            (*found.warnings, *_undrawn(sheet)) if k == 0 else (),
            None if row["cell"] is None else tuple(row["cell"]),
        )
        for k, (row, sheet) in enumerate(zip(rows, sheets, strict=True))
    ]


def _undrawn(sheet: files.Sheet) -> tuple[str, ...]:
    count = next(iter(sheet.maps.values())).heatmap.ndim
    if count == 2:
        return ()
    return (f"maps with {count} spatial {'axis' if count == 1 else 'axes'} are not drawn: the .npy holds the numbers",)


@dataclass(frozen=True)
class Repeat:
    """How one row of a repeated run compares: the largest difference of the heatmaps, or why there is none."""

    image: str
    npy: str
    difference: float
    note: str

    @property
    def same(self) -> bool:
        """Whether the maps agree within the tolerance and nothing else changed."""
        return not self.note and self.difference <= REPEAT_TOLERANCE


def repeat(manifest: Path) -> list[Repeat]:
    """Run what a manifest describes again and compare every heatmap with the one that was written.

    Raises ``OutputError`` for a manifest that cannot be read, and everything that ``run`` raises.
    """
    try:
        content = json.loads(manifest.read_text("utf-8"))
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["request"].items()}
        request = Request(**given)
        results = [(Path(r["image"]), r["sha256"], r["rows"]) for r in content["results"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{str(manifest)!r} is not a manifest that can be repeated: {error}",
            hint="the manifest.json that `onnx-gradcam explain` wrote",
            path=manifest,
        ) from None
    with open_explainer(request) as explainer:
        model = "" if explainer.source.sha256() == content["model"]["sha256"] else "the model file has changed"
        return [
            found
            for path, sha256, rows in results
            for found in _repeat_image(explainer, request, manifest.parent, path, sha256, rows, model)
        ]


def _repeat_image(
    explainer: Explainer,
    request: Request,
    folder: Path,
    path: Path,
    sha256: str,
    rows: Sequence[Mapping[str, Any]],
    note: str,
) -> list[Repeat]:
    if not path.is_file():
        return [Repeat(str(path), row["npy"], float("nan"), "the image is gone") for row in rows]
    if files.sha256(path) != sha256:
        note = note or "the image has changed"
    result = explain_file(explainer, path, request, _true(request, [path], explainer))
    maps = [entry for sheet in result.sheets() for entry in sheet.maps.values()]
    if len(maps) != len(rows):
        return [Repeat(str(path), row["npy"], float("nan"), note or "another number of maps") for row in rows]
    found = []
    for entry, row in zip(maps, rows, strict=True):
        before, now = load_tensor(folder / row["npy"]), entry.heatmap
        if before.shape != now.shape or entry.record["target"] != row.get("target", str(row["class_index"])):
            found.append(Repeat(str(path), row["npy"], float("nan"), note or "another class or shape"))
        else:
            found.append(Repeat(str(path), row["npy"], float(np.abs(before - now).max()), note))
    return found
