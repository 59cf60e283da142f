"""The figures of an evaluation: of each map, and of each metric over all maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_gradcam.metrics.interval import Mean


@dataclass(frozen=True)
class EvaluatedRow:
    """The figures of one map.

    Attributes:
        image: the photo.
        label: what is explained.
        class_index: its class.
        probability: what the model gives it; the score where it gives no probabilities.
        rank: how many classes the model puts before it; None where nothing says that it is the true one.
        cluster: what the photo belongs to.
        figures: of each metric the figure of the map; None where it cannot be measured on this image.
        chance: the figures of the map that stands for chance.
        random_weights: the figures of the map of the same network with random weights.
        ceiling: the figures of a map that knows where the object lies, on the grid of the method.
        group: the group that figures are told apart by; None: none.
    """

    image: str
    label: str
    class_index: int
    probability: float
    rank: int | None
    cluster: str
    figures: Mapping[str, float | None]
    chance: Mapping[str, float | None]
    random_weights: Mapping[str, float | None]
    ceiling: Mapping[str, float | None]
    group: str | None = None


@dataclass(frozen=True)
class MetricPart:
    """A metric over some of the maps.

    Attributes:
        label: the class whose maps were taken; None: of all classes.
        group: the group whose maps were taken; None: of all groups.
        map, chance, random_weights: as in ``MetricResult``.
    """

    label: str | None
    group: str | None
    map: Mean
    chance: Mean | None
    random_weights: Mean | None


@dataclass(frozen=True)
class MetricResult:
    """A metric over all images.

    Attributes:
        name: the metric.
        formula, source: what is measured, and where it comes from.
        better: "higher", "lower" or "neither".
        map: the mean over the maps, with its interval.
        chance: the same of the map that stands for chance; None where no map does.
        random_weights: the same of the maps of the network with random weights; None where these say nothing.
        ceiling: the same of maps that know where the object lies, on the grid of the method: how far a better method
            could come on this layer. None for metrics that do not ask where the object lies.
        curves: of a metric that is an area the mean curve of each: "shares", "map", "chance", "random_weights".
        parts: the same by class, by group, and by both together, where the data have groups or the evidence is shared
            out among regions.
    """

    name: str
    formula: str
    source: str
    better: str
    map: Mean
    chance: Mean | None
    random_weights: Mean | None
    ceiling: Mean | None = None
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parts: tuple[MetricPart, ...] = ()
