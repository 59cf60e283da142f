"""The two models of a comparison, opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from onnx_gradcam.errors import InputError, ScoreError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.preprocess.presets import Preprocess, rescale_shorter

SideLike = ModelLike | Network | Explainer


@contextmanager
def open_side(model: SideLike, layer: str | Sequence[str], labels: LabelsLike, opening: Opening) -> Iterator[Explainer]:
    """Open one of the two models; afterwards the sessions that were opened here are closed.

    Args:
        model: a model, "MODEL@provider", or what is open already, which stays open.
        layer, labels: as for ``Explainer``.
        opening: the keywords for this model.

    Raises:
        InputError: the model is open already, and an option would change it.
    """
    if isinstance(model, Explainer):
        open_network(model.network, layer, **opening)
        if labels is not None:
            raise InputError("the explainer is open already: its labels cannot be changed", hint="Explainer(labels=…)")
        yield model
    elif isinstance(model, Network):
        yield Explainer(model, layer, labels=labels, **opening)
    else:
        path, provider = split(model)
        own: Opening = opening if provider is None else {**opening, "providers": [provider]}
        with Explainer(path, layer, labels=labels, **own) as explainer:
            yield explainer


def split(model: ModelLike) -> tuple[ModelLike, str | None]:
    """Return the model and the provider of ``MODEL@provider``, unless a file of that very name exists."""
    if not isinstance(model, str | os.PathLike) or Path(model).exists():
        return model, None
    parts = re.fullmatch(r"(.+)@(\w+)", os.fspath(model))
    return (parts[1], parts[2]) if parts else (model, None)


def check_scores(a: Explainer, b: Explainer) -> None:
    """Raise ``ScoreError`` where the scores of two models are of different kinds, or of different classes."""
    if (a.score.kind, a.score.count) != (b.score.kind, b.score.count):
        counts = f"{a.score.count} ({a.score.kind}) and {b.score.count} ({b.score.kind})"
        raise ScoreError(
            f"the two models have different scores: {counts}",
            where=f"{a.score.value.name!r} of {a.source.name}, {b.score.value.name!r} of {b.source.name}",
            hint="two builds of one model; score_a, score_b (--score-a, --score-b) name other score tensors",
        )


def fitted(preprocess: Preprocess, explainer: Explainer) -> Preprocess:
    """Return the same preprocessing in the size, layout and dtype of another model's input."""
    form = {k: v for k, v in asdict(preprocess).items() if k not in ("size", "layout", "dtype")}
    choice = explainer.preprocessing(form)
    size = choice.preprocess.size
    if size is None or choice.sources["size"].startswith("guessed"):
        return replace(choice.preprocess, size=preprocess.size)
    shorter = rescale_shorter(preprocess.shorter, size, preprocess.size)
    return replace(choice.preprocess, size=size, shorter=shorter)
