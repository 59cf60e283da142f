"""Results as one JSON document, printed when all is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from onnx_gradcam.jobs.attack.files import AttackedFile, AttackReport
from onnx_gradcam.jobs.compare.comparison import Comparison
from onnx_gradcam.jobs.compare.pairs import Pair
from onnx_gradcam.jobs.evaluate import EvaluationResult
from onnx_gradcam.jobs.explain import ExplainedRow, Outcome
from onnx_gradcam.jobs.failures import FailureReport
from onnx_gradcam.jobs.inspect import Overview
from onnx_gradcam.jobs.presets import Ranking
from onnx_gradcam.jobs.repeat import Repeat
from onnx_gradcam.jobs.video import VideoOutcome
from onnx_gradcam.results.records import without_nan
from onnx_gradcam.verify import Report


def explained_row(row: ExplainedRow) -> str:
    """Return nothing: the row stands in the manifest."""
    return ""


def explained(outcome: Outcome) -> str:
    """Return the manifest."""
    return outcome.manifest.read_text("utf-8").rstrip("\n")


def explained_heads(outcomes: Mapping[str, Outcome], kind: str = "heads") -> str:
    """Return the manifest of each head, by the name of its first output, or of each run of another kind."""
    manifests = {name: json.loads(outcome.manifest.read_text("utf-8")) for name, outcome in outcomes.items()}
    return json.dumps({kind: manifests}, indent=2, allow_nan=False)


def explained_video(outcome: VideoOutcome) -> str:
    """Return the document that was written."""
    assert outcome.document is not None
    return outcome.document.read_text("utf-8").rstrip("\n")


def repeated(rows: Sequence[Repeat]) -> str:
    """Return a list of rows, each with the largest difference of the two maps."""
    return _document([{**asdict(row), "same": row.same} for row in rows])


def compared_pair(pair: Pair) -> str:
    """Return nothing: the pair stands in the comparison."""
    return ""


def compared(comparison: Comparison, written: Path | None = None) -> str:
    """Return the statistics, the judged requirements and all pairs; what was written names the pictures as well."""
    if written is not None:
        return written.read_text("utf-8").rstrip("\n")
    return _document(comparison.as_dict())


def evaluated(evaluation: EvaluationResult, written: Path) -> str:
    """Return the document that was written: it names the pictures as well."""
    return written.read_text("utf-8").rstrip("\n")


def attacked_file(attacked: AttackedFile) -> str:
    """Return nothing: the image stands in the document."""
    return ""


def attacked(report: AttackReport, written: Path) -> str:
    """Return the document that was written."""
    return written.read_text("utf-8").rstrip("\n")


def failed(report: FailureReport, written: Path) -> str:
    """Return the document that was written."""
    return written.read_text("utf-8").rstrip("\n")


def inspected(overview: Overview, ranking: Ranking | None) -> str:
    """Return all that is known of the model."""
    results = [] if ranking is None else [{**asdict(result), "margin": result.margin} for result in ranking.results]
    content = {**asdict(overview), "presets": results, "line": None if ranking is None else ranking.line}
    return json.dumps(without_nan(content), indent=2, default=str, allow_nan=False)


def verified(report: Report) -> str:
    """Return all checks, those of single nodes included."""
    return _document(report.as_dict())


def _document(content: object) -> str:
    """Return content as JSON, which has neither NaN nor infinity: null stands for them. What it has not is text."""
    return json.dumps(without_nan(content), indent=2, default=str, allow_nan=False)
