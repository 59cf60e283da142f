"""The options of every command that opens a model, from one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import typer

from onnx_gradcam.cli.options import beginning
from onnx_gradcam.jobs.model_options import MODEL_OPTIONS, ModelOption, Plain

RECEIVER = "model_options"
ModelOptions = Mapping[str, Plain]
NONE: ModelOptions = MappingProxyType({})
Command = Callable[..., None]


def takes_model_options(command: Command) -> Command:
    """Give a command all options of a model.

    Args:
        command: a function with a parameter ``model_options``: it receives the values by the names of
            ``MODEL_OPTIONS``, those that were not given left out.

    Returns:
        The command with the options in the place of that parameter.
    """

    def run(**given: Any) -> None:
        values = {option.name: _plain(given.pop(option.name)) for option in MODEL_OPTIONS}
        chosen = {o.name: values[o.name] for o in MODEL_OPTIONS if values[o.name] != o.default}
        command(**given, **{RECEIVER: chosen})

    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        own = [parameter.replace(annotation=hints[parameter.name])]
        parameters += map(_parameter, MODEL_OPTIONS) if parameter.name == RECEIVER else own
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def _plain(value: Any) -> Plain:
    """Return lists as tuples."""
    plain: Plain = tuple(value) if isinstance(value, list) else value
    return plain


def _parameter(option: ModelOption) -> inspect.Parameter:
    """Return the parameter from which typer makes the option."""
    kind: Any = list[str] if option.kind is tuple else option.kind
    is_flag = option.kind is bool
    declared = typer.Option(
        f" /{option.flag}" if is_flag else option.flag,
        metavar=None if is_flag else option.metavar,
        help=option.help,
        show_default=option.shown_default or (option.kind is str and option.default is not None),
        min=1 if option.kind is int else None,
        autocompletion=COMPLETIONS.get(option.name),
    )
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    hint = kind if option.default is not None else kind | None
    return inspect.Parameter(
        option.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[hint, declared]
    )


def _provider_names(incomplete: str) -> list[str]:
    from onnx_gradcam.engine.providers import SHORT_NAMES

    return beginning(incomplete, SHORT_NAMES)


COMPLETIONS: Mapping[str, Callable[[str], list[str]]] = {"providers": _provider_names}
