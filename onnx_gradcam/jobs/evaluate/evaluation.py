"""What an evaluation found, as plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnx_gradcam.jobs.evaluate.pictures import picture_of
from onnx_gradcam.jobs.evaluate.records import EvaluatedRow, MetricResult
from onnx_gradcam.jobs.explain import RESULTS
from onnx_gradcam.jobs.saving import save_document
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.results.files import slug
from onnx_gradcam.results.journal import EVALUATION

SCHEMA_OF_EVALUATION = 1


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Metrics of the maps of a model.

    Attributes:
        model: the model's name.
        sha256: of the model file.
        method: the method, with its variants.
        layers: the target layers; empty for methods of the input.
        metrics: what was measured.
        rows: the figures of each map.
        errors: images that could not be measured, each with the reason.
        warnings: what the user should know.
        versions: as in ``Provenance``.
        request: what was asked for, ready for JSON.
    """

    model: str
    sha256: str
    method: str
    layers: tuple[str, ...]
    metrics: tuple[MetricResult, ...]
    rows: tuple[EvaluatedRow, ...]
    errors: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<EvaluationResult of {self.model!r}: {self}>"

    def __str__(self) -> str:
        """Return the means in one line."""
        means = ", ".join(f"{one.name} {_short(one.map)}" for one in self.metrics)
        return f"{self.method}, {len(self.rows)} maps: {means}"

    def __getitem__(self, name: str) -> MetricResult:
        """Return the result of a metric by its name. Raises ``KeyError`` for one that was not measured."""
        return {one.name: one for one in self.metrics}[name]

    @property
    def accuracy(self) -> float | None:
        """Return the share of the labelled samples whose class the model puts first; None where none is labelled."""
        right = [row.rank == 0 for row in self.rows if row.rank is not None]
        return sum(right) / len(right) if right else None

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON has it; its JSON Schema is described in ``docs/formats.md``."""
        return {
            "schema_version": SCHEMA_OF_EVALUATION,
            "model": self.model,
            "sha256": self.sha256,
            "versions": dict(self.versions),
            "request": dict(self.request),
            "method": self.method,
            "layers": list(self.layers),
            "accuracy": self.accuracy,
            "metrics": [_for_json(one) for one in self.metrics],
            "rows": [asdict(row) for row in self.rows],
            "errors": [{"image": image, "error": error} for image, error in self.errors],
            "warnings": list(self.warnings),
            "files": {},
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write a picture for each metric, and ``evaluation.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether an earlier evaluation is replaced.

        Returns:
            The path of ``evaluation.json``.

        Raises:
            OutputError: the folder cannot be written, or holds an evaluation already.
        """
        below = f"{Path(self.model).name}, {self.method}", *self.warnings
        drawn = {one.name: picture_of(one, below) for one in self.metrics if one.map.n}
        names = {name: f"{slug(name)}.png" for name in drawn}
        content = self.as_dict()
        content["metrics"] = [{**one, "picture": names.get(one["name"])} for one in content["metrics"]]
        pictures = {names[name]: picture for name, picture in drawn.items()}
        return save_document(content, EVALUATION, pictures, Path(folder), overwrite)


def default_folder(model: str | os.PathLike[str], method: str) -> Path:
    """Return where an evaluation goes if the user names no folder: onnx-gradcam-out/<model>-<method>-evaluation."""
    return RESULTS / f"{Path(model).stem}-{method}-evaluation"


def _for_json(result: MetricResult) -> dict[str, Any]:
    curves = {name: list(values) for name, values in result.curves.items()}
    return {**asdict(result), "curves": curves, "parts": [asdict(part) for part in result.parts], "picture": None}


def _short(mean: Mean) -> str:
    return "-" if mean.value is None else f"{mean.value:.3f}"
