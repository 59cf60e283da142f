"""``inspect`` and ``verify``: what a model is, and whether its gradient is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.cli.console import DONE, FOUND, UNDECIDED, progress, renderer, show
from onnx_gradcam.cli.model_options import NONE, ModelOptions, takes_model_options
from onnx_gradcam.cli.options import AsJson, Inputs, Layers, Model
from onnx_gradcam.explain.network import open_network
from onnx_gradcam.jobs.arguments import read_arrays
from onnx_gradcam.jobs.inspect import overview, settle_score
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.presets import Ranking, rank_presets
from onnx_gradcam.verify import verify as check

STATUSES = {"pass": DONE, "fail": FOUND, "undecided": UNDECIDED}


@takes_model_options
def inspect(
    model: Model,
    model_options: ModelOptions = NONE,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="PHOTO", help="Which preprocessing fits, and the line to copy.", show_default=False
        ),
    ] = None,
    inputs: Inputs = None,
    as_json: AsJson = False,
) -> None:
    """Show inputs, outputs, score, candidate layers, and operators and which have no rule.

    With --provider cuda also which have no kernel there; no GPU is needed.
    """
    network = open_network(model, **opening_of(model_options))
    if image:
        settle_score(network)
    model_overview = overview(network)
    ranking = None
    if image:
        known = bool(model_overview.score)
        ranking = rank_presets(network, image, read_arrays(inputs or [])) if known else Ranking((), "")
    show(renderer(as_json).inspected(model_overview, ranking))


@takes_model_options
def verify(
    model: Model,
    layer: Layers = None,
    model_options: ModelOptions = NONE,
    seed: Annotated[int, typer.Option("--seed", help="Of the random input and directions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check forward pass and gradient numerically, on this model.

    Exit status 1 if something is wrong, 4 if nothing is wrong but something could not be decided.
    """
    with progress("verifying"):
        report = check(model, target_layer=layer or "auto", seed=seed, **opening_of(model_options))
    show(renderer(as_json).verified(report))
    raise typer.Exit(STATUSES[report.status])
