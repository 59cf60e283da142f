"""``inspect`` and ``verify``: what a model is, and whether its gradient is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.cli.console import FOUND, progress
from onnx_gradcam.cli.options import AsJson, Grid, ImageInput, Layers, Model, Provider, Score


def inspect(
    model: Model,
    grid: Grid = None,
    score: Score = "auto",
    image_input: ImageInput = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="PHOTO", help="Top-1 and confidence under each preset.", show_default=False),
    ] = None,
    provider: Provider = None,
    as_json: AsJson = False,
) -> None:
    """Show inputs, outputs, score, candidate layers, and operators and which have no rule.

    With --provider cuda also which have no kernel there; no GPU is needed.
    """
    from onnx_gradcam.jobs.inspect import overview, presets_on

    providers = tuple(provider) if provider else None
    found = overview(model, score, providers, grid, image_input)
    presets = presets_on(model, image, score, providers, grid, image_input) if image else []
    if as_json:
        print(json.dumps({**found.as_dict(), "presets": presets}, indent=2, default=str))
        return
    print(found)
    for row in presets:
        print("  {preset:15} {label:30} {probability:.3f}".format(**row))


def verify(
    model: Model,
    layer: Layers = None,
    grid: Grid = None,
    score: Score = "auto",
    image_input: ImageInput = None,
    provider: Provider = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random input and directions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check forward pass and gradient numerically, on this model; exit status 1 if something is wrong or undecided."""
    from onnx_gradcam.verify import verify as check

    with progress("verifying"):
        report = check(
            model,
            target_layer=layer or "auto",
            score=score,
            providers=tuple(provider) if provider else None,
            seed=seed,
            grid=grid,
            image_input=image_input,
        )
    print(json.dumps(report.as_dict(), indent=2) if as_json else report)
    if not report.ok:
        raise typer.Exit(FOUND)
