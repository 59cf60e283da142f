"""The result of comparing two models: frozen data, one row per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnx_gradcam.jobs.compare.requirements import Finding, Requirement

METRICS = ("pearson", "iou", "distance")
STATISTICS = ("median", "worst", "p05", "p95")


@dataclass(frozen=True)
class Side:
    """One of the two: what ran, and what its maps were taken from: layers, an input, or both."""

    model: str
    providers: tuple[str, ...]
    score: str
    layers: tuple[str, ...]
    attributed: str = ""


@dataclass(frozen=True)
class Pair:
    """The two maps of one image.

    Attributes:
        image: its path, or its position among the images given.
        image_index: its place in the array, for .npy files with several.
        class_index, label: what both maps explain; −1 where it is of no class.
        target: the same as ``--target`` has it.
        top1_a, top1_b: the class that each model puts first.
        pearson, iou, distance_px, distance: correlation of the maps, overlap of their highest 20 %, and distance of
            their maxima, in pixels and as a share of the diagonal; all within the region that both models saw. None
            where both maps are blank: they agree in saying nothing, and count in no statistic.
        note: "", or why a map says nothing: it is blank, or not finite. Where one of two says nothing, the pair counts
            as disagreement: 0, 0 and 1. Of detectors and segmenters also: that the most probable cells differ.
    """

    image: str
    image_index: int
    class_index: int
    label: str
    target: str
    top1_a: int
    top1_b: int
    pearson: float | None
    iou: float | None
    distance_px: float | None
    distance: float | None
    note: str = ""

    def __str__(self) -> str:
        """One line."""
        top1 = "" if self.top1_a == self.top1_b else f"  top-1 {self.top1_a} against {self.top1_b}"
        values = (
            "  not compared"
            if self.pearson is None
            else f"  pearson {self.pearson:.4f}  iou {self.iou:.4f}  distance {self.distance:.4f}"
        )
        pixels = "" if self.distance_px is None else f" ({self.distance_px:.1f} px)"
        return f"{self.image}  {self.label}{values}{pixels}{top1}{f'  ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Comparison:
    """What two models see in the same images, explained with the same method and target.

    ``a``, ``b``: the two sides; ``errors``: images that could not be compared, with the reason; ``warnings``: what the
    user should know; ``findings``: the requirements, judged.
    """

    a: Side
    b: Side
    method: str
    pairs: tuple[Pair, ...]
    errors: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @property
    def agreement(self) -> float:
        """The share of images for which both models put the same class first."""
        return float(np.mean([pair.top1_a == pair.top1_b for pair in self.pairs]))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The requirements, judged."""
        return tuple(requirement.judge(self.measure) for requirement in self.requirements)

    @property
    def ok(self) -> bool:
        """Whether every requirement is met."""
        return all(finding.ok for finding in self.findings)

    def measure(self, metric: str, statistic: str = "") -> float | None:
        """ "agreement", or the statistic ("median", "worst", "p05" …) of "pearson", "iou" or "distance".

        Percentiles are interpolated linearly. None where no pair was measured.
        """
        if metric == "agreement":
            return self.agreement
        values = [v for pair in self.pairs if (v := getattr(pair, metric)) is not None]
        if not values:
            return None
        if statistic == "worst":
            return float(max(values) if metric == "distance" else min(values))
        return float(np.percentile(values, 50 if statistic == "median" else int(statistic[1:])))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "ok": self.ok,
            "method": self.method,
            "a": asdict(self.a),
            "b": asdict(self.b),
            "agreement": self.agreement,
            **{metric: {s: self.measure(metric, s) for s in STATISTICS} for metric in METRICS},
            "compared": sum(pair.pearson is not None for pair in self.pairs),
            "requirements": [asdict(finding) for finding in self.findings],
            "pairs": [asdict(pair) for pair in self.pairs],
            "errors": [{"image": image, "error": error} for image, error in self.errors],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        """Both sides, and a table of the statistics."""
        lines = [f"{name}  {_described(side)}" for name, side in (("A", self.a), ("B", self.b))]
        same = sum(pair.top1_a == pair.top1_b for pair in self.pairs)
        lines.append(f"top-1 agreement {self.agreement:.4f} ({same} of {len(self.pairs)})")
        lines += [_row("", STATISTICS)]
        lines += [_row(metric, [_shown(self.measure(metric, s)) for s in STATISTICS]) for metric in METRICS]
        blank = sum(pair.pearson is None for pair in self.pairs)
        lines += [f"{blank} of {len(self.pairs)} images: both maps are blank, not compared"] if blank else []
        return "\n".join([*lines, *map(str, self.findings)])


def _described(side: Side) -> str:
    places = {"layer": " + ".join(side.layers), "input": side.attributed}
    shown = ", ".join(f"{kind} {name}" for kind, name in places.items() if name)
    return f"{side.model} on {side.providers[0]}: score {side.score!r}, {shown}"


def _row(name: str, cells: Sequence[str]) -> str:
    return (f"{name:10}" + "".join(f"{cell:>9}" for cell in cells)).rstrip()


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
