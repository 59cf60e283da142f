"""``explain`` and ``demo``: photos in, heatmaps out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.cli.console import BAD_INPUT, FOUND, complain, log, progress, progress_with_runs, renderer, show
from onnx_gradcam.cli.failing import explain_failures
from onnx_gradcam.cli.model_options import NONE, ModelOptions, takes_model_options
from onnx_gradcam.cli.options import (
    IMAGES,
    AsJson,
    Caption,
    Counterfactual,
    Fusion,
    Inputs,
    Labels,
    Layers,
    Levels,
    MaxPixels,
    Method,
    MethodOptions,
    Out,
    Preprocess,
    Question,
    Signed,
    Smooth,
    Targets,
    Threshold,
    beginning,
)
from onnx_gradcam.cli.picture_options import PICTURES, takes_picture_options
from onnx_gradcam.jobs import demo as bundled
from onnx_gradcam.jobs import explain as job
from onnx_gradcam.jobs.failures.failures import LIMIT
from onnx_gradcam.jobs.heads import names_all_heads, run_heads
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.repeat import repeat as repeat_run
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.video import names_video, run_video
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.listing import describe
from onnx_gradcam.results.store import Mode

DEMO = job.RESULTS / "demo"


@takes_picture_options
@takes_model_options
def explain(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)] = None,
    images: Annotated[list[str] | None, IMAGES] = None,
    out: Out = None,
    method: Method = "auto",
    layer: Layers = None,
    model_options: ModelOptions = NONE,
    target: Targets = None,
    inputs: Inputs = None,
    question: Question = None,
    caption: Caption = None,
    labels: Labels = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            metavar="FILE",
            help='The words of a model that reads tokens: one a line, or a JSON list or object {"word": id}.',
            show_default="the model's own",
        ),
    ] = None,
    preprocess: Preprocess = "auto",
    counterfactual: Counterfactual = False,
    signed: Signed = False,
    both: Annotated[
        bool, typer.Option("--both", help="What speaks for the class and what against it, side by side at one scale.")
    ] = False,
    true: Annotated[
        str | None,
        typer.Option(
            "--true",
            metavar="LABEL|FILE.csv|folder",
            help="The prediction against the true class: both maps and their difference; of several images a table of "
            "lines 'cat.jpg,tabby', or 'folder': each photo lies in a folder with the name of its class. A right "
            "prediction is shown against the runner-up.",
            show_default=False,
        ),
    ] = None,
    failures: Annotated[
        bool,
        typer.Option(
            "--failures",
            help="Of labelled photos (folders named after classes, a table .csv with path,label, or COCO .json) the "
            "mistakes, the most confident first: what speaks for and against the predicted and the true class, on one "
            "page.",
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="Of --failures: how many are explained.")
    ] = LIMIT,
    fusion: Fusion = "mean",
    smooth: Smooth = None,
    levels: Levels = "own",
    option: MethodOptions = None,
    tile: Annotated[
        str | None,
        typer.Option(
            "--tile",
            metavar="SIZE[,OVERLAP]",
            help="Explain photos tile by tile, in tiles of SIZE pixels: for photos larger than the input. One map of "
            "the photo's size, at one scale.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        int, typer.Option("--every", metavar="N", min=1, help="Of a video: explain every N-th frame.")
    ] = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    threshold: Threshold = None,
    pictures: Pictures = PICTURES,
    strict: Annotated[bool, typer.Option("--strict", help="A guessed preprocessing is an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep existing results of the same request, and add those that are missing."),
    ] = False,
    repeat: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MANIFEST",
            help="Repeat the run of a manifest.json; exit status 1 if a map differs.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain photos: a heatmap for each, as PNG and NPY, and manifest.json.

    Example: onnx-gradcam explain resnet50.onnx cat.jpg --target tabby -o out

    A wrong prediction: onnx-gradcam explain resnet50.onnx cat.jpg --true tabby

    All mistakes on labelled photos: onnx-gradcam explain resnet50.onnx photos --failures

    A video: onnx-gradcam explain resnet50.onnx drive.mp4 --target car --every 2

    All that a detector finds: onnx-gradcam explain yolox.onnx street.jpg --preprocess yolox --target boxes

    An answer: onnx-gradcam explain vqa.onnx street.jpg --question "what colour is the car?"
    """
    if repeat is not None:
        _repeat(repeat, as_json)
        return
    if model is None or not images:
        raise typer.BadParameter("MODEL and at least one IMAGE are needed (or --from MANIFEST)")
    if overwrite and resume:
        raise typer.BadParameter("--overwrite replaces results and --resume keeps them: leave one of them out")
    if true is not None and (target or both):
        raise typer.BadParameter("--true explains the prediction and the true class: leave --target and --both out")
    request = Request(
        model=str(model),
        images=tuple(images),
        method=method,
        layers=tuple(layer or ["auto"]),
        targets=tuple(target or ["top1"]),
        labels=labels,
        tile=tile,
        every=every,
        preprocess=preprocess,
        inputs=tuple(inputs or []),
        question=question,
        sentence=caption,
        vocabulary=vocabulary,
        counterfactual=counterfactual,
        signed=signed,
        both=both,
        true=true,
        fusion=fusion,
        smooth=tuple(smooth or []),
        levels=levels,
        options=tuple(option or []),
        strict=strict,
        max_pixels=max_pixels,
        threshold=threshold,
        model_options=model_options,
        pictures=pictures,
    )
    if failures:
        if resume:
            raise typer.BadParameter("--failures writes one page: leave --resume out")
        explain_failures(request, out, limit, overwrite, as_json)
        return
    _check_counts(request, limit)
    mode: Mode = "overwrite" if overwrite else "resume" if resume else "new"
    if names_video(request):
        _explain_video(request, out, mode, as_json)
    elif names_all_heads(request):
        _explain_heads(request, out, mode, as_json)
    else:
        _explain(request, out, mode, as_json)


