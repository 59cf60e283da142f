"""Photo by photo: its maps, and the figures of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, LayerError, MethodError, OnnxGradcamError, ScoreError
from onnx_gradcam.explain.question import TOGETHER, attempt
from onnx_gradcam.jobs.data.samples import Sample
from onnx_gradcam.jobs.evaluate.networks import Networks
from onnx_gradcam.jobs.evaluate.records import EvaluatedRow
from onnx_gradcam.jobs.evaluate.subjects import ReadySample, prepare
from onnx_gradcam.jobs.evaluate.supplies import (
    MapSubject,
    Supplies,
    chance_map,
    of_chance,
    of_image,
    of_map,
    perfect_map,
)
from onnx_gradcam.methods.attribution import ATTRIBUTIONS
from onnx_gradcam.methods.perturbation.table import INPUT_METHODS
from onnx_gradcam.metrics.removal import ScoreCurve
from onnx_gradcam.metrics.table import Metric, figure_of
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.photos.preprocess.choice import Choice

Array = npt.NDArray[Any]
OF_ALL_PHOTOS = (LayerError, MethodError, ScoreError)
OF_LOST_WEIGHTS = frozenset(("randomised_from_top", "randomised_alone"))
"""What only the map of the network as it is is compared with."""
OF_PLACES = frozenset(("heatmap", "region", "boxes", "rank"))
"""What metrics need that ask where a map lies."""


@dataclass(frozen=True, eq=False)
class MetricBench:
    """What every photo is measured with.

    Attributes:
        networks: the model, and the same without what it learnt.
        choice: how photos become tensors; None where all samples are arrays.
        classes: the classes of folders, by name.
        by_photo: the classes of all objects of each photo.
        metrics: what is measured.
        max_pixels: the largest photo that is decoded.
    """

    networks: Networks
    choice: Choice | None
    classes: Mapping[str, int]
    by_photo: Mapping[Path, tuple[int, ...]]
    metrics: tuple[Metric, ...]
    max_pixels: int

    @property
    def needs_random(self) -> bool:
        """Return whether a metric has a figure for the network with random weights."""
        return self.networks.has_weights and any(not OF_LOST_WEIGHTS & set(metric.needs) for metric in self.metrics)


@dataclass
class MeasuredMaps:
    """What was measured.

    Attributes:
        rows: the figures of each map.
        errors: the photos that could not be measured, each with the reason.
        curves: "map", "chance", "random_weights" → metric → the curves of all maps.
        of_layers: whether the method looks at layers.
    """

    rows: tuple[EvaluatedRow, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    curves: dict[str, dict[str, list[ScoreCurve]]] = field(default_factory=dict)
    of_layers: bool = True


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of one map and their curves, by metric."""

    values: Mapping[str, float | None]
    curves: Mapping[str, ScoreCurve]


Report = Callable[[EvaluatedRow | tuple[str, str], int], None]


def measure_all(bench: MetricBench, samples: Sequence[Sample], report: Report) -> MeasuredMaps:
    """Return the figures of all samples.

    Args:
        bench: what they are measured with.
        samples: the data.
        report: is called with each row, or (photo, error), and the number of all.

    Raises:
        InputError: no photo can be measured.
        OnnxGradcamError: what no other photo would change.
    """
    rows: list[EvaluatedRow] = []
    errors: list[tuple[str, str]] = []
    curves: dict[str, dict[str, list[ScoreCurve]]] = defaultdict(lambda: defaultdict(list))
    for start in range(0, len(samples), TOGETHER):
        for sample, result in _measure_some(bench, samples[start : start + TOGETHER], start):
            if isinstance(result, OnnxGradcamError):
                if isinstance(result, OF_ALL_PHOTOS) or len(samples) == 1:
                    raise result
                errors.append((str(sample.path), str(result)))
                report(errors[-1], len(samples))
                continue
            row, of_row = result
            rows.append(row)
            for key, figures in of_row.items():
                for name, curve in figures.curves.items():
                    curves[key][name].append(curve)
            report(row, len(samples))
    if not rows:
        raise InputError(f"none of the {len(samples)} samples could be measured", where=errors[0][1].splitlines()[0])
    is_of_input = bench.networks.trained.method in {*ATTRIBUTIONS, *INPUT_METHODS}
    return MeasuredMaps(tuple(rows), tuple(errors), {k: dict(v) for k, v in curves.items()}, not is_of_input)


Measurement = tuple[EvaluatedRow, Mapping[str, Figures]]


def _measure_some(
    bench: MetricBench, samples: Sequence[Sample], first: int
) -> Iterator[tuple[Sample, Measurement | OnnxGradcamError]]:
    """Yield what each of a few samples comes to; those of the same size go through the model together."""
    explainer = bench.networks.trained.explainer
    prepared = [
        attempt(prepare, sample, bench.classes, explainer, bench.choice, bench.max_pixels) for sample in samples
    ]
    numbered = list(enumerate(zip(samples, prepared, strict=True), first))
    for _, group in groupby(numbered, key=lambda each: _shape(each[1][1])):
        alike = list(group)
        yield from ((sample, result) for _, (sample, result) in alike if isinstance(result, OnnxGradcamError))
        yield from _measure_alike(bench, [(n, s, p) for n, (s, p) in alike if isinstance(p, ReadySample)])


def _shape(result: ReadySample | OnnxGradcamError) -> tuple[int, ...]:
    """Return the shape of what is fed; () for an error."""
    return result.x.shape if isinstance(result, ReadySample) else ()


