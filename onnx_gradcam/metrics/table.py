"""Every metric by its name. The first line of the docstring of a metric is its formula and its source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from onnx_gradcam.errors import MetricError, nearest
from onnx_gradcam.metrics.distances import boundary_distance, centroid_distance
from onnx_gradcam.metrics.evidence import ELSEWHERE, share_in_region
from onnx_gradcam.metrics.keeping import adcc, average_drop, confidence_increase
from onnx_gradcam.metrics.occlusion import infidelity, occlusion_correlation
from onnx_gradcam.metrics.regions import (
    discrimination,
    energy_inside,
    localisation_error,
    localisation_error_30,
    localisation_error_50,
    pointing_game,
    region_iou,
    top1_localisation_error,
    top5_localisation_error,
)
from onnx_gradcam.metrics.removal import ScoreCurve, deletion, insertion
from onnx_gradcam.metrics.road import road
from onnx_gradcam.metrics.spread import complexity, sparseness
from onnx_gradcam.metrics.stability import (
    cascading_randomisation,
    fgsm_stability,
    independent_randomisation,
    max_sensitivity,
    random_class,
)

Better = Literal["higher", "lower", "neither"]
Chance = Literal["flat", "centre"]


@dataclass(frozen=True)
class Metric:
    """A figure for one map.

    Attributes:
        name: what users call it.
        function: what measures; it gets what ``needs`` names, by keyword, and returns the figure or a ``ScoreCurve``.
        better: whether higher or lower figures are better; "neither" where that depends on what is measured.
        chance: the map that stands for chance: "flat", the same everywhere, or "centre"; or the figure of chance
            itself; None where there is none, since the metric asks how maps change.
    """

    name: str
    function: Callable[..., float | ScoreCurve]
    better: Better
    chance: Chance | float | None

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of what the function needs: "x", "heatmap", "score", "region" and so on."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.default is p.empty)

    @property
    def is_of_region(self) -> bool:
        """Return whether it is measured in a named region."""
        return isinstance(self.function, partial)

    @property
    def formula(self) -> str:
        """Return what is computed, in one line."""
        return self._first_line.partition("   ")[0]

    @property
    def source(self) -> str:
        """Return where the metric comes from."""
        return self._first_line.partition("   ")[2]

    @property
    def _first_line(self) -> str:
        function = self.function.func if isinstance(self.function, partial) else self.function
        return (inspect.getdoc(function) or "").splitlines()[0]


EVIDENCE_SHARE = "evidence-share"
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("deletion", deletion, "lower", "centre"),
        Metric("insertion", insertion, "higher", "centre"),
        Metric("road", road, "higher", "centre"),
        Metric("average-drop", average_drop, "lower", "centre"),
        Metric("confidence-increase", confidence_increase, "higher", "centre"),
        Metric("adcc", adcc, "higher", None),
        Metric("occlusion-correlation", occlusion_correlation, "higher", "centre"),
        Metric("infidelity", infidelity, "lower", "centre"),
        Metric("energy", energy_inside, "higher", "flat"),
        Metric("pointing", pointing_game, "higher", "flat"),
        Metric("iou", region_iou, "higher", "flat"),
        Metric("centroid-distance", centroid_distance, "lower", "centre"),
        Metric("boundary-distance", boundary_distance, "lower", "centre"),
        Metric("localisation-error", localisation_error, "lower", "centre"),
        Metric("localisation-error-30", localisation_error_30, "lower", "centre"),
        Metric("localisation-error-50", localisation_error_50, "lower", "centre"),
        Metric("localisation-error-top1", top1_localisation_error, "lower", "centre"),
        Metric("localisation-error-top5", top5_localisation_error, "lower", "centre"),
        Metric("discrimination", discrimination, "higher", 0.5),
        Metric(EVIDENCE_SHARE, share_in_region, "neither", "flat"),
        Metric("sparseness", sparseness, "higher", "flat"),
        Metric("complexity", complexity, "lower", "flat"),
        Metric("max-sensitivity", max_sensitivity, "lower", None),
        Metric("fgsm-stability", fgsm_stability, "higher", None),
        Metric("cascading-randomisation", cascading_randomisation, "lower", None),
        Metric("independent-randomisation", independent_randomisation, "lower", None),
        Metric("random-class", random_class, "lower", None),
    )
}


def find_metric(name: str) -> Metric:
    """Return the metric of this name. Raises ``MetricError`` where there is none."""
    if name not in METRICS:
        raise MetricError(f"unknown metric {name!r}", hint=nearest(name, METRICS), metric=name)
    return METRICS[name]


def for_regions(metric: Metric, regions: Sequence[str]) -> list[Metric]:
    """Return a metric for each named region, where it asks for one: "evidence-share:cap"; else the metric itself."""
    if "region_name" not in metric.needs:
        return [metric]
    names = [*regions, *([] if ELSEWHERE in regions else [ELSEWHERE])]
    return [
        replace(metric, name=f"{metric.name}:{name}", function=partial(metric.function, region_name=name))
        for name in names
    ]


def figure_of(measured: float | ScoreCurve) -> float:
    """Return the figure: of a curve the area below it."""
    return measured.area if isinstance(measured, ScoreCurve) else measured
