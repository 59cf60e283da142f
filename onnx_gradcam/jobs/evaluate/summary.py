"""From the figures of all maps to their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.jobs.evaluate.measuring import MeasuredMaps
from onnx_gradcam.jobs.evaluate.records import EvaluatedRow, MetricPart, MetricResult
from onnx_gradcam.metrics.evidence import parts_of
from onnx_gradcam.metrics.interval import Mean, bootstrap
from onnx_gradcam.metrics.removal import ScoreCurve
from onnx_gradcam.metrics.table import Metric

COMMON_SHARES = np.linspace(0, 1, 33)


def summarise(chosen: Sequence[Metric], measured: MeasuredMaps, seed: int) -> tuple[MetricResult, ...]:
    """Return each metric over all maps; a named region that no image has a pixel of is left out.

    Args:
        chosen: the metrics.
        measured: what was measured.
        seed: what intervals are drawn from.
    """
    results = ((metric, _result(metric, measured, seed)) for metric in chosen)
    return tuple(result for metric, result in results if not (metric.is_of_region and _is_nowhere(result)))


def _is_nowhere(result: MetricResult) -> bool:
    return result.chance is not None and result.chance.value == 0


def _result(metric: Metric, measured: MeasuredMaps, seed: int) -> MetricResult:
    rows = measured.rows
    own = _mean([row.figures for row in rows], metric.name, rows, seed)
    random = _mean([row.random_weights for row in rows], metric.name, rows, seed)
    chance = _mean([row.chance for row in rows], metric.name, rows, seed)
    ceiling = _mean([row.ceiling for row in rows], metric.name, rows, seed)
    curves = {key: _curve(of[metric.name]) for key, of in measured.curves.items() if metric.name in of}
    return MetricResult(
        metric.name,
        metric.formula,
        metric.source,
        metric.better,
        own,
        chance if chance.n else None,
        random if random.n else None,
        ceiling if ceiling.n else None,
        {"shares": tuple(COMMON_SHARES.tolist()), **curves} if curves else {},
        tuple(_parts(metric, rows, seed)),
    )


def _parts(metric: Metric, rows: Sequence[EvaluatedRow], seed: int) -> Iterator[MetricPart]:
    """Yield the metric by class, by group and by both; without groups by class, where it is of a named region."""
    groups = [row.group for row in rows]
    if not any(groups) and not metric.is_of_region:
        return
    for label, group, numbers in parts_of([row.label for row in rows], groups, len(rows)):
        if label is None and group is None:
            continue
        some = [rows[k] for k in numbers]
        own, chance, random = (
            _mean([getattr(row, key) for row in some], metric.name, some, seed)
            for key in ("figures", "chance", "random_weights")
        )
        if own.n:
            yield MetricPart(label, group, own, chance if chance.n else None, random if random.n else None)


def _mean(figures: Sequence[Mapping[str, float | None]], name: str, rows: Sequence[EvaluatedRow], seed: int) -> Mean:
    values = [np.nan if (value := of.get(name)) is None else value for of in figures]
    return bootstrap(values, [row.cluster for row in rows], seed=seed)


def _curve(curves: Sequence[ScoreCurve]) -> tuple[float, ...]:
    """Return the mean of curves at the same shares."""
    values: npt.NDArray[Any] = np.mean(
        [np.interp(COMMON_SHARES, curve.shares, curve.scores) for curve in curves], axis=0
    )
    return tuple(values.tolist())
