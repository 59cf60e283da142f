"""What attributions of real models add up to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnx_gradcam as ogc

DEEPLIFT = {"winml-mnist": 1e-5, "stm-mobilenetv2-035-tfs": 1e-5, "squeezenet-fp16": 1e-5}
SLOW = {"mesonet": 1e-5, "ppocr-cls-v3": 1e-4, "shufflenetv2-int8": 1e-2}


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [*DEEPLIFT.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW.items())],
)
def test_deeplift_adds_up_to_the_difference_of_scores(zoo: Path, name: str, tolerance: float) -> None:
    with ogc.Explainer(zoo / "models" / f"{name}.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(zoo / "images" / "chelsea.png", method="deeplift")
    np.testing.assert_allclose(found.completeness.total, found.completeness.difference, rtol=tolerance)


def test_relevance_adds_up_to_the_score_in_half_precision(zoo: Path) -> None:
    """SqueezeNet has no normalisation, so that biases hold little; without them nothing is lost."""
    with ogc.Explainer(zoo / "models" / "squeezenet-fp16.onnx", providers=["cpu"]) as explainer:
        photo = zoo / "images" / "chelsea.png"
        shared, whole = (explainer.explain_image(photo, method="lrp", biases=b) for b in ("share", "none"))
    np.testing.assert_allclose(shared.completeness.total / shared.score, 0.990, atol=0.002)
    np.testing.assert_allclose(whole.completeness.total / whole.score, 1, atol=1e-3)
