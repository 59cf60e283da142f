"""Detectors in the forms in which edge devices run them: the gradient of their score is checked without rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dense_kinds import deployed
from planted import planted, scaled
from quick import quick_first

import onnx_gradcam as ogc

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "form"),
    quick_first([("end to end", "qdq"), ("yolov5", "qdq"), ("yolov5", "qoperator"), ("raw v5", "dynamic")]),
)
def test_a_quantized_detector_is_verified(name: str, form: str, tmp_path: Path) -> None:
    report = ogc.verify(deployed(name, form, tmp_path), x=X, providers=["cpu"])
    statuses = {check.name: check.status for check in report.checks}
    assert report.ok, statuses
    assert any("without rounding" in name for name in statuses)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_wrong_rule_is_found_in_a_quantized_detector(form: str, tmp_path: Path) -> None:
    """The rule of Conv is too large by a tenth; the gradient of the image goes through several."""
    table = planted("Conv", 0, scaled(1.1))
    report = ogc.verify(deployed("yolov5", form, tmp_path), x=X, providers=["cpu"], table=table)
    failed = {check.name: check.error for check in report.checks if check.status == "fail"}
    assert report.status == "fail"
    assert failed["node by node"] == pytest.approx(0.1, rel=0.1)
    assert any(name.startswith("gradient") for name in failed)
