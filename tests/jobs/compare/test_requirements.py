"""Clauses: what is read, what is refused, and what satisfies them."""

from __future__ import annotations

import pytest

import onnx_gradcam as ogc
from onnx_gradcam.jobs.compare import Requirement
from onnx_gradcam.jobs.report import text as text_format

MEASURED = {("pearson", "p05"): 0.9, ("distance", "worst"): 0.2, ("agreement", ""): 1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pearson:p05>=0.9", ("pearson", "p05", ">=", 0.9)),
        (" iou:median >= .6 ", ("iou", "median", ">=", 0.6)),
        ("distance:worst<=1e-1", ("distance", "worst", "<=", 0.1)),
        ("agreement>=1", ("agreement", "", ">=", 1.0)),
    ],
)
def test_parse(text: str, expected: tuple[str, str, str, float]) -> None:
    found = Requirement.parse(text)
    assert (found.metric, found.statistic, found.relation, found.limit) == expected
    assert found.text == text


@pytest.mark.parametrize(
    "text",
    ["", "pearson>=0.9", "agreement:p05>=0.9", "pearson:p5>=0.9", "pearson:p05>0.9", "pearson:p05=0.9", "ssim:p05>=1",
     "pearson:p05>=high", "pearson:p05>=nan", "pearson:p05>=", "pearson:mean>=0.9"],
)  # fmt: skip
def test_what_is_no_clause(text: str) -> None:
    with pytest.raises(ogc.RequirementError) as caught:
        Requirement.parse(text)
    assert caught.value.clause == text
    assert "METRIC:STATISTIC>=NUMBER" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("pearson:p05>=0.9", True), ("pearson:p05>=0.91", False), ("pearson:p05<=0.9", True),
        ("distance:worst<=0.1", False), ("distance:worst<=0.2", True), ("agreement>=1", True),
        ("iou:median>=0", False), ("iou:median<=1", False),
    ],
)  # fmt: skip
def test_judge(text: str, ok: bool) -> None:
    """What could not be measured satisfies nothing."""
    finding = Requirement.parse(text).judge(lambda *asked: MEASURED.get(asked))
    assert finding.ok == ok
    assert ("NOT met" in text_format.finding(finding)) != ok
