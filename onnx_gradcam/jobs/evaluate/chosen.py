"""Which metrics are measured: those that were named, or those that are quick and that the data allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_gradcam.errors import MetricError
from onnx_gradcam.jobs.data.samples import Sample
from onnx_gradcam.metrics.table import METRICS, Metric, find_metric, for_regions

QUICK = ("deletion", "insertion", "average-drop", "confidence-increase", "pointing", "energy", "localisation-error")
EVERY_METRIC = "all"
"""The name that stands for every metric that the data allow."""
NEEDS_OF_DATA: Mapping[str, str] = {
    "region": "a box, an outline or a mask",
    "boxes": "a box, an outline or a mask",
    "rank": "a label",
    "maps_of_others": "a photo with objects of several classes",
    "regions": "a named region",
}
"""What metrics need that no model can make → what the data must have."""


def choose_metrics(
    names: Sequence[str], samples: Sequence[Sample], by_photo: Mapping[Path, tuple[int, ...]]
) -> tuple[Metric, ...]:
    """Return the metrics of these names, or the quick ones that the data allow.

    Args:
        names: what was asked for; "all" for every metric that the data allow.
        samples: the data.
        by_photo: the classes of the objects of each photo.

    Raises:
        MetricError: a metric is unknown, or no sample has what it needs.
    """
    regions = any(sample.has_region for sample in samples)
    there = {
        "region": regions,
        "boxes": regions,
        "rank": bool(by_photo),
        "maps_of_others": any(len(classes) > 1 for classes in by_photo.values()),
        "regions": any(sample.regions for sample in samples),
    }
    absent = [need for need, is_there in there.items() if not is_there]
    named = [] if list(names) == [EVERY_METRIC] else [find_metric(name) for name in names]
    for metric in named:
        lacking = [need for need in metric.needs if need in absent]
        if lacking:
            raise MetricError(
                f"metric {metric.name!r} needs {NEEDS_OF_DATA[lacking[0]]}, and no sample has one",
                hint="a table with the columns path,label,box,mask,region:NAME, or COCO annotations",
                metric=metric.name,
            )
    default = METRICS if list(names) == [EVERY_METRIC] else () if names else QUICK
    chosen = dict.fromkeys(
        [*(metric.name for metric in named), *(name for name in default if not set(METRICS[name].needs) & set(absent))]
    )
    named_regions = list(dict.fromkeys(name for sample in samples for name in sample.regions))
    return tuple(metric for name in chosen for metric in for_regions(METRICS[name], named_regions))
