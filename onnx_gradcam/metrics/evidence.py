"""On which named part of the image does the evidence lie: on the thing itself, or on something that goes with it?"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from onnx_gradcam.copies.scores import Array
from onnx_gradcam.errors import MetricError
from onnx_gradcam.metrics.interval import Mean, bootstrap

ELSEWHERE = "elsewhere"
"""The name of what lies in no named region."""
Name = TypeVar("Name", bound=Hashable)


def share_in_region(heatmap: Array, regions: Mapping[str, Array], region_name: str) -> float:
    """Σ_region relu(map) / Σ relu(map), for each named region.   After Selvaraju et al. 2017, sec. 6.3 (bias).

    A map that is the same everywhere has the share of the region's area. NaN for a map without positive values, and for
    an image that has no region of this name.

    Args:
        heatmap: (*space).
        regions: for each name (*space) bool; they may overlap, and need not cover the image.
        region_name: a name, or "elsewhere" for what lies in none of them.
    """
    if region_name not in regions and region_name != ELSEWHERE:
        return float("nan")
    inside = regions.get(region_name)
    if inside is None:
        inside = ~np.logical_or.reduce([np.zeros(np.shape(heatmap), bool), *regions.values()])
    evidence = np.maximum(np.asarray(heatmap, np.float64), 0)
    total = evidence.sum()
    return float(evidence[inside].sum() / total) if total else float("nan")


@dataclass(frozen=True)
class EvidenceShare:
    """How much of the evidence lies in a named region, over some of the maps.

    Attributes:
        region: the name of the region; "elsewhere": in none of them.
        label: the class whose maps were taken; None: of all classes.
        group: the group whose maps were taken; None: of all groups.
        share: the mean share of the evidence, with its interval.
        area: the mean share of the area: what a map that is the same everywhere has.
    """

    region: str
    label: Hashable
    group: Hashable
    share: Mean
    area: Mean


def evidence_share(
    maps: Array,
    regions: Mapping[str, Array],
    *,
    classes: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[EvidenceShare, ...]:
    """Return the share of the evidence by named region, of all maps, of each class, of each group and of both together.

    >>> maps = np.array([[[3.0, 1.0]], [[1.0, 1.0]]])
    >>> shares = evidence_share(maps, {"badge": np.array([[[True, False]]] * 2)})
    >>> [(each.region, each.share.value, each.area.value) for each in shares]
    [('badge', 0.625, 0.5), ('elsewhere', 0.375, 0.5)]

    Args:
        maps: (N, *space); negative values count as 0, and maps without positive values are left out.
        regions: for each name (N, *space) bool. A region without a pixel on an image is not there: the image is left
            out for this region.
        classes: for each map its class; None: there are no rows of classes.
        groups: for each map its group, such as what goes with the class; None: there are no rows of groups.
        clusters: for each map what it belongs to, a patient or a video; None: each is one by itself.
        seed: equal seeds give equal intervals.

    Returns:
        For each class, group and both together, and first for all maps, one share for each region and for what lies in
        none of them, ``elsewhere``: from 0 to 1, with its interval of 95 % and beside the share of the area.

    Raises:
        MetricError: regions, classes, groups or clusters are not as many as the maps, or have another size.
    """
    _check(np.asarray(maps), regions, {"classes": classes, "groups": groups, "clusters": clusters})
    names = [*regions, *([] if ELSEWHERE in regions else [ELSEWHERE])]
    there = [{name: r[k] for name, r in regions.items() if r[k].any()} for k in range(len(maps))]
    of_each = {name: [share_in_region(m, r, name) for m, r in zip(maps, there, strict=True)] for name in names}
    areas = {name: [share_in_region(np.ones(maps.shape[1:]), r, name) for r in there] for name in names}
    own = list(range(len(maps))) if clusters is None else list(clusters)
    return tuple(
        EvidenceShare(
            name,
            label,
            group,
            *(
                bootstrap([values[k] for k in rows], [own[k] for k in rows], seed=seed)
                for values in (of_each[name], areas[name])
            ),
        )
        for label, group, rows in parts_of(classes, groups, len(maps))
        for name in names
    )


def parts_of(
    classes: Sequence[Name] | None, groups: Sequence[Name | None] | None, count: int
) -> Iterator[tuple[Name | None, Name | None, list[int]]]:
    """Yield (class, group, numbers of rows): all rows, those of each class, of each group, and of both together.

    None stands for all classes, and for all groups. Classes and groups come in the order in which they first appear.

    Args:
        classes: for each row its class; None: there are none.
        groups: for each row its group, None for a row without one; None: there are none.
        count: how many rows there are.
    """
    labels = list(dict.fromkeys(classes or ()))
    names = [name for name in dict.fromkeys(groups or ()) if name is not None]
    each: list[tuple[Name | None, Name | None]] = [
        (label, group) for label in [None, *labels] for group in [None, *names]
    ]
    for label, group in sorted(
        each, key=lambda pair: (pair[0] is not None and pair[1] is not None, pair[1] is not None)
    ):
        rows = [
            k
            for k in range(count)
            if (label is None or (classes or ())[k] == label) and (group is None or (groups or ())[k] == group)
        ]
        if rows:
            yield label, group, rows


def _check(maps: Array, regions: Mapping[str, Array], columns: Mapping[str, Sequence[Hashable] | None]) -> None:
    if not regions:
        raise MetricError("evidence is shared out among named regions, and there is none", metric="evidence-share")
    for name, region in regions.items():
        if np.shape(region) != maps.shape:
            raise MetricError(
                f"region {name!r} has the shape {np.shape(region)}, the maps have {maps.shape}",
                hint="a bool array of the shape of the maps for each name",
                metric="evidence-share",
            )
    for name, values in columns.items():
        if values is not None and len(values) != len(maps):
            raise MetricError(f"{len(values)} {name} for {len(maps)} maps", metric="evidence-share")
