"""``evaluate``: whether the maps of a model may be believed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.cli.console import BAD_INPUT, progress, renderer, show
from onnx_gradcam.cli.model_options import NONE, ModelOptions, takes_model_options
from onnx_gradcam.cli.options import (
    AsJson,
    Fusion,
    Inputs,
    Labels,
    Layers,
    MaxPixels,
    Method,
    MethodOptions,
    Model,
    Preprocess,
    Smooth,
    beginning,
)
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.evaluate import EvaluatedRow
from onnx_gradcam.jobs.evaluate import evaluate as evaluate_maps
from onnx_gradcam.jobs.evaluate.chosen import EVERY_METRIC
from onnx_gradcam.jobs.evaluate.evaluation import default_folder
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.saving import check_document_folder
from onnx_gradcam.metrics.table import METRICS
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.results.journal import EVALUATION


def _metrics(incomplete: str) -> list[str]:
    return beginning(incomplete, [EVERY_METRIC, *METRICS])


@takes_model_options
def evaluate(
    model: Model,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Photos (files, folders, globs; folders may be named after classes), a table .csv with the columns "
            "path,label,box,mask,region:NAME, or COCO annotations .json.",
            show_default=False,
        ),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="NAME,...",
            help=f"{', '.join(METRICS)}; or all. Repeatable.",
            show_default="some that are quick",
            autocompletion=_metrics,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Where a picture for each metric and evaluation.json go.",
            show_default="onnx-gradcam-out/MODEL-METHOD-evaluation",
        ),
    ] = None,
    method: Method = "auto",
    layer: Layers = None,
    model_options: ModelOptions = NONE,
    inputs: Inputs = None,
    labels: Labels = None,
    preprocess: Preprocess = "auto",
    fusion: Fusion = "mean",
    smooth: Smooth = None,
    option: MethodOptions = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="COLUMN",
            help="The column by which photos belong together (a patient, a video): intervals draw them together.",
            show_default="each photo by itself",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="COLUMN",
            help="The column by which figures are told apart: each metric by class, by group, and by both.",
            show_default="no groups",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Of random weights, random classes and intervals.")
    ] = 0,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Annotated[bool, typer.Option("--strict", help="A guessed preprocessing is an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure whether the maps of a model may be believed, with intervals, chance and random weights beside them.

    Example: onnx-gradcam evaluate model.onnx photos.csv --metrics deletion,pointing
    """
    names = [name.strip() for several in metrics or [] for name in several.split(",")]
    folder = out or Path()
    count = itertools.count(1)
    with progress("measuring") as tick:

        def start(named: str) -> None:
            nonlocal folder
            folder = out or default_folder(model, named)
            check_document_folder(folder, EVALUATION, overwrite)

        def report(_: EvaluatedRow | tuple[str, str], total: int) -> None:
            tick(next(count), total)

        evaluation = evaluate_maps(
            model,
            data,
            names,
            method=method,
            target_layer=layer or "auto",
            fusion=fusion,
            smooth=smooth or (),
            options=read_options(option or []),
            inputs=read_arrays(inputs or []),
            labels=labels,
            preprocess=preprocess,
            strict=strict,
            cluster=cluster,
            group=group,
            seed=seed,
            max_pixels=max_pixels,
            start=start,
            report=report,
            **opening_of(model_options),
        )
    show(renderer(as_json).evaluated(evaluation, evaluation.save(folder, overwrite)))
    for image, error in evaluation.errors:
        print(f"error: {image}: {error}", file=sys.stderr)
    if evaluation.errors:
        raise typer.Exit(BAD_INPUT)