def _measure_alike(
    bench: MetricBench, alike: Sequence[tuple[int, Sample, ReadySample]]
) -> Iterator[tuple[Sample, Measurement | OnnxGradcamError]]:
    """Yield what samples of the same size come to; where their common run fails, each is run by itself."""
    if not alike:
        return
    maps = attempt(_maps, bench, [p for _, _, p in alike])
    for k, (number, sample, prepared) in enumerate(alike):
        own = attempt(_maps, bench, [prepared]) if isinstance(maps, OnnxGradcamError) else maps.of(k)
        if isinstance(own, OnnxGradcamError):
            yield sample, own
        else:
            yield sample, attempt(_measure, bench, number, sample, prepared, own)


@dataclass(frozen=True, eq=False)
class ModelMaps:
    """What the model gives for images of one size: (n, …) each."""

    x: Array
    scores: Array
    probabilities: Array
    classes: Array
    own: Array
    random: Array | None
    grid: tuple[int, ...]

    def of(self, k: int) -> ModelMaps:
        """Return what it gives for one of them."""
        arrays = self.x, self.scores, self.probabilities, self.classes, self.own
        x, scores, probabilities, classes, own = (array[k : k + 1] for array in arrays)
        return ModelMaps(
            x, scores, probabilities, classes, own, None if self.random is None else self.random[k : k + 1], self.grid
        )


def _maps(bench: MetricBench, prepared: Sequence[ReadySample]) -> ModelMaps:
    probe = bench.networks.trained
    x = probe.form.arranged(np.concatenate([each.x for each in prepared]))
    scores, probabilities = probe.scores(x)
    top = scores.argmax(axis=1)
    classes = np.array([t if p.class_index is None else p.class_index for t, p in zip(top, prepared, strict=True)])
    random = bench.networks.all_random().maps(x, classes) if bench.needs_random else None
    own, grid = probe.maps_and_grid(x, classes)
    return ModelMaps(x, scores, probabilities, classes, own, random, grid)


def _measure(bench: MetricBench, number: int, sample: Sample, prepared: ReadySample, maps: ModelMaps) -> Measurement:
    """Return the figures of one sample, and its curves."""
    networks = bench.networks
    index, scores = int(maps.classes[0]), maps.scores[0]
    labelled = prepared.class_index is not None
    rank = int((scores > scores[index]).sum()) if labelled else None
    others = tuple(c for c in bench.by_photo.get(sample.path, ()) if c != index)
    rest = [c for c in range(len(scores)) if c != index]
    drawn = int(np.random.default_rng([networks.seed, number]).choice(rest)) if rest else None
    subject = MapSubject(maps.x[0], index, rank, prepared.region, prepared.boxes, prepared.regions, others, drawn)
    image = of_image(subject, networks.trained)
    lost = networks.maps_without_weights(subject.x, index)
    of_row = {"map": _figures(bench.metrics, of_map(subject, maps.own[0], networks.trained, lost, image))}
    of_row["chance"] = _chance(bench.metrics, image, subject.x.shape[1:], of_row["map"])
    if maps.random is not None:
        own = of_map(subject, maps.random[0], networks.all_random(), {}, image)
        of_row["random_weights"] = _figures(bench.metrics, own)
    if subject.region is not None:
        of_row["ceiling"] = _ceiling(bench.metrics, image, perfect_map(subject.region, maps.grid))
    row = EvaluatedRow(
        str(sample.path),
        label_of(index, networks.trained.explainer.labels),
        index,
        float(maps.probabilities[0, index]),
        rank,
        str(sample.path) if sample.cluster is None else sample.cluster,
        of_row["map"].values,
        of_row["chance"].values,
        of_row["random_weights"].values if "random_weights" in of_row else {},
        of_row["ceiling"].values if "ceiling" in of_row else {},
        sample.group,
    )
    return row, of_row


def _figures(metrics: Sequence[Metric], have: Mapping[str, Any]) -> Figures:
    """Return the figures of a map: None where it lacks what a metric needs, and where that says nothing."""
    results = {m.name: m.function(**{n: have[n] for n in m.needs}) for m in metrics if all(n in have for n in m.needs)}
    values = {metric.name: _number(results.get(metric.name)) for metric in metrics}
    return Figures(values, {name: result for name, result in results.items() if isinstance(result, ScoreCurve)})


def _number(result: float | ScoreCurve | None) -> float | None:
    figure = None if result is None else figure_of(result)
    return None if figure is None or np.isnan(figure) else float(figure)


def _ceiling(metrics: Sequence[Metric], image: Supplies, perfect: Array) -> Figures:
    """Return the figures of a map that knows where the object lies, of the metrics that ask for that and no more."""
    asked = [m for m in metrics if {"region", "boxes"} & set(m.needs) and set(m.needs) <= OF_PLACES]
    return _figures(asked, of_chance(perfect, image))


def _chance(metrics: Sequence[Metric], image: Supplies, space: tuple[int, ...], own: Figures) -> Figures:
    """Return the figures of the maps that stand for chance; a figure that is known counts where the map has one."""
    values: dict[str, float | None] = {}
    curves: dict[str, ScoreCurve] = {}
    for metric in metrics:
        if isinstance(metric.chance, str):
            found = _figures([metric], of_chance(chance_map(metric.chance, space), image))
            values, curves = {**values, **found.values}, {**curves, **found.curves}
        elif metric.chance is not None and own.values[metric.name] is not None:
            values[metric.name] = metric.chance
    return Figures(values, curves)
