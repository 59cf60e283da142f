"""From feeds and classes to maps: one function for each kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import Evaluation, Wanted
from onnx_gradcam.engine.rows import Rows, kinds
from onnx_gradcam.engine.rows import level as levels
from onnx_gradcam.errors import MethodError, NoGradientPath, UnsupportedGradient
from onnx_gradcam.explain import smoothing
from onnx_gradcam.explain.input_maps import ANSWERS, Question
from onnx_gradcam.explain.network import Network
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.copies import frozen
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import notes
from onnx_gradcam.results.drawing import draw
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Rectifiers

Array = npt.NDArray[Any]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Maps:
    """What a method gave for R rows, one for each (image, target).

    Attributes:
        evaluation: what was run.
        results: what the forward pass gave, one entry per image.
        rows: for each row its image and its target.
        frame: where the maps are drawn.
        heatmap: (R, *size) float32, drawn in the frame, in [−1, 1].
        scale: (R,) float32, the value that 1 in the heatmap stands for.
        is_blank: (R,) bool, the map is 0 everywhere.
        layers: the results at the target layers; empty for methods of the input.
        attribution: (R, *input shape) of the value called ``attributed``; None for cams.
        rectifiers: what the backward pass gated, for methods that gate.
        notes: what the user should know.
    """

    evaluation: Evaluation
    results: dict[str, Any]
    rows: Rows
    frame: Frame
    heatmap: Array
    scale: Array
    is_blank: Array
    layers: tuple[LayerResult, ...] = ()
    attribution: Array | None = None
    attributed: str = ""
    rectifiers: Rectifiers | None = None
    notes: tuple[str, ...] = ()


def make_maps(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe, frame: Frame) -> Maps:
    """Return the maps of a recipe, drawn in ``frame``, whose size is settled here.

    Raises what ``Explainer.explain`` raises.
    """
    return MAKERS[recipe.method](network, feeds, wanted, recipe, frame)


def cams(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe, frame: Frame) -> Maps:
    """Return the cams of the target layers."""
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
    frame = replace(frame, size=size, fusion=recipe.fusion, level=level)
    heatmap, scale, blank = draw(frame, [layer.cam for layer in found])
    said = (*said, *notes.of_places(kinds(rows), found), *notes.blank(blank, found, recipe.name))
    return Maps(evaluation, results, rows, frame, heatmap, scale, blank, tuple(found), notes=said)


def attributions(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe, frame: Frame) -> Maps:
    """Return attributions in input space."""
    method, start = recipe.method, network.entrance
    if start.note:
        attribution.check_floats(method, start.note)
    added = network.biases if method in attribution.LAYERED else ()
    names = tuple(dict.fromkeys([start.name, *(bias.name for bias, _ in added)]))
    backward = attribution.BACKWARD.get(method, "gradient")
    evaluation = network.evaluation(names, backward + " counterfactual" * recipe.counterfactual)
    space = inputs.input_space(network.image_input)
    question = Question(evaluation, feeds, wanted, network.image_input.name, start.name, space, added)
    with _naming_what_applies(network):
        answer = ANSWERS[method](question, recipe)
    raw = attribution.in_space(method, answer.attribution, space, recipe.signed)
    gating = Rectifiers(**asdict(evaluation.gating)) if method in attribution.BACKWARD else None
    frame = replace(frame, size=raw.shape[1:])
    heatmap, scale, blank = draw(frame, [raw])
    said = [start.note, *answer.notes, *notes.no_gradient(blank, gating), *notes.gated(gating)]
    return Maps(
        evaluation,
        answer.results,
        answer.rows,
        frame,
        heatmap,
        scale,
        blank,
        attribution=answer.attribution,
        attributed=start.name,
        rectifiers=gating,
        notes=tuple(filter(None, said)),
    )


def guided(network: Network, feeds: Feeds, wanted: Wanted, recipe: Recipe, frame: Frame) -> Maps:
    """Return the heatmap of a cam times guided backpropagation, for the targets that the cam explains."""
    of_cam = replace(recipe, method=methods.GUIDED[recipe.method], signed=False)
    where = cams(network, feeds, wanted, of_cam, replace(frame, geometry=None))
    classes = frozen(where.rows, len(feeds[network.image_input.name]))
    edges = attributions(network, feeds, classes, replace(recipe, method="guided-backprop"), frame)
    assert edges.attribution is not None
    space = inputs.input_space(network.image_input)
    product = attribution.guided(where.heatmap, edges.attribution, space)
    raw = attribution.in_space(recipe.method, product, space, recipe.signed)
    heatmap, scale, blank = draw(edges.frame, [raw])
    return replace(
        edges,
        heatmap=heatmap,
        scale=scale,
        is_blank=blank,
        layers=where.layers,
        attribution=product,
        notes=tuple(dict.fromkeys([*where.notes, *edges.notes])),
    )


MAKERS: Mapping[str, Callable[[Network, Feeds, Wanted, Recipe, Frame], Maps]] = {
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
