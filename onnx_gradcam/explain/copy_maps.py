"""Maps of methods that change the input and run the whole model: of the input itself, and of channels that mask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.rows import each_view
from onnx_gradcam.engine.rows import score as score_of_rows
from onnx_gradcam.errors import MethodError
from onnx_gradcam.explain.backward_passes import TAIL
from onnx_gradcam.explain.boxes_of_copies import box_scoring
from onnx_gradcam.explain.drawn import Maps, MapTask, draw_cams
from onnx_gradcam.explain.image_form import ImageForm
from onnx_gradcam.explain.layer_maps import count_views
from onnx_gradcam.explain.scored_copies import Score, counter, perturb, run_forward, scoring, values_of_image
from onnx_gradcam.explain.smoothing import Cams
from onnx_gradcam.explain.tail_maps import result_of_layer
from onnx_gradcam.methods.arrays import as_float32
from onnx_gradcam.methods.attribution import put_on_axes
from onnx_gradcam.methods.cam import require_space
from onnx_gradcam.methods.perturbation.records import PerturbedMaps
from onnx_gradcam.methods.perturbation.table import D_RISE, INPUT_METHODS, MASK_METHODS
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import notes
from onnx_gradcam.results.drawing import draw

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CopiedImages:
    """Images that are run as changed copies, channels first.

    Attributes:
        task: what maps are made of.
        evaluation: what runs the model.
        run: what it gave for the images as they are.
        form: how images lie in the model's input.
    """

    task: MapTask
    evaluation: Evaluation
    run: RunResult
    form: ImageForm

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the images of which something is explained."""
        return sorted({row.image for row in self.run.rows})

    @property
    def x(self) -> Array:
        """Return the images, (N, C, *space)."""
        return self.form.arranged(self.task.x)

    def perturbed(self, image: int, changed: Sequence[Array], tick: Callable[[int], None]) -> PerturbedMaps:
        """Return the maps of the rows of one image; ``changed``: the arrays that the method reads before the scores."""
        numbers = [k for k, row in enumerate(self.run.rows) if row.image == image]
        rows = [self.run.rows[k] for k in numbers]
        scores = score_of_rows(self.evaluation.score, rows, self.run.results).astype(np.float64)
        if self.task.recipe.method == D_RISE:
            score = box_scoring(self.evaluation, self.task, self.run, rows, tick)
        else:
            name = self.task.network.image_input.name
            values = values_of_image(self.evaluation, self.task, self.run, image, rows, [name])
            score = scoring(self.evaluation, name, rows, values, tick)
        return perturb(self.task.recipe, changed, scores, _of_form(score, self.form))


def _of_form(score: Score, form: ImageForm) -> Score:
    """Return a scoring function of copies (B, C, *space) from one of copies as they are fed."""
    return lambda copies: score(form.as_fed(copies))


def copy_maps(task: MapTask) -> Maps:
    """Return the maps of a method that changes the input: one value for each point of space."""
    space = inputs.input_space(task.network.image_input)
    images = _copied(task, (), space)
    method, x = INPUT_METHODS[task.recipe.method], images.x
    tick = counter(task.progress, len(images.numbers) * method.copies(x.shape[1:], task.recipe.options))
    parts = [images.perturbed(number, [x[number]], tick).maps for number in images.numbers]
    return _drawn(images, np.concatenate(parts).astype(np.float32), space)


def _drawn(images: CopiedImages, maps: Array, space: Sequence[int]) -> Maps:
    """Return the maps (R, *space) of the rows, drawn in the frame of the task: of each view of an image the same."""
    task, run, image_input = images.task, images.run, images.task.network.image_input
    views = inputs.folded_views(image_input, task.x.shape) or 1
    shape = (len(maps), *task.x.shape[1:])
    attribution = np.broadcast_to(put_on_axes(maps, space, len(shape)), shape)
    each = np.repeat(np.arange(len(maps)), views)
    raw = maps if task.recipe.signed else np.maximum(maps, 0)
    frame = replace(task.frame, size=raw.shape[1:], views=views)
    heatmap, scale, blank = draw(frame, [raw[each]])
    return Maps(
        images.evaluation,
        run.results,
        each_view(run.rows, views),
        frame,
        heatmap,
        scale,
        blank,
        attribution=attribution[each] if views > 1 else attribution,
        attributed=image_input.name,
        notes=tuple(notes.blank_copies(blank, task.recipe.name)),
    )


