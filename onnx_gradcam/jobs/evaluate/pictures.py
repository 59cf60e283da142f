"""A metric as a picture: its curve, or its mean with the interval; chance and random weights beside it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.jobs.evaluate.records import MetricResult
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.results.picture.chart import Mark, Trace, curve_chart, mean_chart
from onnx_gradcam.results.picture.figure import Lines
from onnx_gradcam.results.picture.overlay import Picture

MAKERS = {"map": "map", "chance": "chance", "random_weights": "random weights", "ceiling": "ceiling"}
CHANGED = "share of pixels that was changed"


def picture_of(result: MetricResult, below: Sequence[str]) -> Picture:
    """Return the picture of a metric.

    Args:
        result: the metric over all images; the maps have a mean.
        below: what stands below the picture: the model, the method, warnings.
    """
    title = _name(result), _count(result.map), f"{result.formula}   {result.source}"
    lines = Lines(title, below)
    means: list[tuple[str, Mean | None]] = [(key, getattr(result, key)) for key in MAKERS]
    marks = {
        key: Mark(MAKERS[key], look, mean.value, mean.low, mean.high)
        for look, (key, mean) in enumerate(means)
        if mean is not None and mean.value is not None
    }
    if not result.curves:
        return mean_chart(list(marks.values()), lines)
    shares = result.curves["shares"]
    traces = [
        Trace(f"{mark.name} {mark.text}", mark.look, shares, result.curves[key])
        for key, mark in marks.items()
        if key in result.curves
    ]
    return curve_chart(traces, lines, CHANGED)


def _name(result: MetricResult) -> str:
    return result.name if result.better == "neither" else f"{result.name}  ({result.better} is better)"


def _count(mean: Mean) -> str:
    """Return how many maps there are, and what the bars are."""
    if mean.clusters < 2:
        return f"n = {mean.n}, too few for an interval"
    clusters = "" if mean.clusters == mean.n else f" in {mean.clusters} clusters"
    return f"n = {mean.n}{clusters}, intervals of 95 %"
