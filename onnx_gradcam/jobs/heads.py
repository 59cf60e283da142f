"""All heads of a model, one after the other: a folder of results for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.explain.default_method import named
from onnx_gradcam.explain.network import open_network
from onnx_gradcam.jobs.explain import Outcome, default_folder
from onnx_gradcam.jobs.model_options import opening_of
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.results.files import slug

ALL = "all"


@dataclass(frozen=True)
class HeadOutcomes:
    """What became of each head, by the name of its first output: its outcome, or the error that it ended in."""

    outcomes: Mapping[str, Outcome]
    errors: Mapping[str, OnnxGradcamError]


def names_all_heads(request: Request) -> bool:
    """Tell whether a request is for all heads of the model."""
    return request.model_options.get("head") == ALL


def run_heads(request: Request, folder: Path | None, run: Callable[[Request, Path], Outcome]) -> HeadOutcomes:
    """Explain every head of a model, each into a folder of its own; a head that cannot be explained stops no other.

    Args:
        request: what is explained, and how; for all heads.
        folder: where the folders of the heads go; None: ``default_folder``, with the method of the first head.
        run: explains one head as a request says, into a folder.

    Raises:
        ModelError, InputError: the model cannot be opened.
    """
    options = {name: value for name, value in request.model_options.items() if name != "head"}
    scores = open_network(request.model, **opening_of(options)).heads
    names = [score.output for score in scores]
    if folder is None:
        folder = default_folder(replace(request, method=named(request.method, scores[0]) if scores else request.method))
    outcomes: dict[str, Outcome] = {}
    errors: dict[str, OnnxGradcamError] = {}
    for name, place in zip(names, _folders(names), strict=True):
        of_head = replace(request, model_options={**options, "head": name})
        try:
            outcomes[name] = run(of_head, folder / place)
        except OnnxGradcamError as error:
            errors[name] = error
    return HeadOutcomes(outcomes, errors)


def _folders(names: Sequence[str]) -> list[str]:
    """Return the name of the folder of each head; a number tells those apart whose names are equal as files."""
    slugs = [slug(name) for name in names]
    return [s if slugs.count(s) == 1 else f"{s}-{k}" for k, s in enumerate(slugs)]
