"""From feeds and classes to maps: one function for each kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import Evaluation, Wanted
from onnx_gradcam.engine.rows import Rows, kinds
from onnx_gradcam.engine.rows import level as levels
from onnx_gradcam.errors import MethodError, NoGradientPath, UnsupportedGradient
from onnx_gradcam.explain import smoothing
from onnx_gradcam.explain.input_maps import ANSWERS, Question, input_space
from onnx_gradcam.explain.network import Network
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.copies import frozen
from onnx_gradcam.methods.heatmap import is_blank, normalise
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import notes
from onnx_gradcam.results.frame import Drawing
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture.detail import colours
from onnx_gradcam.results.records import Rectifiers

Array = npt.NDArray[Any]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Maps:
    """``results``: what the forward pass gave, one entry per image; everything else has one per row (image, what).

    ``heatmap`` (R, *space) is scaled, ``scale`` (R,) what 1 in it stands for; ``drawing``: how cams became heatmaps.
    ``attribution`` is (R, *input shape), of the value called ``attributed``; ``space``: its spatial axes.
    ``evaluation``: what was run; ``rectifiers``: how it gated them; ``notes``: what the user should know.
    """

    evaluation: Evaluation
    results: dict[str, Any]
    rows: Rows
    heatmap: Array
    layers: tuple[LayerResult, ...] = ()
    attribution: Array | None = None
    attributed: str = ""
    scale: Array | None = None
    drawing: Drawing | None = None
    space: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    rectifiers: Rectifiers | None = None

    def details(self) -> tuple[Callable[[], Array], ...]:
        """For each row a function that makes a picture's values of its attribution, where that is what is shown."""
        if self.rectifiers is None or self.attribution is None or len(self.space) != 2:
            return ()
        height, width = (axis - 1 for axis in self.space)
        return tuple(partial(colours, row, (height, width)) for row in self.attribution)


def ask(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe) -> Maps:
    """The maps that ``recipe`` makes; raises what ``Explainer.explain`` raises."""
    return MAKERS[recipe.method](network, feeds, wanted, recipe)


def cams(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe) -> Maps:
    """Of the target layers."""
    if recipe.method == "cam":
        _require_linear_head(network)
    backward = "curvature" if recipe.method in cam.NEEDS_CURVATURE else "gradient"
    evaluation = network.evaluation(network.layer_names, backward)
    shared = inputs.without_batch(feeds, network.inputs, network.image_input)
    asked = smoothing.Question(
        evaluation.evaluate, network.layers_at(feeds), feeds, wanted, network.image_input, shared, methods.noise(recipe)
    )
    results, rows, found, said = smoothing.smoothed(asked, recipe)
    axes = inputs.spatial_axes(network.image_input, found[0].cam.ndim - 1)
    size = tuple(feeds[network.image_input.name].shape[k] for k in axes)
    level = levels(network.score, rows, results) if network.is_by_level else None
    drawing = Drawing(size, recipe.fusion, level)
    drawn, scale = drawing.heatmap([layer.cam for layer in found])
    said = (*said, *notes.of_places(kinds(rows), found), *notes.blank(is_blank(drawn), found, recipe.name))
    return Maps(evaluation, results, rows, drawn, tuple(found), scale=scale, drawing=drawing, notes=said)


def attributions(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe) -> Maps:
    """Of the input."""
    method, start = recipe.method, network.entrance
    if start.note:
        attribution.check_floats(method, start.note)
    added = network.biases if method in attribution.LAYERED else ()
    names = tuple(dict.fromkeys([start.name, *(bias.name for bias, _ in added)]))
    backward = attribution.BACKWARD.get(method, "gradient")
    evaluation = network.evaluation(names, backward + " counterfactual" * recipe.counterfactual)
    space = input_space(network.image_input)
    question = Question(evaluation, feeds, wanted, network.image_input.name, start.name, space, added)
    with _naming_what_applies(network):
        answer = ANSWERS[method](question, recipe)
    raw = attribution.in_space(method, answer.attribution, space, recipe.signed)
    gating = Rectifiers(**asdict(evaluation.gating)) if method in attribution.BACKWARD else None
    said = [start.note, *answer.notes, *notes.no_gradient(is_blank(raw), gating), *notes.gated(gating)]
    return Maps(
        evaluation,
        answer.results,
        answer.rows,
        normalise(raw),
        attribution=answer.attribution,
        attributed=start.name,
        scale=_peak(raw),
        space=space,
        notes=tuple(filter(None, said)),
        rectifiers=gating,
    )


def guided(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe) -> Maps:
    """The heatmap of a cam times guided backpropagation, for the classes that the cam explains."""
    where = cams(network, feeds, wanted, replace(recipe, method=methods.GUIDED[recipe.method], signed=False))
    classes = frozen(where.rows, len(feeds[network.image_input.name]))
    edges = attributions(network, feeds, classes, replace(recipe, method="guided-backprop"))
    assert edges.attribution is not None
    product = attribution.guided(where.heatmap, edges.attribution, edges.space)
    raw = attribution.in_space(recipe.method, product, edges.space, recipe.signed)
    return replace(
        edges,
        layers=where.layers,
        heatmap=normalise(raw),
        attribution=product,
        scale=_peak(raw),
        notes=tuple(dict.fromkeys([*where.notes, *edges.notes])),
    )


def _peak(raw: Array) -> Array:
    peak = np.abs(raw).reshape(len(raw), -1).max(axis=1)
    return np.where(peak == 0, 1, peak)


MAKERS: Mapping[str, Callable[[Network, Feeds, Wanted, Recipe], Maps]] = {
    **dict.fromkeys(cam.METHODS, cams),
    **dict.fromkeys(attribution.METHODS, attributions),
    **dict.fromkeys(methods.GUIDED, guided),
}


@contextmanager
def _naming_what_applies(network: Network) -> Iterator[None]:
    """Where there is no gradient back to the input, say which methods do without."""
    try:
        yield
    except (UnsupportedGradient, NoGradientPath) as error:
        applying = ", ".join(map(repr, _that_apply(network)))
        error.hint = f"a method that explains a layer behind it ({applying})"
        raise


def _that_apply(network: Network) -> Sequence[str]:
    try:
        _ = network.at_layers.whole
    except (UnsupportedGradient, NoGradientPath):
        return methods.WITHOUT_GRADIENT
    return tuple(name for name in cam.METHODS if name != "cam" or network.has_linear_head)


def _require_linear_head(network: Network) -> None:
    if network.has_linear_head:
        return
    raise MethodError(
        "method 'cam' is for networks that end in global average pooling and one linear layer",
        where=f"between {network.layers[0].name!r} and {network.score.value.name!r} there is more",
        hint="'gradcam', which needs no such head, or the layer that feeds the pooling",
        method="cam",
    )
