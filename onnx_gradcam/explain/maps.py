"""From images and targets to maps: one function for each kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace

import numpy as np

from onnx_gradcam.autodiff.relevance.entrance import standardised
from onnx_gradcam.autodiff.relevance.settings import RelevanceSettings
from onnx_gradcam.engine.checks import refusal
from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.finite import broken_images
from onnx_gradcam.engine.rows import hold_targets
from onnx_gradcam.errors import LayerError, MethodError, NoGradientPath, UnsupportedGradient
from onnx_gradcam.explain.concept_maps import concept_maps
from onnx_gradcam.explain.copy_maps import COPY_MAKERS
from onnx_gradcam.explain.drawn import Maps, MapTask, draw_cams
from onnx_gradcam.explain.input_maps import ATTRIBUTE, AttributionTask
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.second_pass import evaluation_of_differences
from onnx_gradcam.explain.smoothing import CamTask, Evaluate, compute_cams
from onnx_gradcam.explain.tail_maps import tail_maps
from onnx_gradcam.explain.token_maps import token_maps
from onnx_gradcam.graph.flow import FirstFloat
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.copies import SMOOTHING_COPIES
from onnx_gradcam.methods.differences import DIFFERENCE_METHODS
from onnx_gradcam.methods.factorization import CONCEPT_METHODS
from onnx_gradcam.methods.integration import moving_inputs
from onnx_gradcam.methods.perturbation.table import TAIL_METHODS
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.relevance import RELEVANCE_METHODS, settings_of
from onnx_gradcam.methods.tokens import TOKEN_METHODS
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import notes
from onnx_gradcam.results.drawing import draw
from onnx_gradcam.results.records import Rectifiers


def make_maps(task: MapTask, ahead: RunResult | None = None) -> Maps:
    """Return the maps of a recipe, drawn in a frame.

    Args:
        task: what they are made of.
        ahead: what the model gives for its images and targets, where it has been run; only for ``is_one_run``.

    Raises:
        OnnxGradcamError: as ``Explainer.explain``.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        maps = MAKERS[task.recipe.method](task) if ahead is None else layer_maps(task, lambda *_: ahead)
    _refuse_overflow(maps)
    return maps


def _refuse_overflow(maps: Maps) -> None:
    """Raise ``NotFinite`` for maps that overflow although activations and gradients do not: they are float32."""
    arrays = {layer.name: layer.cam for layer in maps.layers}
    if maps.attribution is not None:
        arrays[maps.attributed] = maps.attribution
    for name, array in arrays.items():
        if broken := broken_images(array, len(maps.rows)):
            images = list(dict.fromkeys(maps.rows[number].image for number in broken))
            hint = "another method, or a layer with smaller numbers (--layer NAME)"
            raise refusal(f"the map at {name!r} overflows float32", images, "", hint, name)


def is_one_run(recipe: Recipe) -> bool:
    """Tell whether a method makes its maps of one run of the model, without copies of the input."""
    is_smoothed = recipe.method in cam.NEEDS_NOISE or any(name in SMOOTHING_COPIES for name in recipe.smooth)
    return recipe.method in cam.CAMS and not is_smoothed


def evaluation_at_layers(network: Network, recipe: Recipe) -> Evaluation:
    """Return what evaluates the network at its target layers, with all that a cam method reads there."""
    return network.evaluation(network.layer_names, "curvature" if recipe.method in cam.NEEDS_CURVATURE else "gradient")


def layer_maps(task: MapTask, evaluate: Evaluate | None = None) -> Maps:
    """Return the maps of a method that makes a cam of each target layer.

    The network is evaluated by ``evaluate``; None: by its own sessions.
    """
    network, feeds, recipe = task.network, task.feeds, task.recipe
    if recipe.method == "cam":
        _require_linear_head(network)
    evaluation = evaluation_at_layers(network, recipe)
    layers, noise = network.layers_at(feeds), methods.noise_of(recipe)
    of_cams = CamTask(
        evaluate or evaluation.evaluate, layers, feeds, task.targets, network.image_input, task.shared, noise
    )
    return draw_cams(task, evaluation, compute_cams(of_cams, recipe))


