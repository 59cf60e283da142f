"""Results as they are printed: one module for each format, all with the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from onnx_gradcam.jobs.attack.files import AttackedFile, AttackReport
from onnx_gradcam.jobs.compare.comparison import Comparison
from onnx_gradcam.jobs.compare.pairs import Pair
from onnx_gradcam.jobs.evaluate import EvaluationResult
from onnx_gradcam.jobs.explain import ExplainedRow, Outcome
from onnx_gradcam.jobs.failures import FailureReport
from onnx_gradcam.jobs.inspect import Overview
from onnx_gradcam.jobs.presets import Ranking
from onnx_gradcam.jobs.repeat import Repeat
from onnx_gradcam.jobs.report import json, text
from onnx_gradcam.jobs.video import VideoOutcome
from onnx_gradcam.verify import Report


class Renderer(Protocol):
    """What a format makes of results: texts without a line break at the end, "" where there is nothing to print."""

    def explained_row(self, row: ExplainedRow) -> str:
        """Return what is printed when a row is written."""

    def explained(self, outcome: Outcome) -> str:
        """Return what is printed when all images are explained."""

    def explained_heads(self, outcomes: Mapping[str, Outcome], kind: str = "heads") -> str:
        """Return what is printed when all images are explained for all heads, by their names, or in several runs."""

    def explained_video(self, outcome: VideoOutcome) -> str:
        """Return what is printed when a video is explained."""

    def repeated(self, rows: Sequence[Repeat]) -> str:
        """Return how the maps of a repeated run compare."""

    def compared_pair(self, pair: Pair) -> str:
        """Return what is printed when two maps are compared."""

    def compared(self, comparison: Comparison, written: Path | None = None) -> str:
        """Return what is printed when all images are compared; ``written``: the file that was written, if any."""

    def evaluated(self, evaluation: EvaluationResult, written: Path) -> str:
        """Return the metrics of a model; ``written``: the file that was written."""

    def attacked_file(self, attacked: AttackedFile) -> str:
        """Return what is printed when an image is attacked."""

    def attacked(self, report: AttackReport, written: Path) -> str:
        """Return what is printed when all images are attacked; ``written``: the file that was written."""

    def failed(self, report: FailureReport, written: Path) -> str:
        """Return the mistakes of a model; ``written``: the file that was written."""

    def inspected(self, overview: Overview, ranking: Ranking | None) -> str:
        """Return what a model is, and which preprocessing fits a photo."""

    def verified(self, report: Report) -> str:
        """Return the checks of a model."""


RENDERERS: Mapping[str, Renderer] = {"text": text, "json": json}
