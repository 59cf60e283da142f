"""What metrics need of one map, each made when the first of them asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.copies.baselines import blurred, mean_colour
from onnx_gradcam.copies.covering import occlude
from onnx_gradcam.explain.probing import ImageProbe
from onnx_gradcam.methods.heatmap import normalise, upsample

Array = npt.NDArray[Any]
NO_SUPPLIES: Mapping[str, Any] = MappingProxyType({})


class Supplies(Mapping[str, Any]):
    """Values by name that are made once, when they are first read; what has no maker stands in ``others``."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]], others: Mapping[str, Any] = NO_SUPPLIES) -> None:
        self._makers, self._others, self._made = dict(makers), others, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._makers:
            return self._others[name]
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers or name in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._makers, *self._others]))

    def __len__(self) -> int:
        return len(list(iter(self)))


@dataclass(frozen=True, eq=False)
class MapSubject:
    """An image and the class that is explained of it.

    Attributes:
        x: (C, *space), floating-point.
        class_index: the class.
        rank: how many classes the model puts before it; None where nothing says that it is the true one.
        region: where its object lies, (*space) bool; None: not known, or beside what the model sees.
        boxes: the boxes of its objects, (K, 4) in pixels of the input; None as for ``region``.
        regions: parts of the image by name, (*space) bool each; empty: not known.
        others: the classes of the other objects on the image.
        random_class: another class, drawn at random; None where there is none.
    """

    x: Array
    class_index: int
    rank: int | None
    region: Array | None
    boxes: Array | None
    regions: Mapping[str, Array]
    others: tuple[int, ...]
    random_class: int | None


def of_image(subject: MapSubject, probe: ImageProbe) -> Supplies:
    """Return what does not depend on the map: the image, the scores of its copies, where its object lies."""
    x, index = subject.x, subject.class_index

    def score(copies: Array) -> Array:
        return probe.scores(copies)[0][:, index]

    def probability(copies: Array) -> Array:
        return probe.scores(copies)[1][:, index]

    makers: dict[str, Callable[[], Any]] = {
        "x": lambda: x,
        "score": lambda: score,
        "probability": lambda: probability,
        "baseline": lambda: mean_colour(x),
        "blurred": lambda: blurred(x),
        "occluded": lambda: occlude(x, score, mean_colour(x)),
    }
    known = {"region": subject.region, "boxes": subject.boxes, "rank": subject.rank, "regions": subject.regions or None}
    return Supplies({**makers, **{name: _constant(value) for name, value in known.items() if value is not None}})


def of_map(
    subject: MapSubject,
    heatmap: Array,
    probe: ImageProbe,
    randomised: Mapping[str, Callable[[], Any]],
    image: Supplies,
) -> Supplies:
    """Return what depends on the map and on the network that made it, and what there is of its image.

    Args:
        subject: the image.
        heatmap: (*space), the map.
        probe: the network that made it.
        randomised: the maps of networks that lost weights, by the names under which metrics need them.
        image: what ``of_image`` returned.
    """
    x, index = subject.x, subject.class_index

    def maps_of(classes: list[int]) -> Array:
        return probe.maps(np.stack([x] * len(classes)), np.array(classes))

    makers: dict[str, Callable[[], Any]] = {
        "heatmap": lambda: heatmap,
        "explain": lambda: lambda copies: probe.maps(copies, np.full(len(copies), index)),
        "gradient": lambda: lambda copies: probe.gradients(copies, index),
    }
    if subject.others:
        makers["maps_of_others"] = lambda: maps_of(list(subject.others))
    if (other := subject.random_class) is not None:
        makers["map_of_random_class"] = lambda: maps_of([other])[0]
    return Supplies({**makers, **randomised}, image)


def of_chance(heatmap: Array, image: Supplies) -> Supplies:
    """Return what there is of a map that no network made, and of its image."""
    return Supplies({"heatmap": lambda: heatmap}, image)


def chance_map(kind: str, space: tuple[int, ...]) -> Array:
    """Return the map that stands for chance: the same everywhere, or a Gaussian of σ = ¼ of each side at the centre."""
    if kind == "flat":
        return np.ones(space)
    lines = [np.exp(-8 * ((np.arange(n) + 0.5) / n - 0.5) ** 2) for n in space]
    out = lines[0]
    for line in lines[1:]:
        out = out[..., None] * line
    return np.asarray(out)


def perfect_map(region: Array, grid: tuple[int, ...]) -> Array:
    """Return the map that knows the region and has no finer grid than that of the method, (*space), from 0 to 1.

    Each cell of the grid holds the share of the region in it; it is enlarged as maps are.

    Args:
        region: (*space) bool.
        grid: the extents of the grid.
    """
    cells = region.astype(np.float64)
    for extent, new in zip(region.shape, grid, strict=True):
        ends = np.arange(new + 1) * (extent / new)
        at = np.arange(extent)[:, None]
        shares = np.clip(np.minimum(at + 1, ends[1:]) - np.maximum(at, ends[:-1]), 0, None) * (new / extent)
        cells = np.tensordot(cells, shares, axes=(0, 0))  # the new axis comes last: a full round
    return np.asarray(normalise(upsample(cells[None], region.shape))[0])


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value