def attribution_maps(task: MapTask) -> Maps:
    """Return the maps of a method that attributes the score to the input."""
    network, feeds, recipe, shared = task.network, task.feeds, task.recipe, task.shared
    method, start = recipe.method, _entrance_of(network, recipe)
    if network.entrance.note:
        attribution.check_floats(method, network.entrance.note)
    biases = network.biases if method in attribution.BIAS_METHODS else ()
    moving = _moving_inputs(network, recipe, shared) if method in attribution.NEEDS_FLOATS else ()
    names = tuple(dict.fromkeys([start.name, *(bias.name for bias, _ in biases), *moving]))
    evaluation, at_baseline = _evaluation_of(network, recipe, names, moving)
    space = inputs.input_space(network.image_input)
    image = network.image_input.name
    of_input = AttributionTask(
        evaluation, feeds, task.targets, image, start.name, space, biases, moving, shared, at_baseline
    )
    with _name_methods_that_apply(network):
        attributions = ATTRIBUTE[method](of_input, recipe)
    views = inputs.folded_views(network.image_input, feeds[image].shape) or 1
    of_rows, of_space = attributions.attribution, space
    if views > 1:
        of_rows, of_space = of_rows.reshape(-1, *of_rows.shape[2:]), tuple(axis - 1 for axis in space)
        attributions = attributions.for_each_view(views)
    raw = attribution.reduce_to_space(method, of_rows, of_space, recipe.signed)
    gating = Rectifiers(**asdict(evaluation.gating)) if method in attribution.GATED_METHODS else None
    frame = replace(task.frame, size=raw.shape[1:], views=views)
    heatmap, scale, blank = draw(frame, [raw])
    sentences = [start.note, *attributions.notes, *notes.blank_attributions(blank, gating), *notes.left_alone(gating)]
    return Maps(
        evaluation,
        attributions.results,
        attributions.rows,
        frame,
        heatmap,
        scale,
        blank,
        attribution=attributions.attribution,
        attributed=start.name,
        rectifiers=gating,
        completeness=attributions.completeness,
        notes=tuple(filter(None, sentences)),
        cautions=attributions.cautions,
    )


def _entrance_of(network: Network, recipe: Recipe) -> FirstFloat:
    """Return the value that an attribution is of: the entrance of the network, for relevance behind its scaling."""
    start = network.entrance
    if recipe.method not in RELEVANCE_METHODS:
        return start
    value = values_by_name(network.scored_model.graph)[start.name]
    scaled = standardised(value)
    node = scaled.producer()
    if scaled is value or node is None:
        return start
    name = scaled.name or ""
    return FirstFloat(name, f"relevance is that of {name!r}, as which {node.op_type} scales the numbers of the input")


def _evaluation_of(
    network: Network, recipe: Recipe, names: tuple[str, ...], moving: tuple[str, ...]
) -> tuple[Evaluation, Mapping[str, str]]:
    """Return what evaluates an attribution, and the inputs that take baselines, by those that move."""
    if recipe.method in DIFFERENCE_METHODS:
        return evaluation_of_differences(network, moving)
    return network.evaluation(names, _backward_of(recipe)), {}


def _backward_of(recipe: Recipe) -> str | RelevanceSettings:
    """Return the backward pass that an attribution needs, as ``Network.evaluation`` takes it."""
    if recipe.method in RELEVANCE_METHODS:
        return RelevanceSettings(**settings_of(**recipe.options))
    return methods.backward_of(recipe)


def _moving_inputs(network: Network, recipe: Recipe, shared: Sequence[str]) -> tuple[str, ...]:
    candidates = [name for name in network.differentiable_inputs if name not in shared]
    image = network.image_input.name
    return moving_inputs(recipe.options.get("baseline", 0.0), list(dict.fromkeys([image, *candidates])), image)


