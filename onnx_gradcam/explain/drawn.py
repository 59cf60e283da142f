"""Hold what makers of maps get and what they return: the maps of R rows, drawn in a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import Evaluation, Targets
from onnx_gradcam.engine.rows import Row, kinds
from onnx_gradcam.engine.rows import level as levels
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.reach import within_last_kernel
from onnx_gradcam.explain.smoothing import Cams
from onnx_gradcam.methods.recipe import ALL, Recipe
from onnx_gradcam.photos import inputs
from onnx_gradcam.results import cautions, notes
from onnx_gradcam.results.drawing import draw
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Completeness, Rectifiers

Array = npt.NDArray[Any]
Feeds = dict[str, np.ndarray]
Progress = Callable[[int, int], None]
"""Is called with how many runs of a model are done, and how many there are in all."""


def tell_nobody(done: int, total: int) -> None:
    """Drop what is said of the progress."""


@dataclass(frozen=True, eq=False)
class MapTask:
    """The network, images, targets and recipe of which maps are made.

    Attributes:
        network: the model.
        feeds: arrays by input name, for N images.
        targets: for each image what is explained.
        recipe: the method.
        frame: where the maps are drawn; its size is filled in.
        progress: is told how far a method is that runs the model many times.
    """

    network: Network
    feeds: Feeds
    targets: Targets
    recipe: Recipe
    frame: Frame
    progress: Progress = tell_nobody

    @property
    def x(self) -> Array:
        """Return the images, (N, …)."""
        return self.feeds[self.network.image_input.name]

    @property
    def shared(self) -> Sequence[str]:
        """Return the names of the inputs without a batch axis."""
        return inputs.inputs_without_batch(self.feeds, self.network.inputs, self.network.image_input)


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a method for R rows, one for each (image, target).

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


def draw_cams(task: MapTask, evaluation: Evaluation, cams: Cams) -> Maps:
    """Return the maps of the cams of the target layers, drawn in the frame of a task."""
    network, recipe = task.network, task.recipe
    results, rows = cams.results, cams.rows
    grid, shape = cams.layers[0].cam.shape[1:], task.x.shape
    axes = inputs.map_axes(network.image_input, shape, grid)
    size = grid if axes is None else tuple(shape[k] for k in axes)
    level = levels(evaluation.score, rows, results) if network.is_by_level else None
    if network.is_summed or recipe.levels == ALL:
        level = np.full(len(rows), ALL_LEVELS)
    views = 1 + rows[-1].view
    space = () if axes is None else axes if views > 1 else task.frame.space
    frame = replace(task.frame, size=size, fusion=recipe.fusion, level=level, views=views, space=space)
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
