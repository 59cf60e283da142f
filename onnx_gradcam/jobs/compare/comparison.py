"""The result of comparing two models, as plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.jobs.compare.pairs import Pair, Side
from onnx_gradcam.jobs.compare.requirements import Finding, Requirement
from onnx_gradcam.jobs.compare.saving import save_comparison
from onnx_gradcam.jobs.compare.worst import WorstPair
from onnx_gradcam.results.picture.style import PLAIN, Style

SCHEMA_VERSION = 1

MEASURES = ("pearson", "iou", "distance")
STATISTICS = ("median", "worst", "p05", "p95")


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
        versions: as in ``Provenance``.
        request: what was asked for, ready for JSON.
        worst: the pairs that agree least, with their maps, the worst first; as many as were to be kept.
    """

    a: Side
    b: Side
    method: str
    pairs: tuple[Pair, ...]
    errors: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    worst: tuple[WorstPair, ...] = ()

    def __repr__(self) -> str:
        return f"<Comparison of {self.a.model!r} and {self.b.model!r}: {self}>"

    @property
    def agreement(self) -> float | None:
        """Return the share of pairs for which both models put the same class first; None where there are no classes."""
        same = [pair.top1_a == pair.top1_b for pair in self.pairs if pair.top1_a >= 0 or pair.top1_b >= 0]
        return float(np.mean(same)) if same else None

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
        """Return the comparison as JSON has it; its JSON Schema is described in ``docs/formats.md``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ok": self.ok,
            "versions": dict(self.versions),
            "request": dict(self.request),
            "method": self.method,
            "a": asdict(self.a),
            "b": asdict(self.b),
            "agreement": self.agreement,
            **{metric: {s: self.measure(metric, s) for s in STATISTICS} for metric in MEASURES},
            "compared": sum(pair.pearson is not None for pair in self.pairs),
            "requirements": [asdict(finding) for finding in self.findings],
            "pairs": [{**asdict(pair), "picture": None} for pair in self.pairs],
            "errors": [{"image": image, "error": error} for image, error in self.errors],
            "warnings": list(self.warnings),
            "files": {},
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False, style: Style = PLAIN) -> Path:
        """Write the pictures of the worst pairs, and ``comparison.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether an earlier comparison is replaced.
            style: how pictures are drawn.

        Returns:
            The path of ``comparison.json``.

        Raises:
            OutputError: the folder cannot be written, or holds a comparison already.
        """
        return save_comparison(self.as_dict(), self.worst, Path(folder), overwrite, style)

    def __str__(self) -> str:
        """Return the verdict in one line."""
        unmet = ", ".join(finding.clause for finding in self.findings if not finding.ok)
        top1 = "no classes" if self.agreement is None else f"top-1 agreement {self.agreement:.4f}"
        agreement = f"{top1} over {len(self.pairs)} maps"
        return f"{self.a.model} and {self.b.model}: {agreement}{f'; NOT met: {unmet}' if unmet else ''}"
