"""How the name of a method may be spelled, and the one way to a checked recipe."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.methods.table import NAMES, canonical, options_for_json, recipe_of


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_its_own(name: str) -> None:
    for spelling in (name, name.upper(), name.replace("-", "_"), name.replace("-", " "), name.replace("-", "")):
        assert canonical(spelling) == name
    assert canonical(name.replace("++", "_plus_plus")) == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("GradCAM", "gradcam"),
        ("grad-cam", "gradcam"),
        ("Grad-CAM++", "gradcam++"),
        ("grad_cam++", "gradcam++"),
        ("GradCAMPlusPlus", "gradcam++"),
        ("GradCAMpp", "gradcam++"),
        ("SmoothGradCAMpp", "smooth-gradcam++"),
        ("HiResCAM", "hirescam"),
        ("XGradCAM", "xgradcam"),
        ("GradCAMElementWise", "elementwise"),
        ("Eigen-CAM", "eigencam"),
        ("InputXGradient", "input-x-gradient"),
        ("IntegratedGradients", "integrated-gradients"),
        ("Guided Backpropagation", "guided-backprop"),
        ("GuidedGradCam", "guided-gradcam"),
        ("SmoothGrad", "smoothgrad"),
        ("FullGrad", "fullgrad"),
    ],
)
def test_names_of_other_tools(spelling: str, name: str) -> None:
    assert canonical(spelling) == name
    assert recipe_of(spelling).name == name


@pytest.mark.parametrize(("unknown", "near"), [("gradcamm", "'gradcam'"), ("scorekam", "cam"), ("", "'")])
def test_other_names_are_none(unknown: str, near: str) -> None:
    with pytest.raises(ogc.MethodError, match=f"unknown method '{unknown}'") as error:
        recipe_of(unknown)
    assert near in error.value.hint


def test_options_of_arrays_are_recorded_by_their_shape() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    options = {"steps": np.int64(3), "baseline": {"x": torch.zeros(1, 3), "w": np.float32(0.5), "v": "fixed"}}
    recorded = options_for_json(recipe_of("integrated-gradients", options=options))
    assert recorded == {"steps": 3, "baseline": {"x": "array (1, 3)", "w": 0.5, "v": "fixed"}}
    assert json.loads(json.dumps(recorded)) == recorded


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"fusion": "mena"}, "unknown fusion 'mena'"),
        ({"smooth": "nois"}, "unknown smoothing 'nois'"),
        ({"options": {"step": 3}}, "has no option 'step'"),
        ({"method": "smoothgrad", "options": {"samples": "many"}}, "option 'samples' is 'many'"),
        ({"method": "deconvolution", "options": {"rectifiers": 3}}, "option 'rectifiers' is 3"),
        ({"method": "EigenCAM", "counterfactual": True}, "no counterfactual"),
    ],
)
def test_a_recipe_is_checked(keywords: dict[str, Any], what: str) -> None:
    with pytest.raises(ogc.MethodError, match=what):
        recipe_of(**{"method": "gradcam", **keywords})