def mask_maps(task: MapTask) -> Maps:
    """Return the maps of a method that masks the input with the activation of each channel of the target layers."""
    network, recipe = task.network, task.recipe
    layers = network.layers_at(task.feeds)
    images = _copied(task, network.layer_names, inputs.input_space(network.image_input))
    if count_views(layers, images.run.results, network.image_input, task.x) > 1:
        raise MethodError(
            f"method {recipe.method!r} masks one image at a time; {layers[0].name!r} has one activation for each view",
            hint="a method of the input ('occlusion'), or one that reads gradients ('gradcam')",
            method=recipe.method,
        )
    activations = {layer.name: as_float32(layer.arrange(images.run.results[layer.name])) for layer in layers}
    forms = {name: _form_of_layer(task, name, activation) for name, activation in activations.items()}
    runs = [MASK_METHODS[recipe.method].copies(each.shape[1:], recipe.options) for each in activations.values()]
    tick = counter(task.progress, len(images.numbers) * sum(runs))
    parts: dict[str, list[PerturbedMaps]] = {}
    for name, activation in activations.items():
        of_layer = replace(images, form=forms[name])
        x = of_layer.x
        parts[name] = [of_layer.perturbed(n, [x[n], activation[n]], tick) for n in images.numbers]
    results = [
        result_of_layer(name, activation, parts[name], images.run, recipe) for name, activation in activations.items()
    ]
    return draw_cams(task, images.evaluation, Cams(images.run.results, images.run.rows, results, (), ()))


def _form_of_layer(task: MapTask, name: str, activation: Array) -> ImageForm:
    """Return how images lie in the input, with the axes along which the map of a layer lies as space.

    Raises:
        LayerError: the activation has no spatial axis.
        MethodError: the input has no axes for the map of the layer.
    """
    require_space(activation)
    spec = task.network.image_input
    axes = inputs.map_axes(spec, task.x.shape, activation.shape[2:])
    if axes is None:
        raise MethodError(
            f"method {task.recipe.method!r} masks the input with the activation of {name!r}, and the input "
            f"{spec.name!r} has no axes for it",
            hint="a method of the input ('occlusion'), or one that changes the layer ('ablationcam')",
            method=task.recipe.method,
        )
    return _form(task, axes)


def _copied(task: MapTask, layers: Sequence[str], space: tuple[int, ...]) -> CopiedImages:
    """Return the images of a task, and what the model gives for them; ``layers``: values that a run returns, too."""
    _refuse_mean_of_numbers(task)
    name = task.network.image_input.name
    evaluation = task.network.evaluation(tuple(dict.fromkeys([*layers, name])), TAIL)
    return CopiedImages(task, evaluation, run_forward(evaluation, task, (name,)), _form(task, space))


def _form(task: MapTask, space: tuple[int, ...]) -> ImageForm:
    return ImageForm(replace(task.network.image_input, shape=task.x.shape), space)


def _refuse_mean_of_numbers(task: MapTask) -> None:
    """Raise ``MethodError`` for the mean of an input whose numbers are no colours but the numbers of words."""
    spec = task.network.image_input
    if spec.dtype in ("int32", "int64") and isinstance(task.recipe.options.get("baseline", ""), str):
        raise MethodError(
            f"the input {spec.name!r} holds {spec.dtype} numbers, which have no mean colour",
            hint="the number that stands for nothing, such as that of padding: baseline=0 (--option baseline=0)",
            method=task.recipe.method,
            option="baseline",
        )


COPY_MAKERS: Mapping[str, Callable[[MapTask], Maps]] = {
    **dict.fromkeys(INPUT_METHODS, copy_maps),
    **dict.fromkeys(MASK_METHODS, mask_maps),
}
"""Method → what makes its maps."""
