"""From images and targets to maps: one function for each kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.checks import refusal
from onnx_gradcam.engine.evaluation import Evaluation, RunResult, Targets
from onnx_gradcam.engine.finite import broken_images
from onnx_gradcam.engine.rows import Row, hold_targets, kinds
from onnx_gradcam.engine.rows import level as levels
from onnx_gradcam.errors import MethodError, NoGradientPath, UnsupportedGradient
from onnx_gradcam.explain.input_maps import ATTRIBUTE, AttributionTask
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.reach import within_last_kernel
from onnx_gradcam.explain.smoothing import CamTask, Evaluate, compute_cams
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods import table as methods
from onnx_gradcam.methods.copies import SMOOTHING_COPIES
from onnx_gradcam.methods.integration import PATH_METHODS, moving_inputs
from onnx_gradcam.methods.recipe import ALL, Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import cautions, notes
from onnx_gradcam.results.drawing import draw
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Completeness, Rectifiers

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
        completeness: how far attributions add up to a difference of scores, for methods that promise it.
        notes: what the user should know.
        cautions: for each row a line of the method that must stand in its picture, "" for nothing; empty for none.
    """

    evaluation: Evaluation
    results: Mapping[str, Any]
    rows: tuple[Row, ...]
    frame: Frame
    heatmap: Array
    scale: Array
    is_blank: Array
    layers: tuple[LayerResult, ...] = ()
    attribution: Array | None = None
    attributed: str = ""
    rectifiers: Rectifiers | None = None
    completeness: Completeness | None = None
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def make_maps(
    network: Network, feeds: Feeds, targets: Targets, recipe: Recipe, frame: Frame, ahead: RunResult | None = None
) -> Maps:
    """Return the maps of a recipe, drawn in ``frame``; its size is filled in.

    Args:
        network: the model.
        feeds: arrays by input name, for N images.
        targets: for each image what is explained.
        recipe: the method.
        frame: where the maps are drawn.
        ahead: what the model gives for these images and targets, where it has been run; only for ``is_one_run``.

    Raises:
        OnnxGradcamError: as ``Explainer.explain``.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        if ahead is None:
            maps = MAKERS[recipe.method](network, feeds, targets, recipe, frame)
        else:
            maps = layer_maps(network, feeds, targets, recipe, frame, lambda *_: ahead)
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


def layer_maps(
    network: Network, feeds: Feeds, targets: Targets, recipe: Recipe, frame: Frame, evaluate: Evaluate | None = None
) -> Maps:
    """Return the maps of a method that makes a cam of each target layer.

    The network is evaluated by ``evaluate``; None: by its own sessions.
    """
    if recipe.method == "cam":
        _require_linear_head(network)
    evaluation = evaluation_at_layers(network, recipe)
    shared = inputs.inputs_without_batch(feeds, network.inputs, network.image_input)
    layers, noise = network.layers_at(feeds), methods.noise_of(recipe)
    task = CamTask(evaluate or evaluation.evaluate, layers, feeds, targets, network.image_input, shared, noise)
    cams = compute_cams(task, recipe)
    results, rows = cams.results, cams.rows
    grid, shape = cams.layers[0].cam.shape[1:], feeds[network.image_input.name].shape
    axes = inputs.map_axes(network.image_input, shape, grid)
    size = grid if axes is None else tuple(shape[k] for k in axes)
    level = levels(evaluation.score, rows, results) if network.is_by_level else None
    if network.is_summed or recipe.levels == ALL:
        level = np.full(len(rows), ALL_LEVELS)
    views = 1 + rows[-1].view
    space = () if axes is None else axes if views > 1 else frame.space
    frame = replace(frame, size=size, fusion=recipe.fusion, level=level, views=views, space=space)
    heatmap, scale, blank = draw(frame, [layer.cam for layer in cams.layers])
    is_within = within_last_kernel(network, cams.layers)
    sentences = (
        *cams.notes,
        *notes.own_grid(network.image_input.name, shape[1:], grid if axes is None else ()),
        *notes.within_last_kernel(is_within, network.is_automatic),
        *notes.loose_places(frozenset(kinds(rows)), cams.layers),
        *notes.blank_maps(blank, cams.layers, recipe.name),
    )
    return Maps(
        evaluation,
        results,
        rows,
        frame,
        heatmap,
        scale,
        blank,
        tuple(cams.layers),
        notes=sentences,
        cautions=cautions.joined(cams.cautions, cautions.within_last_kernel(is_within)),
    )


def attribution_maps(network: Network, feeds: Feeds, targets: Targets, recipe: Recipe, frame: Frame) -> Maps:
    """Return the maps of a method that attributes the score to the input."""
    method, start = recipe.method, network.entrance
    if start.note:
        attribution.check_floats(method, start.note)
    biases = network.biases if method in attribution.BIAS_METHODS else ()
    shared = inputs.inputs_without_batch(feeds, network.inputs, network.image_input)
    moving = _moving_inputs(network, recipe, shared) if method in PATH_METHODS else ()
    names = tuple(dict.fromkeys([start.name, *(bias.name for bias, _ in biases), *moving]))
    evaluation = network.evaluation(names, methods.backward_of(recipe))
    space = inputs.input_space(network.image_input)
    image = network.image_input.name
    task = AttributionTask(evaluation, feeds, targets, image, start.name, space, biases, moving, shared)
    with _name_methods_that_apply(network):
        attributions = ATTRIBUTE[method](task, recipe)
    views = inputs.folded_views(network.image_input, feeds[image].shape) or 1
    of_rows, of_space = attributions.attribution, space
    if views > 1:
        of_rows, of_space = of_rows.reshape(-1, *of_rows.shape[2:]), tuple(axis - 1 for axis in space)
        attributions = attributions.for_each_view(views)
    raw = attribution.reduce_to_space(method, of_rows, of_space, recipe.signed)
    gating = Rectifiers(**asdict(evaluation.gating)) if method in attribution.GATED_METHODS else None
    frame = replace(frame, size=raw.shape[1:], views=views)
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


def _moving_inputs(network: Network, recipe: Recipe, shared: Sequence[str]) -> tuple[str, ...]:
    candidates = [name for name in network.differentiable_inputs if name not in shared]
    image = network.image_input.name
    return moving_inputs(recipe.options.get("baseline", 0.0), list(dict.fromkeys([image, *candidates])), image)


def guided_maps(network: Network, feeds: Feeds, targets: Targets, recipe: Recipe, frame: Frame) -> Maps:
    """Return the heatmap of a cam times guided backpropagation, for the targets that the cam explains."""
    of_cam = replace(recipe, method=methods.GUIDED_CAMS[recipe.method], signed=False)
    cam_maps = layer_maps(network, feeds, targets, of_cam, replace(frame, geometry=None))
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
    same_targets = hold_targets(cam_maps.rows, len(feeds[network.image_input.name]))
    edges = attribution_maps(network, feeds, same_targets, replace(recipe, method="guided-backprop"), frame)
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


MAKERS: Mapping[str, Callable[[Network, Feeds, Targets, Recipe, Frame], Maps]] = {
    **dict.fromkeys(cam.CAMS, layer_maps),
    **dict.fromkeys(attribution.ATTRIBUTIONS, attribution_maps),
    **dict.fromkeys(methods.GUIDED_CAMS, guided_maps),
}


@contextmanager
def _name_methods_that_apply(network: Network) -> Iterator[None]:
    """Add to an error of the backward pass to the input which methods work on this network."""
    try:
        yield
    except (UnsupportedGradient, NoGradientPath) as error:
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