def guided_maps(task: MapTask) -> Maps:
    """Return the heatmap of a cam times guided backpropagation, for the targets that the cam explains."""
    network, recipe = task.network, task.recipe
    of_cam = replace(recipe, method=methods.GUIDED_CAMS[recipe.method], signed=False)
    cam_maps = layer_maps(replace(task, recipe=of_cam, frame=replace(task.frame, geometry=None)))
    if cam_maps.frame.views > 1:
        name, views = cam_maps.layers[0].name, cam_maps.frame.views
        raise MethodError(
            f"method {recipe.method!r} draws one map for each image; {name!r} has one for each of its {views} views",
            hint=f"the two apart: {of_cam.method!r}, and 'guided-backprop'",
            method=recipe.method,
        )
    if not cam_maps.frame.space:
        raise MethodError(
            f"method {recipe.method!r} multiplies numbers of the input with the map at the same place; the input "
            f"{network.image_input.name!r} has no axes for the map of {cam_maps.layers[0].name!r}",
            hint=f"the two apart: {of_cam.method!r}, and 'guided-backprop'",
            method=recipe.method,
        )
    same_targets = hold_targets(cam_maps.rows, len(task.x))
    edges = attribution_maps(replace(task, targets=same_targets, recipe=replace(recipe, method="guided-backprop")))
    assert edges.attribution is not None
    space = inputs.input_space(network.image_input)
    product = attribution.guided(cam_maps.heatmap, edges.attribution, space)
    raw = attribution.reduce_to_space(recipe.method, product, space, recipe.signed)
    heatmap, scale, blank = draw(edges.frame, [raw])
    numbered = zip(edges.rows, cam_maps.rows, strict=True)
    return replace(
        edges,
        rows=tuple(replace(row, number=of_cam.number) for row, of_cam in numbered),
        heatmap=heatmap,
        scale=scale,
        is_blank=blank,
        layers=cam_maps.layers,
        attribution=product,
        cautions=cam_maps.cautions,
        notes=tuple(dict.fromkeys([*cam_maps.notes, *edges.notes])),
    )


MAKERS: Mapping[str, Callable[[MapTask], Maps]] = {
    **dict.fromkeys(cam.CAMS, layer_maps),
    **dict.fromkeys(attribution.ATTRIBUTIONS, attribution_maps),
    **dict.fromkeys(methods.GUIDED_CAMS, guided_maps),
    **dict.fromkeys(TAIL_METHODS, tail_maps),
    **COPY_MAKERS,
    **dict.fromkeys(TOKEN_METHODS, token_maps),
    **dict.fromkeys(CONCEPT_METHODS, concept_maps),
}


@contextmanager
def _name_methods_that_apply(network: Network) -> Iterator[None]:
    """Add to an error of the backward pass to the input which methods work on this network."""
    try:
        yield
    except (UnsupportedGradient, NoGradientPath) as error:
        with suppress(LayerError):  # without a layer there is no such method
            names = ", ".join(map(repr, _methods_that_apply(network)))
            error.hint = f"a method that explains a layer behind it ({names})"
        raise


def _methods_that_apply(network: Network) -> Sequence[str]:
    try:
        _ = network.at_layers.whole
    except (UnsupportedGradient, NoGradientPath):
        return methods.WITHOUT_GRADIENT
    return tuple(name for name in cam.CAMS if name != "cam" or network.has_linear_head)


def _require_linear_head(network: Network) -> None:
    if network.has_linear_head:
        return
    raise MethodError(
        "method 'cam' is for networks that end in global average pooling and one linear layer",
        where=f"between {network.layers[0].name!r} and {network.score.name!r} there is more",
        hint="'gradcam', which needs no such head, or the layer that feeds the pooling",
        method="cam",
    )
