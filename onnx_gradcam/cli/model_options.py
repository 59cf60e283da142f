"""The options of every command that opens a model, from one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

from onnx_gradcam.cli.options import beginning
from onnx_gradcam.cli.signatures import Command, own_parameters, with_parameters
from onnx_gradcam.jobs.model_options import MODEL_OPTIONS, ModelOption, Plain

RECEIVER = "model_options"
ModelOptions = Mapping[str, Plain]
NONE: ModelOptions = MappingProxyType({})


def takes_model_options(command: Command) -> Command:
    """Give a command all options of a model.

    Args:
        command: a function with a parameter ``model_options``: it receives the values by the names of
            ``MODEL_OPTIONS``, those that were not given left out.

    Returns:
        The command with the options in the place of that parameter.
    """

    def run(**given: Any) -> None:
        values = {option: _plain(option, given.pop(option.name)) for option in MODEL_OPTIONS}
        chosen = {option.name: value for option, value in values.items() if value != option.default}
        command(**given, **{RECEIVER: chosen})

    parameters: list[inspect.Parameter] = []
    for parameter in own_parameters(command):
        parameters += map(_parameter, MODEL_OPTIONS) if parameter.name == RECEIVER else [parameter]
    return with_parameters(run, command, parameters)


def _plain(option: ModelOption, value: Any) -> Plain:
    """Return what was given as a request holds it: several texts as a tuple, and what a flag makes of its default."""
    plain: Plain = tuple(value) if option.kind is tuple else (option.default != value) if option.kind is bool else value
    return plain


def _parameter(option: ModelOption) -> inspect.Parameter:
    """Return the parameter from which typer makes the option."""
    is_flag, is_list = option.kind is bool, option.kind is tuple
    hint: Any = list[str] if is_list else option.kind
    declared = typer.Option(
        option.flag,
        metavar=None if is_flag else option.metavar,
        help=option.help,
        show_default=option.shown_default or (option.kind is str and option.default is not None),
        min=1 if option.kind is int else None,
        autocompletion=COMPLETIONS.get(option.name),
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=False if is_flag else [] if is_list else option.default,
        annotation=Annotated[hint if option.default is not None else hint | None, declared],
    )


def _provider_names(incomplete: str) -> list[str]:
    from onnx_gradcam.engine.providers import SHORT_NAMES

    return beginning(incomplete, SHORT_NAMES)


COMPLETIONS: Mapping[str, Callable[[str], list[str]]] = {"providers": _provider_names}
