"""The main job: one model, many images, a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import (
    ForwardMismatch,
    InputError,
    LayerError,
    MethodError,
    NoGradientPath,
    OnnxGradcamError,
    OutputError,
    PreprocessError,
    ProviderError,
    ScoreError,
    UnsupportedGradient,
)
from onnx_gradcam.explain.default_method import named
from onnx_gradcam.explain.drawn import Progress, tell_nobody
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.sentences import method_of_words
from onnx_gradcam.jobs.checks import check_request, files_read
from onnx_gradcam.jobs.images import Partly, Whole, explain_files, rest_of
from onnx_gradcam.jobs.pictures import Pages, Result, has_scale, scales_of_run
from onnx_gradcam.jobs.plan import Plan, open_explainer, settle
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.methods.table import canonical
from onnx_gradcam.photos.decode import check_file
from onnx_gradcam.photos.listing import Listed, find_images, readable_suffixes
from onnx_gradcam.results import files
from onnx_gradcam.results.journal import holds_results, read_state, sha256
from onnx_gradcam.results.scales import Scales
from onnx_gradcam.results.store import Mode, Store

RESULTS = Path("onnx-gradcam-out")
OF_ALL_IMAGES = (
    UnsupportedGradient,
    NoGradientPath,
    ForwardMismatch,
    LayerError,
    ScoreError,
    MethodError,
    PreprocessError,
    ProviderError,
)
"""Errors that no other image escapes."""
INCOMPARABLE = ("images", "model", "max_pixels", "strict")
"""What may change in a request between the parts of a run: the model is compared by its hash."""


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
        made_of: what the probability is a product of, "" where it is of one piece.
        box: x1, y1, x2, y2 in pixels of the photo; None where there is none.
    """

    image: str
    label: str
    probability: float
    path: str
    warnings: tuple[str, ...]
    cell: tuple[int, ...] | None = None
    made_of: str = ""
    box: tuple[float, ...] | None = None


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        manifest: the path of the manifest.
        errors: the images that failed, each with its error.
        kept: how many images were there already.
        left_out: what was met in folders and not taken, by its kind.
        sheets: the paths of the pages of the contact sheet.
    """

    manifest: Path
    errors: list[tuple[str, OnnxGradcamError]] = field(default_factory=list)
    kept: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    sheets: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Listener:
    """Whom a run tells how it goes on.

    Attributes:
        row: is called with each row when it is written.
        done: is called when an image is done, with the number of those that are, and of all.
        runs: is told how far a method is that runs the model many times for an image.
    """

    row: Callable[[ExplainedRow], None] = lambda row: None
    done: Callable[[int, int], None] = lambda count, total: None
    runs: Progress = tell_nobody


SILENT = Listener()


def default_folder(request: Request) -> Path:
    """Return where the results of a request go if the user names no folder: onnx-gradcam-out/<model>-<method>.

    The method of the request is named: it is not "auto".
    """
    return RESULTS / f"{Path(request.model).stem}-{canonical(request.method)}"


def run(request: Request, folder: Path | None = None, *, mode: Mode = "new", listener: Listener = SILENT) -> Outcome:
    """Explain every image and write the results.

    One image: all or nothing. Several: those that cannot be read are collected, the others are written. What is wrong
    with the request or the model is said before anything about the folder.

    Args:
        request: what is explained, and how.
        folder: where the results go; None: ``default_folder``.
        mode: what is done with results that are there: they are refused, replaced, or kept and added to.
        listener: is told how the run goes on.

    Returns:
        The manifest's path, and the images that failed.

    Raises:
        OutputError: the folder cannot be written, holds results that stay, or for "resume" those of another request.
        InputError: no image can be explained.
        OnnxGradcamError: all else that ``check_request``, ``Explainer`` and ``explain_image`` raise.
    """
    values = check_request(request)
    listing = find_images(request.images, holds_results)
    if len(listing.images) == 1:
        check_file(listing.images[0].path)
    with open_explainer(request) as explainer:
        plan = settle(request, values, explainer, listing.images)
        plan = replace(plan, keywords={**plan.keywords, "progress": listener.runs})
        method = request.method if request.sentence is None else method_of_words(request.method)
        request = replace(request, method=named(method, explainer.score))
        folder = folder or default_folder(request)
        request = _with_earlier_images(request, folder, mode)
        with Store(
            folder, mode, {"request": request.as_dict(), "files_read": files_read(request, explainer.source)}
        ) as store:
            if mode == "resume":
                _check_same(store, explainer)
            store.left_out = listing.left_out
            outcome = Outcome(store.manifest, store.errors, left_out=listing.left_out)
            _explain_all(explainer, plan, _without_own(listing.images, store), store, outcome, listener)
        return outcome


def _explain_all(
    explainer: Explainer, plan: Plan, images: Sequence[Listed], store: Store, outcome: Outcome, listener: Listener
) -> None:
    paths = [image.path for image in images]
    scales = scales_of_run(plan.pictures, lambda: map(rest_of, explain_files(explainer, paths, plan)))
    store.keep(lambda entry: _is_up_to_date(entry) and has_scale(entry, scales))
    kept = {entry["image"]: entry["stem"] for entry in store.kept}
    stems = files.stems([image.name for image in images], [image.path for image in images], kept.values())
    pages = Pages(plan.pictures, scales)
    todo = [pair for pair in zip(images, stems, strict=True) if plan.pictures.sheet or str(pair[0].path) not in kept]
    outcome.kept = sum(str(image.path) in kept for image in images)
    listener.done(len(images) - len(todo), len(images))
    results, failed = explain_files(explainer, [image.path for image, _ in todo], plan), 0
    for number, ((image, stem), result) in enumerate(zip(todo, results, strict=True), len(images) - len(todo) + 1):
        if isinstance(result, Partly):
            outcome.errors.append((str(image.path), result.error))
        try:
            scaled = _at_scale(rest_of(result), scales)
            if str(image.path) not in kept:
                _write(scaled, files.Subject(stem, str(image.path), sha256(image.path)), plan, store, listener)
        except OnnxGradcamError as error:
            if len(images) == 1 or not is_of_one_image(error):
                raise
            outcome.errors.append((str(image.path), error))
            failed += 1
        else:
            outcome.sheets += [store.write_sheet(page) for page in pages.add(scaled, image.name)]
        listener.done(number, len(images))
    outcome.sheets += [store.write_sheet(page) for page in pages.rest()]
    if failed == len(images):
        raise _all_failed([error for _, error in outcome.errors])


def _at_scale(result: Whole, scales: float | Scales | None) -> Result:
    """Return a result at the scale of the run. Raises the error that it is instead, and ``MethodError``."""
    if isinstance(result, OnnxGradcamError):
        raise result
    return result if scales is None else result.at_scale(scales)


def is_of_one_image(error: OnnxGradcamError) -> bool:
    """Tell whether another image may do better: a wrong model, method or disk is wrong for all of them."""
    if isinstance(error, OutputError):
        return bool(error.data.get("is_taken"))
    return not isinstance(error, OF_ALL_IMAGES)


def _all_failed(errors: Sequence[OnnxGradcamError]) -> OnnxGradcamError:
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    return InputError(
        f"none of the {len(errors)} images could be explained",
        where=errors[0].what,
        hint=f"files ending in {', '.join(readable_suffixes())}",
    )


def _write(result: Result, subject: files.Subject, plan: Plan, store: Store, listener: Listener) -> None:
    entry = store.write(result, subject, plan.pictures.style)
    for row in _rows(result, entry, store.folder):
        listener.row(row)


def _is_up_to_date(entry: Mapping[str, Any]) -> bool:
    """Tell whether an image is as it was when its results were written; those of an image that is gone stay."""
    path = Path(entry["image"])
    return not path.is_file() or sha256(path) == entry["sha256"]


def _without_own(images: Sequence[Listed], store: Store) -> Sequence[Listed]:
    """Leave out what an earlier run wrote, where results lie among the images."""
    ours = {(store.folder / name).resolve() for name in store.before.files} if store.before else set()
    others = [image for image in images if image.path.resolve() not in ours] if ours else images
    if not others:
        raise InputError(
            f"all images are results in {str(store.folder)!r}", hint="photos, or another folder with -o DIR"
        )
    return others


def _with_earlier_images(request: Request, folder: Path, mode: Mode) -> Request:
    """Return a request that names the images of the results to which it adds, too."""
    before = read_state(folder) if mode == "resume" else None
    if before is None:
        return request
    earlier = before.run.get("request", {}).get("images", [])
    return replace(request, images=tuple(dict.fromkeys([*earlier, *request.images])))


def _check_same(store: Store, explainer: Explainer) -> None:
    """Raise ``OutputError`` where the results that are there come from another request, model or version."""
    if not store.kept or store.before is None:
        return
    account = store.before.account
    then = {**_comparable(store.before.run), "model": account["model"]["sha256"], **account["versions"]}
    now = {**_comparable(store.run), "model": explainer.network.sha256, **explainer.network.versions}
    changed = [key for key in {**now, **then} if then.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        raise OutputError(
            f"{str(store.folder)!r} holds results of another run: {key} was {then.get(key)!r} and is {now.get(key)!r}",
            hint="--overwrite replaces them, -o DIR writes to another folder",
            folder=store.folder,
            changed=changed,
        )


def _comparable(run: Mapping[str, Any]) -> dict[str, Any]:
    request = {key: value for key, value in run["request"].items() if key not in INCOMPARABLE}
    return {**request, **{f"the file {path!r}": digest for path, digest in run["files_read"].items()}}


def _rows(result: Result, entry: Mapping[str, Any], folder: Path) -> list[ExplainedRow]:
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
            row["made_of"] or "",
            row["box"],
        )
        for k, (row, sheet) in enumerate(zip(rows, sheets, strict=True))
    ]


def _undrawn(sheet: files.Sheet) -> tuple[str, ...]:
    count = next(iter(sheet.maps.values())).heatmap.ndim
    if sheet.figure is not None:
        return ()
    return (f"maps with {count} spatial {'axis' if count == 1 else 'axes'} are not drawn: the .npy holds the numbers",)
