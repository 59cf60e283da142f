"""Guided backpropagation, deconvolution and guided products, against derivatives written by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import naive_net
import numpy as np
import onnx
import pytest
from measures import close, scaled
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.methods import cam

W = naive_net.weights()
X = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)
TARGETS = [2, 0, 3]
CLASSES = np.array(TARGETS)


# --------------------------------------------------------------------------------------------------- guided


@pytest.mark.parametrize(("method", "rule"), [("guided-backprop", "guided"), ("deconvolution", "deconvolution")])
def test_gated_rectifiers(explainer: Any, method: str, rule: str) -> None:
    found = explainer.explain(X, TARGETS, method)
    expected = naive_net.backward(W, X, CLASSES, rule).x
    close(found.attribution, expected)
    assert np.abs(expected - naive_net.backward(W, X, CLASSES).x).max() > 0.1 * np.abs(expected).max()
    magnitude = np.abs(expected).max(axis=1)
    close(found.heatmap, scaled(magnitude))
    assert found.rectifiers.piecewise == {"Relu": 2}
    assert found.rectifiers.smooth == found.rectifiers.left_alone == {}
    assert found.account()["rectifiers"] == {"piecewise": {"Relu": 2}, "smooth": {}, "left_alone": {}}
    assert found.warnings == ()


@pytest.mark.parametrize("method", sorted(cam.CAMS))
@pytest.mark.parametrize("target", [TARGETS, ogc.TopK(2)], ids=["one", "two"])
def test_a_cam_times_guided_backpropagation(explainer: Any, method: str, target: Any) -> None:
    found = explainer.explain(X, target, f"guided-{method}")
    where = explainer.explain(X, target, method)
    np.testing.assert_array_equal(found.class_index, where.class_index)
    edges = naive_net.backward(W, X[found.image_index], found.class_index, "guided").x
    expected = where.heatmap[:, None] * edges
    close(found.attribution, expected)
    magnitude = np.abs(expected).max(axis=1)
    close(found.heatmap, scaled(magnitude))
    assert found.layers[0].name == where.layers[0].name == "relu2"
    np.testing.assert_array_equal(found.cam, where.cam)
    signed = explainer.explain(X, target, f"guided-{method}", signed=True).heatmap
    total = expected.sum(axis=1)
    close(signed, scaled(total))


@pytest.mark.parametrize(("method", "rule"), [("guided-backprop", "guided"), ("deconvolution", "deconvolution")])
@pytest.mark.parametrize("target", [TARGETS, ogc.Classes([3, 1])], ids=["one", "two"])
def test_what_speaks_against_a_class(explainer: Any, method: str, rule: str, target: Any) -> None:
    """−score pulled back through the gates: not the negative of the score."""
    found = explainer.explain(X, target, method, counterfactual=True)
    x, classes = X[found.image_index], found.class_index
    expected = naive_net.backward(W, x, classes, rule, sign=-1).x
    close(found.attribution, expected)
    assert np.abs(expected + naive_net.backward(W, x, classes, rule).x).max() > 0.1 * np.abs(expected).max()
    assert found.method == f"{method} counterfactual"


def test_guided_gradcam_against_a_class(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "guided-gradcam", counterfactual=True)
    where = explainer.explain(X, TARGETS, "gradcam", counterfactual=True).heatmap
    close(found.attribution, where[:, None] * naive_net.backward(W, X, CLASSES, "guided", sign=-1).x)


def test_what_is_not_gated_is_said() -> None:
    net = Net()
    x = net.op("Sigmoid", net.conv(net.input("x", ["N", 3, 6, 6]), (3, 4)), out="gate")
    net.head(net.op("Relu", net.conv(x, (4, 4)), out="relu"), 4)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        for method in ("guided-backprop", "guided-gradcam"):
            said = "1 rectifier gated: 1 Relu; left alone: 1 Sigmoid"
            assert said in explainer.explain(X, TARGETS, method).warnings
        assert explainer.explain(X, TARGETS, "saliency").warnings == ()


def test_a_blank_map_is_explained(explainer: Any) -> None:
    """No weight of class 0 is positive: no cotangent passes the gate of the last ReLU."""
    negative = dataclasses.replace(W, w3=-np.abs(W.w3))
    with ogc.Explainer(naive_net.model(negative), providers=["cpu"]) as explainer:
        found = explainer.explain(X, 0, "guided-backprop")
        assert found.is_blank.all()
        assert found.warnings[0].startswith("3 of 3 maps are blank: no positive share")
        assert not explainer.explain(X, 0, "saliency").is_blank.any()


def test_without_a_rectifier_it_is_the_gradient() -> None:
    net = Net()
    net.head(net.op("Tanh", net.conv(net.input("x", ["N", 3, 6, 6]), (3, 4)), out="last"), 4)
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        found = explainer.explain(X, TARGETS, "guided-backprop")
        (warning,) = found.warnings
        assert "no rectifier" in warning
        np.testing.assert_array_equal(found.attribution, explainer.explain(X, TARGETS, "saliency").attribution)


def test_the_picture_of_guided_backpropagation(explainer: Any) -> None:
    found = explainer.explain(X, TARGETS, "guided-backprop")
    v = found.attribution[1].transpose(1, 2, 0) / np.abs(found.attribution[1]).max().astype(np.float64)
    expected = np.clip((v - v.mean()) / (v.std() + 1e-5) * 0.1 + 0.5, 0, 1) * 255
    assert np.abs(found.detail(1) - expected).max() <= 0.501
    np.testing.assert_array_equal(found[1:2].detail(0), found.detail(1))
    picture = found.figure(row=1)
    assert (picture == 128).all(axis=2).sum() < picture.shape[0] * picture.shape[1] / 2
    with pytest.raises(ogc.OutputError, match="has no picture of its own"):
        explainer.explain(X, TARGETS, "saliency").detail()


def bounded_net() -> onnx.ModelProto:
    """A Conv, a Relu6, a Conv, a Relu, and a linear head."""
    net = Net()
    bounds = net.array(np.float32(0)), net.array(np.float32(6))
    x = net.op("Clip", net.conv(net.input("x", ["N", 3, 6, 6]), (3, 4)), *bounds, out="bounded")
    net.head(net.op("Relu", net.conv(x, (4, 4)), out="relu"), 4)
    return net.model({"logits": ["N", 5]})


def test_which_rectifiers_are_gated_is_an_option() -> None:
    with ogc.Explainer(bounded_net(), providers=["cpu"]) as explainer:
        of_all = explainer.explain(X, TARGETS, "guided-backprop")
        of_relu = explainer.explain(X, TARGETS, "guided-backprop", rectifiers="relu")
        product = explainer.explain(X, TARGETS, "guided-gradcam", rectifiers="relu")
        where = explainer.explain(X, TARGETS, "gradcam")
        with pytest.raises(ogc.MethodError, match="option 'rectifiers' is 'relu6'") as error:
            explainer.explain(X, TARGETS, "guided-gradcam", rectifiers="relu6")
    assert "'relu'" in error.value.hint
    assert of_all.rectifiers == ogc.Rectifiers({"Clip": 1, "Relu": 1}, {}, {})
    assert of_relu.rectifiers == product.rectifiers == ogc.Rectifiers({"Relu": 1}, {}, {"Clip": 1})
    assert of_relu.account()["options"] == {"rectifiers": "relu"}
    assert of_all.account()["options"] == {"rectifiers": "all"}
    assert np.abs(of_all.attribution - of_relu.attribution).max() > 0.1 * np.abs(of_relu.attribution).max()
    close(product.attribution, where.heatmap[:, None] * of_relu.attribution)
