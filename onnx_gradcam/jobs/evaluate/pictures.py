"""A metric as a picture: its curve, or its mean with the interval; chance and random weights beside it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.jobs.evaluate.records import MetricResult
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.results.picture.chart import Mark, Trace, curve_chart, mean_chart
from onnx_gradcam.results.picture.figure import Lines
from onnx_gradcam.results.picture.overlay import Picture

MAKERS = {"map": "map", "chance": "chance", "random_weights": "random weights"}
CHANGED = "share of pixels that was changed"


def picture_of(result: MetricResult, below: Sequence[str]) -> Picture:
    """Return the picture of a metric.

    Args:
        result: the metric over all images; the maps have a mean.
        below: what stands below the picture: the model, the method, warnings.
    """
    means = {MAKERS[key]: getattr(result, key) for key in MAKERS if getattr(result, key) is not None}
    n = f"n = {result.map.n}" + ("" if result.map.clusters == result.map.n else f" in {result.map.clusters} clusters")
    title = (
        f"{result.name}  ({result.better} is better)",
        f"{n}, intervals of 95 %",
        f"{result.formula}   {result.source}",
    )
    lines = Lines(title, below)
    marks = [_mark(name, mean) for name, mean in means.items() if mean.value is not None]
    if not result.curves:
        return mean_chart(marks, lines)
    of_area = {mark.name: f"{mark.name} {mark.text}" for mark in marks}
    shares = result.curves["shares"]
    traces = [Trace(of_area[MAKERS[key]], shares, result.curves[key]) for key in MAKERS if key in result.curves]
    return curve_chart(traces, lines, CHANGED)


def _mark(name: str, mean: Mean) -> Mark:
    assert mean.value is not None
    return Mark(name, mean.value, mean.low, mean.high)
