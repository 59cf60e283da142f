"""The record of the model and the run, for an explanation."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.engine.session import in_tf32, provider_settings
from onnx_gradcam.explain.drawn import Maps
from onnx_gradcam.explain.network import Network
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.recipe import ALL, Recipe
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.provenance import Provenance


def provenance_of(
    networks: Sequence[Network],
    score: Score,
    recipe: Recipe,
    maps: Maps,
    choice: Choice | UserFunction | None,
    labels_source: str,
) -> Provenance:
    """Return the record of the model and the run that an explanation comes from.

    Args:
        networks: the model, on each branch that was explained.
        score: its score.
        recipe: the method.
        maps: what the run gave.
        choice: how the photo became a tensor; None for arrays.
        labels_source: where the class names come from.
    """
    network = networks[0]
    layers = [layer for each in networks for layer in each.layers] if maps.layers else []
    providers, options = maps.evaluation.providers, network.options
    set_options = provider_settings(options)
    return Provenance(
        model=network.source.name,
        sha256=network.sha256,
        versions=network.versions,
        providers=tuple(providers),
        provider_options={name: dict(set_options[name]) for name in providers if set_options[name]},
        precision={"dtype": str(maps.evaluation.score.value.dtype).lower(), "tf32": in_tf32(options, providers)},
        score=score.name,
        score_activation=score.activation,
        labels=labels_source,
        layers=tuple(layer.name for layer in layers),
        layer_reasons=tuple(layer.reason for layer in layers),
        fusion=_fusion(network, recipe) if len(layers) > 1 else None,
        check_forward=options.check_forward,
        gradient_scale=maps.evaluation.gradient_scale if methods.needs_gradient(recipe.method) else None,
        preprocess=choice,
    )


def _fusion(network: Network, recipe: Recipe) -> str:
    """Return how several layers become one map."""
    if recipe.levels == ALL:
        return "the sum of all levels"
    if network.is_by_level:
        return "the level of the cell"
    return "the sum of parallel parts" if network.is_summed else recipe.fusion
