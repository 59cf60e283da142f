"""Commands that get further options: typer reads them from a signature that is made here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from onnx_gradcam.cli.console import set_loudness

Command = Callable[..., None]

LOUDNESS = (
    ("verbose", ("-v", "--verbose"), "Say more on stderr."),
    ("quiet", ("-q", "--quiet"), "No warnings and no progress."),
)


def own_parameters(command: Command) -> list[inspect.Parameter]:
    """Return the parameters of a command, their annotations evaluated."""
    hints = get_type_hints(command, include_extras=True)
    return [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]


def with_parameters(run: Command, command: Command, parameters: Sequence[inspect.Parameter]) -> Command:
    """Return ``run`` in the place of a command: under its name, with its help, and with these parameters."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def takes_loudness(command: Command) -> Command:
    """Give a command ``-v`` and ``-q``, which may stand before it, too."""

    def run(verbose: bool, quiet: bool, **arguments: Any) -> None:
        if verbose or quiet:
            set_loudness(verbose, quiet)
        command(**arguments)

    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(*flags, help=text)],
        )
        for name, flags, text in LOUDNESS
    ]
    return with_parameters(run, command, [*own_parameters(command), *options])
