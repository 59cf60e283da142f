"""``compare``: two builds of a model, map by map."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.cli.console import BAD_INPUT, FOUND, log, progress, renderer, show
from onnx_gradcam.cli.model_options import NONE, ModelOptions, takes_model_options
from onnx_gradcam.cli.options import (
    IMAGES,
    AsJson,
    Counterfactual,
    Fusion,
    Inputs,
    Labels,
    Layers,
    Levels,
    MaxPixels,
    Method,
    MethodOptions,
    Preprocess,
    Signed,
    Smooth,
    Targets,
    Threshold,
)
from onnx_gradcam.cli.picture_options import PICTURES, takes_style_options
from onnx_gradcam.explain.opening import Opening
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.compare import Pair
from onnx_gradcam.jobs.compare import compare as compare_models
from onnx_gradcam.jobs.compare.saving import check_comparison_folder
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.report import text
from onnx_gradcam.photos.decode import MAX_PIXELS


@takes_style_options
@takes_model_options
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An .onnx file, or FILE@provider.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another build of the same model.", show_default=False)],
    images: Annotated[list[str], IMAGES],
    method: Method = "auto",
    target: Targets = None,
    layer: Layers = None,
    layer_a: Annotated[
        list[str] | None, typer.Option("--layer-a", metavar="NAME", help="Of A only.", show_default=False)
    ] = None,
    layer_b: Annotated[
        list[str] | None, typer.Option("--layer-b", metavar="NAME", help="Of B only.", show_default=False)
    ] = None,
    model_options: ModelOptions = NONE,
    score_a: Annotated[
        str | None, typer.Option("--score-a", metavar="NAME", help="Of A only.", show_default="as --score")
    ] = None,
    score_b: Annotated[
        str | None, typer.Option("--score-b", metavar="NAME", help="Of B only.", show_default="as --score")
    ] = None,
    head_a: Annotated[
        str | None, typer.Option("--head-a", metavar="NAME", help="Of A only.", show_default="as --head")
    ] = None,
    head_b: Annotated[
        str | None, typer.Option("--head-b", metavar="NAME", help="Of B only.", show_default="as --head")
    ] = None,
    grid_a: Annotated[
        str | None, typer.Option("--grid-a", metavar="HxW[+K]", help="Of A only.", show_default="as --grid")
    ] = None,
    grid_b: Annotated[
        str | None, typer.Option("--grid-b", metavar="HxW[+K]", help="Of B only.", show_default="as --grid")
    ] = None,
    image_input_a: Annotated[
        str | None,
        typer.Option("--image-input-a", metavar="NAME", help="Of A only.", show_default="as --image-input"),
    ] = None,
    image_input_b: Annotated[
        str | None,
        typer.Option("--image-input-b", metavar="NAME", help="Of B only.", show_default="as --image-input"),
    ] = None,
    inputs: Inputs = None,
    labels: Labels = None,
    preprocess: Preprocess = "auto",
    preprocess_b: Annotated[
        str | None,
        typer.Option("--preprocess-b", metavar="NAME|FILE", help="Of B only.", show_default="as for A"),
    ] = None,
    counterfactual: Counterfactual = False,
    signed: Signed = False,
    fusion: Fusion = "mean",
    smooth: Smooth = None,
    levels: Levels = "own",
    option: MethodOptions = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="CLAUSE",
            help="Exit status 1 unless it holds: 'pearson:p05>=0.9', 'iou:median>=0.6', 'distance:p95<=0.1' (of the "
            "diagonal), 'agreement>=0.99'; statistics are median, worst and p00 to p99. Repeatable.",
            show_default=False,
        ),
    ] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    threshold: Threshold = None,
    pictures: Pictures = PICTURES,
    strict: Annotated[bool, typer.Option("--strict", help="A guessed preprocessing is an error.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Write pictures of the worst pairs, and comparison.json.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[int, typer.Option("--worst", metavar="N", help="How many pairs are drawn, with -o.", min=0)] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier comparison.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what two builds of a model see: predictions, and the heatmaps of the same target.

    A class that the target leaves open is the one that A puts first.

    Example: onnx-gradcam compare model.onnx model-int8.onnx photos --require 'pearson:p05>=0.9'
    """
    count = itertools.count(1)
    if out is not None:
        check_comparison_folder(out, overwrite)
    with progress("comparing") as tick:

        def report(pair: Pair) -> None:
            show(renderer(as_json).compared_pair(pair))
            tick(next(count), None)

        comparison = compare_models(
            a,
            b,
            images,
            target=target or "top1",
            method=method,
            counterfactual=counterfactual,
            signed=signed,
            fusion=fusion,
            smooth=smooth or (),
            levels=levels,
            options=read_options(option or []),
            inputs=read_arrays(inputs or []),
            layer_a=layer_a or layer or "auto",
            layer_b=layer_b or layer or "auto",
            labels=labels,
            preprocess=preprocess,
            preprocess_b=preprocess_b,
            only_a=_only(score=score_a, head=head_a, grid=grid_a, image_input=image_input_a),
            only_b=_only(score=score_b, head=head_b, grid=grid_b, image_input=image_input_b),
            strict=strict,
            threshold=threshold,
            max_pixels=max_pixels,
            keep=worst if out is not None else 0,
            require=require or [],
            report=report,
            **opening_of(model_options),
        )
    for warning in comparison.warnings:
        log.warning("warning: %s", warning)
    written = None if out is None else comparison.save(out, overwrite, pictures.style)
    show(renderer(as_json).compared(comparison, written))
    for image, error in comparison.errors:
        print(f"error: {image}: {error}", file=sys.stderr)
    for finding in comparison.findings:
        if not finding.ok:
            print(f"failed: {text.finding(finding)}", file=sys.stderr)
    if comparison.errors:
        raise typer.Exit(BAD_INPUT)
    if not comparison.ok:
        raise typer.Exit(FOUND)


def _only(**keywords: str | None) -> Opening:
    """Return the keywords for one of the models: those that were given."""
    only: Opening = {}
    for name, value in keywords.items():
        if value is not None:
            only = {**only, name: value}  # type: ignore[misc]  # the names are keys of Opening
    return only
