"""The options of the pictures that ``explain`` and ``demo`` write."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from onnx_gradcam.cli.options import beginning
from onnx_gradcam.cli.signatures import Command, own_parameters, with_parameters
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.results.picture.style import COLORMAPS

RECEIVER = "pictures"
PICTURES = Pictures()


def _colormaps(incomplete: str) -> list[str]:
    return beginning(incomplete, COLORMAPS)


def _declare(
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            metavar="image|shared|NUMBER",
            help="The value of the strongest colour: each map's own largest (image), the largest of all (shared: every "
            "image is explained twice), or a number in the score's units. In a contact sheet it is shared.",
            show_default="image; demo: shared",
        ),
    ] = PICTURES.scale,
    photo: Annotated[
        str | None,
        typer.Option(
            "--photo",
            metavar="colour|grey",
            help="The photo under the map.",
            show_default="colour; grey where the map has two colours",
        ),
    ] = PICTURES.photo,
    colormap: Annotated[
        str,
        typer.Option(
            "--colormap", metavar="NAME", help=f"Colours of the map: {', '.join(COLORMAPS)}.", autocompletion=_colormaps
        ),
    ] = PICTURES.colormap,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="SHARE", help="Opacity of the strongest colour, from 0 to 1.")
    ] = PICTURES.alpha,
    no_caption: Annotated[
        bool,
        typer.Option("--no-caption", help="The overlay alone; what changes how it must be read still stands below it."),
    ] = False,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="A contact sheet, too: all maps on one page, at one scale (sheet.png).")
    ] = PICTURES.sheet,
) -> None:
    """Declare the options, for their signature."""


def takes_picture_options(command: Command) -> Command:
    """Give a command the options of pictures, in the place of its parameter ``pictures``, which receives them."""
    return _takes(command, own_parameters(_declare))


def takes_style_options(command: Command) -> Command:
    """Give a command the options of how a picture is drawn, as ``takes_picture_options``: not scale and sheet."""
    return _takes(command, [option for option in own_parameters(_declare) if option.name not in ("scale", "sheet")])


def _takes(command: Command, options: Sequence[inspect.Parameter]) -> Command:
    def run(**given: Any) -> None:
        values = {option.name: given.pop(option.name) for option in options}
        command(**given, **{RECEIVER: Pictures(caption=not values.pop("no_caption"), **values)})

    parameters: list[inspect.Parameter] = []
    for parameter in own_parameters(command):
        parameters += options if parameter.name == RECEIVER else [parameter]
    return with_parameters(run, command, parameters)
