"""The result of comparing two models, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnx_gradcam.jobs.compare.requirements import Finding, Requirement

METRICS = ("pearson", "iou", "distance")
STATISTICS = ("median", "worst", "p05", "p95")


@dataclass(frozen=True)
class Side:
    """One of the two models: what ran it, and what its maps were taken from.

    Attributes:
        model: the path of the model, or what it is called where it came from memory.
        providers: the execution providers in use, by full name.
        score: the score tensor.
        layers: the target layers; empty for methods of the input.
        attributed: the value that an attribution is of; "" for methods of layers.
    """

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


@dataclass(frozen=True, repr=False)
class Comparison:
    """What two models see in the same images, explained with the same method and target.

    Attributes:
        a, b: the two sides.
        method: the method, with its variants.
        pairs: the maps, for each image one pair for each target.
        errors: images that could not be compared, each with the reason.
        warnings: what the user should know.
        requirements: what must hold.
    """

    a: Side
    b: Side
    method: str
    pairs: tuple[Pair, ...]
    errors: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    def __repr__(self) -> str:
        return f"<Comparison of {self.a.model!r} and {self.b.model!r}: {self}>"

    @property
    def agreement(self) -> float:
        """Return the share of pairs for which both models put the same class first, in [0, 1]."""
        return float(np.mean([pair.top1_a == pair.top1_b for pair in self.pairs]))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the requirements, judged."""
        return tuple(requirement.judge(self.measure) for requirement in self.requirements)

    @property
    def ok(self) -> bool:
        """Return whether every requirement is met."""
        return all(finding.ok for finding in self.findings)

    def measure(self, metric: str, statistic: str = "") -> float | None:
        """Return a statistic of the pairs.

        Args:
            metric: "agreement", "pearson", "iou" or "distance".
            statistic: "median", "worst", or a percentile as "p05", interpolated linearly; "" for the agreement.

        Returns:
            The number; None where no pair was measured.
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
        """Return the comparison as JSON has it."""
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
        """Return the verdict in one line."""
        unmet = ", ".join(finding.clause for finding in self.findings if not finding.ok)
        agreement = f"top-1 agreement {self.agreement:.4f} over {len(self.pairs)} maps"
        return f"{self.a.model} and {self.b.model}: {agreement}{f'; NOT met: {unmet}' if unmet else ''}"
