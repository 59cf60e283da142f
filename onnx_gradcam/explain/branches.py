"""Targets of several branches of a detector in one call: each is explained at the layers of its own branch.

The class scores, the objectness and the boxes of a detector often come from convolutions that have nothing to do with
each other. The rows of all branches stand in one result, over the layers of all. A score does not depend on the layers
of another branch: its gradient there is 0, and so are its weights and its cam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.engine.evaluation import RunResult, Targets
from onnx_gradcam.engine.rows import Row
from onnx_gradcam.errors import MethodError, TargetError
from onnx_gradcam.explain.drawn import Maps, MapTask
from onnx_gradcam.explain.maps import make_maps
from onnx_gradcam.explain.network import Network
from onnx_gradcam.methods.attribution import ATTRIBUTIONS
from onnx_gradcam.methods.perturbation.table import INPUT_METHODS
from onnx_gradcam.methods.recipe import ALL, Recipe
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.targets import branches_of

Array = npt.NDArray[Any]


def is_over_levels(network: Network, recipe: Recipe) -> bool:
    """Tell whether a class is explained over all levels of a detector.

    Raises:
        MethodError: that is asked for, and the model has no several levels, or layers were named.
    """
    if recipe.levels != ALL:
        return False
    if not network.has_levels:
        raise MethodError(
            "levels 'all' is for detectors of several levels, each with its own layer",
            where=f"score {network.score.name!r}",
            hint="levels 'own'; named layers are fused as fusion (--fusion) says",
            levels=recipe.levels,
        )
    return True


def networks_of(network: Network, targets: Targets, recipe: Recipe) -> tuple[Network, ...]:
    """Return the network on each branch that the targets read; one for methods of the input, and for named layers.

    Raises:
        TargetError: targets of several branches, where a branch has no layer for each of its levels.
    """
    branches = branches_of(targets)
    networks = tuple(dict.fromkeys(network.on_branch(branch) for branch in branches))
    if len(networks) == 1 or recipe.method in {*ATTRIBUTIONS, *INPUT_METHODS}:
        return networks[:1]
    if not all(each.is_by_level for each in networks):
        raise TargetError(
            f"targets of different branches of a detector: {', '.join(branches)}",
            where="the levels of one of them have no layers of their own",
            hint="one call for class scores, one for objectness, one for the overlap of boxes",
            target=targets,
        )
    return networks


def make_branch_maps(networks: Sequence[Network], task: MapTask, ahead: RunResult | None = None) -> Maps:
    """Return the maps of a recipe, in the order of the targets; ``networks``: what ``networks_of`` returned.

    For the others, and for what is raised, see ``make_maps``.
    """
    if len(networks) == 1:
        return make_maps(task, ahead)
    return _merge([_part(replace(task, network=network)) for network in networks])


@dataclass(frozen=True, eq=False)
class _Part:
    """The maps of one branch, and for each of its rows the image and the number of its target among those of it."""

    maps: Maps
    places: list[tuple[int, int]]


def _part(task: MapTask) -> _Part:
    branch, targets = task.network.branch, task.targets
    numbers = [[k for k, target in enumerate(several) if target.kind.branch == branch] for several in targets]
    own = [tuple(several[k] for k in of_image) for several, of_image in zip(targets, numbers, strict=True)]
    maps = make_maps(replace(task, targets=own))
    return _Part(maps, [(row.image, numbers[row.image][row.number]) for row in maps.rows])


def _merge(parts: Sequence[_Part]) -> Maps:
    """Return the maps of all parts, in the order of their places."""
    places = [place for part in parts for place in part.places]
    order = np.array(sorted(range(len(places)), key=places.__getitem__))
    every = [part.maps for part in parts]

    def in_order(arrays: Sequence[Array]) -> Array:
        return np.asarray(np.concatenate(arrays)[order])

    first = every[0]
    rows = [row for maps in every for row in maps.rows]
    starts = np.cumsum([0, *(len(maps.layers) for maps in every)])
    level = in_order([_shifted(maps.frame.level, start) for maps, start in zip(every, starts, strict=False)])
    attributions = [maps.attribution for maps in every if maps.attribution is not None]
    return replace(
        first,
        results={name: value for maps in every for name, value in maps.results.items()},
        rows=tuple(rows[k] for k in order),
        frame=replace(first.frame, level=level),
        heatmap=in_order([maps.heatmap for maps in every]),
        scale=in_order([maps.scale for maps in every]),
        is_blank=in_order([maps.is_blank for maps in every]),
        layers=tuple(_over_all(maps, layer, every, order) for maps in every for layer in maps.layers),
        attribution=in_order(attributions) if attributions else None,
        cautions=tuple(in_order([np.array(maps.cautions or [""] * len(maps.rows), object) for maps in every])),
        notes=tuple(dict.fromkeys(note for maps in every for note in (*maps.evaluation.warnings, *maps.notes))),
    )


def _shifted(level: Array | None, start: int) -> Array:
    """Return the levels of a branch as they are counted where other branches stand before it; −1 stays: all levels."""
    assert level is not None
    return np.where(level < 0, level, level + start)


def _over_all(maps: Maps, layer: LayerResult, every: Sequence[Maps], order: Array) -> LayerResult:
    """Return the result at a layer of one branch for the rows of all branches."""

    def over_all(own: Array) -> Array:
        return np.concatenate(
            [own if each is maps else np.zeros((len(each.rows), *own.shape[1:]), own.dtype) for each in every]
        )[order]

    by_image = {row.image: layer.activation[k] for k, row in enumerate(maps.rows)}
    zero = np.zeros_like(layer.activation[0])
    rows: list[Row] = [row for each in every for row in each.rows]
    return LayerResult(
        layer.name,
        np.stack([by_image.get(rows[k].image, zero) for k in order]),
        None if layer.gradient is None else over_all(layer.gradient),
        None if layer.weights is None else over_all(layer.weights),
        over_all(layer.cam),
    )
