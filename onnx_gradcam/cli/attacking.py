"""``attack``: how little must change until a model changes its mind, with the maps before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_gradcam.cli.console import BAD_INPUT, complain, log, progress, renderer, show
from onnx_gradcam.cli.model_options import NONE, ModelOptions, takes_model_options
from onnx_gradcam.cli.options import (
    IMAGES,
    AsJson,
    Inputs,
    Labels,
    Layers,
    MaxPixels,
    Method,
    MethodOptions,
    Model,
    Preprocess,
    beginning,
)
from onnx_gradcam.jobs.arguments import read_arrays, read_options
from onnx_gradcam.jobs.attack.attack import ATTACKS
from onnx_gradcam.jobs.attack.files import AttackedFile, attack_files, default_folder
from onnx_gradcam.jobs.attack.losses import LOSSES
from onnx_gradcam.jobs.attack.steps import NORMS
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.saving import check_document_folder
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.results.journal import ATTACK


@takes_model_options
def attack(
    model: Model,
    images: Annotated[list[str], IMAGES],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Where pictures, attacked tensors and attack.json go.",
            show_default="onnx-gradcam-out/MODEL-ATTACK-attack",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--attack",
            metavar="NAME",
            help="fgsm: one step along the sign of the gradient; pgd: many, from a random start.",
            autocompletion=lambda incomplete: beginning(incomplete, ATTACKS),
        ),
    ] = "fgsm",
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            metavar="E",
            help="The largest change, in grey levels of 0 to 255.",
            show_default="8, or 128 for l2",
        ),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm",
            metavar="NAME",
            help="linf: of the largest change of a value; l2: of the root of the sum of the squares.",
            autocompletion=lambda incomplete: beginning(incomplete, NORMS),
        ),
    ] = "linf",
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Of pgd.")] = 10,
    step_size: Annotated[
        float | None,
        typer.Option("--step-size", metavar="E", help="Of pgd, in grey levels.", show_default="2.5 · epsilon / steps"),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="cross-entropy, or margin: the score minus the highest other one, for a saturated softmax.",
            autocompletion=lambda incomplete: beginning(incomplete, LOSSES),
        ),
    ] = "cross-entropy",
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="CLASS", help="The class that is aimed at.", show_default="any but the true one"
        ),
    ] = None,
    true: Annotated[
        str | None,
        typer.Option(
            "--true",
            metavar="LABEL|FILE.csv|folder",
            help="The class of the photos: one for all, a table of lines 'cat.jpg,tabby', or the folder of each photo.",
            show_default="what the model puts first",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the random start of pgd.")] = 0,
    method: Method = "auto",
    layer: Layers = None,
    model_options: ModelOptions = NONE,
    inputs: Inputs = None,
    labels: Labels = None,
    preprocess: Preprocess = "auto",
    option: MethodOptions = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Annotated[bool, typer.Option("--strict", help="A guessed preprocessing is an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier attacks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change photos as little as allowed so that a classifier changes its mind, with maps before and after.

    An audit of a model that you are responsible for. Example: onnx-gradcam attack model.onnx cat.jpg --epsilon 4
    """
    folder = out or default_folder(model, kind)
    check_document_folder(folder, ATTACK, overwrite)
    how: dict[str, Any] = {
        "epsilon": epsilon,
        "norm": norm,
        "steps": steps,
        "step_size": step_size,
        "loss": loss,
        "seed": seed,
    }
    with progress("attacking") as tick:

        def report(row: AttackedFile | tuple[str, str], number: int, total: int) -> None:
            if isinstance(row, AttackedFile):
                show(renderer(as_json).attacked_file(row))
            tick(number, total)

        attacks = attack_files(
            model,
            images,
            target,
            true=true,
            attack_method=kind,
            method=method,
            target_layer=layer or "auto",
            options=read_options(option or []),
            inputs=read_arrays(inputs or []),
            labels=labels,
            preprocess=preprocess,
            strict=strict,
            max_pixels=max_pixels,
            how=how,
            report=report,
            **opening_of(model_options),
        )
    for warning in attacks.warnings:
        log.warning("warning: %s", warning)
    show(renderer(as_json).attacked(attacks, attacks.save(folder, overwrite)))
    for image, error in attacks.errors:
        complain(f"{image}: {error}")
    if attacks.errors:
        raise typer.Exit(BAD_INPUT)
