"""``explain --failures``: the confident mistakes on labelled photos, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from onnx_gradcam.cli.console import BAD_INPUT, complain, log, progress, renderer, show
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.failures.failures import failures
from onnx_gradcam.jobs.failures.result import default_folder
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.saving import check_document_folder
from onnx_gradcam.results.journal import FAILURES

LEAVE_OUT: Mapping[str, str] = {
    **{name: f"--{name}" for name in ("both", "true", "counterfactual", "signed", "levels", "threshold")},
    **{name: f"--{name}" for name in ("question", "vocabulary", "tile", "every")},
    "targets": "--target",
    "sentence": "--caption",
}
"""Fields of a request → the options that set what mistakes settle themselves, or what is not for labelled photos."""


def explain_failures(request: Request, out: Path | None, limit: int, overwrite: bool, as_json: bool) -> None:
    """Explain the mistakes of a model on the data that a request names, and print them.

    Args:
        request: what was asked for; its images are the data.
        out: where the page goes; None: ``default_folder``.
        limit: how many mistakes are explained.
        overwrite: whether an earlier report is replaced.
        as_json: whether one JSON document is printed.
    """
    plain = Request(request.model, request.images)
    changed = [option for name, option in LEAVE_OUT.items() if getattr(request, name) != getattr(plain, name)]
    if changed:
        raise typer.BadParameter(f"--failures explains the predicted and the true class: leave {changed[0]} out")
    if request.pictures.sheet or request.pictures.scale is not None:
        raise typer.BadParameter(
            "--failures draws one page, where each mistake has its scale: leave --sheet and --scale out"
        )
    folder = out or Path()
    with progress("judging") as tick:

        def start(method: str) -> None:
            nonlocal folder
            folder = out or default_folder(request.model, method)
            check_document_folder(folder, FAILURES, overwrite)

        mistakes = failures(
            request.model,
            request.images,
            limit=limit,
            method=request.method,
            target_layer=request.layers if len(request.layers) > 1 else request.layers[0],
            fusion=request.fusion,
            smooth=request.smooth,
            options=read_options(request.options),
            inputs=read_arrays(request.inputs),
            labels=request.labels,
            preprocess=request.preprocess,
            strict=request.strict,
            max_pixels=request.max_pixels,
            start=start,
            report=tick,
            **opening_of(request.model_options),
        )
    for warning in mistakes.warnings:
        log.warning("warning: %s", warning)
    written = mistakes.save(folder, overwrite, request.pictures.style)
    show(renderer(as_json).failed(mistakes, written))
    for image, error in mistakes.errors:
        complain(f"{image}: {error}")
    if mistakes.errors:
        raise typer.Exit(BAD_INPUT)