def _check_counts(request: Request, limit: int) -> None:
    """Raise ``BadParameter`` for a number that is of mistakes or of frames, where neither are explained."""
    if limit != LIMIT:
        raise typer.BadParameter("--limit is of --failures: leave it out, or add --failures")
    if request.every != 1 and not names_video(request):
        raise typer.BadParameter("--every is of a video, and the images are none: leave it out")


def _explain_heads(request: Request, out: Path | None, mode: Mode, as_json: bool) -> None:
    results = run_heads(request, out, lambda of_head, folder: _run(of_head, folder, mode, as_json))
    show(renderer(as_json).explained_heads(results.outcomes))
    for head, error in results.errors.items():
        complain(f"head {head!r}: {error}")
    failed = [head for head, outcome in results.outcomes.items() if _has_errors(outcome)]
    if results.errors or failed:
        raise typer.Exit(BAD_INPUT)


def _explain_video(request: Request, out: Path | None, mode: Mode, as_json: bool) -> None:
    """Explain a video; frames that fail are named, and its rate and latency are printed."""
    asked = request.both, request.true, request.question, request.sentence, request.tile
    others = (*asked, request.pictures.sheet, mode == "resume")
    if any(others) or names_all_heads(request):
        options = "--both, --true, --question, --caption, --sheet, --tile, --resume, --head all"
        raise typer.BadParameter(f"a video has one map a frame: leave out {options}")
    with progress("explaining") as tick:
        outcome = run_video(request, out, overwrite=mode == "overwrite", tick=tick)
    show(renderer(as_json).explained_video(outcome))
    for error in outcome.errors:
        complain(f"frame {error['frame']}: {error['error']}")
    if outcome.errors:
        raise typer.Exit(BAD_INPUT)


def _explain(request: Request, out: Path | None, mode: Mode, as_json: bool) -> None:
    outcome = _run(request, out, mode, as_json)
    show(renderer(as_json).explained(outcome))
    if _has_errors(outcome):
        raise typer.Exit(BAD_INPUT)


def _has_errors(outcome: job.Outcome) -> bool:
    """Print the images that failed; tell whether any did."""
    for name, error in outcome.errors:
        complain(f"{name}: {error}")
    return bool(outcome.errors)


def _run(request: Request, out: Path | None, mode: Mode, as_json: bool) -> job.Outcome:
    """Explain the images of a request; each row is printed when its files are written."""
    warned: set[str] = set()
    with progress_with_runs("explaining") as (tick, runs):

        def report(row: job.ExplainedRow) -> None:
            for warning in row.warnings:
                if warning not in warned:
                    warned.add(warning)
                    log.warning("warning: %s", warning)
            show(renderer(as_json).explained_row(row))

        log.info("%s", {k: v for k, v in request.as_dict().items() if v})
        outcome = job.run(request, out, mode=mode, listener=job.Listener(report, tick, runs))
    if outcome.left_out:
        log.warning("%s", describe(outcome.left_out))
    if outcome.kept:
        log.warning("%d images were there already", outcome.kept)
    return outcome


def _repeat(manifest: Path, as_json: bool) -> None:
    rows = repeat_run(manifest)
    show(renderer(as_json).repeated(rows))
    if not all(row.same for row in rows):
        raise typer.Exit(FOUND)


@takes_picture_options
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where results go.")] = DEMO,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="NAME",
            help=f"What is shown: {', '.join(bundled.TASKS)}.",
            autocompletion=lambda incomplete: beginning(incomplete, bundled.TASKS),
        ),
    ] = bundled.CLASSIFY,
    pictures: Pictures = PICTURES,
    as_json: AsJson = False,
) -> None:
    """Run the main job on a bundled model and its images."""
    requests = bundled.requests(task, pictures)
    if len(requests) == 1:
        (request,) = requests.values()
        _explain(request, out, "overwrite", as_json)
        return
    outcomes = {name: _run(request, out / name, "overwrite", as_json) for name, request in requests.items()}
    show(renderer(as_json).explained_heads(outcomes, "runs"))
