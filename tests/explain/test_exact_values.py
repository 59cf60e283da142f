"""Small nets whose attributions are round numbers, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import AFTER_RELU, CASES, GRADCAM_OF_WINDOWS, NETS, PIXELS, Case

import onnx_gradcam as ogc


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.net}, {case.method}")
def test_attribution(case: Case) -> None:
    for name, expected in case.expected.items():
        score = "y" if case.net in AFTER_RELU else "auto"
        with ogc.Explainer(NETS[case.net](), image_input=name, score=score, providers=["cpu"]) as explainer:
            explanation = explainer.explain(dict(case.feeds), case.target, case.method, **case.options)
        np.testing.assert_allclose(explanation.attribution, expected, rtol=1e-5, atol=1e-5)


def test_gradcam() -> None:
    with ogc.Explainer(NETS["convolution"](), "windows", score="y", providers=["cpu"]) as explainer:
        np.testing.assert_allclose(explainer.explain(PIXELS, 0).cam, GRADCAM_OF_WINDOWS)
