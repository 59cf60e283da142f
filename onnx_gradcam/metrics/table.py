"""Every metric by its name. The first line of the docstring of a metric is its formula and its source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnx_gradcam.errors import MetricError, nearest
from onnx_gradcam.metrics.occlusion import occlusion_correlation
from onnx_gradcam.metrics.regions import energy_inside, pointing_game
from onnx_gradcam.metrics.removal import Curve, deletion, insertion

Better = Literal["higher", "lower"]
Chance = Literal["flat", "centre"]


@dataclass(frozen=True)
class Metric:
    """A figure for one map.

    Attributes:
        name: what users call it.
        function: what measures; it gets what ``needs`` names, by keyword, and returns the figure or a ``Curve``.
        better: whether higher or lower figures are better.
        chance: the map that stands for chance: "flat", whose figure is the share of the area, or "centre".
    """

    name: str
    function: Callable[..., float | Curve]
    better: Better
    chance: Chance

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of what the function needs: "x", "heatmap", "score", "region" and so on."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.default is p.empty)

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
        return (inspect.getdoc(self.function) or "").splitlines()[0]


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("deletion", deletion, "lower", "centre"),
        Metric("insertion", insertion, "higher", "centre"),
        Metric("occlusion-correlation", occlusion_correlation, "higher", "centre"),
        Metric("energy", energy_inside, "higher", "flat"),
        Metric("pointing", pointing_game, "higher", "flat"),
    )
}


def find_metric(name: str) -> Metric:
    """Return the metric of this name. Raises ``MetricError`` where there is none."""
    if name not in METRICS:
        raise MetricError(f"unknown metric {name!r}", hint=nearest(name, METRICS), metric=name)
    return METRICS[name]


def figure_of(measured: float | Curve) -> float:
    """Return the figure: of a curve the area below it."""
    return measured.area if isinstance(measured, Curve) else measured


def measure(name: str, have: Mapping[str, Any]) -> float:
    """Return the figure of a metric, which takes what it needs from ``have``.

    Raises ``MetricError`` for an unknown metric, and where something is missing that it needs.
    """
    metric = find_metric(name)
    missing = [need for need in metric.needs if need not in have]
    if missing:
        raise MetricError(f"metric {name!r} needs {', '.join(missing)}", metric=name, missing=missing)
    return figure_of(metric.function(**{need: have[need] for need in metric.needs}))
