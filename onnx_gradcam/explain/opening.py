"""The keywords by which a model is opened. They are declared once, and every function that takes a model has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypedDict, TypeVar

from onnx_gradcam.engine.session import Options

Function = TypeVar("Function", bound=Callable[..., object])


class Opening(TypedDict, total=False):
    """The keywords of every function that opens a model.

    Attributes:
        score: the name of the score tensor, or the names of those of all levels of one score. "auto": the classifier
            output, before its softmax or sigmoid.
        head: the name of an output, where the model has several that could be explained (``heads``). "auto": the first.
        grid: the token grid of the target layer: "14x14" for 14 rows of 14, which are the last of all tokens, or
            "14x14+1" for those after the first token. None: it is read from the graph.
        image_input: the input that is explained. None: the largest of those with the most axes.
        providers: execution providers by short or full name, in order. None: CUDA if it initialises, else CPU.
        provider_options: options of providers, by provider name.
        session_options: an ``onnxruntime.SessionOptions``.
        custom_ops: paths of shared libraries with custom operators.
        check_forward: whether outputs are compared with the untouched model on the first run.
    """

    score: str | Sequence[str]
    head: str
    grid: str | None
    image_input: str | None
    providers: Sequence[str] | None
    provider_options: Mapping[str, Mapping[str, str]] | None
    session_options: Any
    custom_ops: Sequence[str]
    check_forward: bool


OPENING_DEFAULTS: Mapping[str, Any] = {
    "score": "auto",
    "head": "auto",
    "grid": None,
    "image_input": None,
    **{option.name: option.default for option in fields(Options)},
}


def spelled_out(function: Function) -> Function:
    """Give a function with ``**opening: Unpack[Opening]`` a signature that names each of these keywords."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint.__forward_arg__)
        for (name, default), hint in zip(OPENING_DEFAULTS.items(), Opening.__annotations__.values(), strict=True)
    ]
    vars(function)["__signature__"] = signature.replace(parameters=[*own, *keywords])
    return function


def options_of(opening: Opening) -> Options:
    """Return the options of sessions that are among the keywords."""
    keywords: dict[str, Any] = dict(opening)
    return Options(**{option.name: keywords[option.name] for option in fields(Options) if option.name in keywords})
