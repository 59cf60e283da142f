"""NaN and infinity never become a map: the image, the value and the node are named, and nothing else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from nets import Net, feeds
from onnx import TensorProto, numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.engine.finite import broken_images, is_finite, unrankable_images

X = feeds(builders.plain(), batch=3)["x"]
METHODS = ("gradcam", "eigencam", "saliency", "integrated-gradients", "smoothgrad", "guided-gradcam")


def refused(model: onnx.ModelProto, x: np.ndarray = X, layer: str = "auto", **keywords: Any) -> ogc.NotFinite:
    with ogc.Explainer(model, layer, providers=["cpu"]) as explainer, pytest.raises(ogc.NotFinite) as caught:
        explainer.explain(x, **keywords)
    return caught.value


# --- the arrays themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_arrays(dtype: Any, bad: float) -> None:
    array = np.ones((3, 2, 5), dtype)
    assert is_finite(array)
    assert is_finite(array * np.finfo(dtype).max), "the sum of squares overflows, the array does not"
    assert is_finite(np.zeros((0, 2), dtype))
    array[1, 1, 2] = bad
    assert not is_finite(array)
    assert broken_images(array, 3) == [1]
    assert broken_images(np.repeat(array, 4, axis=0), 3) == [1], "four entries for each image"
    assert is_finite(array.astype(np.float32).view(np.int32)), "integers always are"


def test_scores_that_cannot_be_ranked() -> None:
    scores = np.array([[0, -np.inf, 2], [0, np.nan, 2], [0, 1, 2], [np.inf, 1, 2]])
    assert unrankable_images(scores) == [1, 3]


# --- the forward pass ------------------------------------------------------------------------------------------


def poisoned(number: int, value: float) -> onnx.ModelProto:
    """``plain`` with a weight that is none: 0 and 1 of the convolution, 2 and 3 of the linear layer."""
    model = builders.plain()
    tensor = model.graph.initializer[number]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number(value: float, method: str) -> None:
    error = refused(poisoned(3, value), method=method)
    assert error.images == (0, 1, 2)
    assert error.value == "logits"
    assert f"{'NaN' if np.isnan(value) else 'infinity'} in 'w3', in the model itself" in error.where


@pytest.mark.parametrize("target", [None, 2, ogc.TopK(2), ogc.Finer(1), ogc.Probability(0)], ids=str)
@pytest.mark.parametrize("smooth", [(), "noise"])
def test_an_image_that_overflows_is_named_alone(target: Any, smooth: Any) -> None:
    x = X.copy()
    x[1] *= 3e37
    error = refused(builders.plain(), x, target=target, smooth=smooth)
    assert error.images == (1,)
    assert "infinity first at node 'node_" in error.where
    with ogc.Explainer(builders.plain(), providers=["cpu"]) as explainer:
        rest = explainer.explain(np.delete(x, error.images, axis=0), target=target, smooth=smooth)
    assert np.isfinite(rest.heatmap).all()


def test_a_copy_of_an_image_is_called_by_its_original() -> None:
    """Only some copies overflow: the image itself just does not."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv"), out="relu")
    net.head(relu, 4, out="raw")
    peak = net.op("ReduceMax", "x", net.ints(1, 2, 3), keepdims=0)
    over = net.op("Where", net.op("Greater", peak, net.array(np.float32(10))), net.array(np.float32(np.inf)), peak)
    net.op("Add", "raw", net.op("Unsqueeze", over, net.ints(1)), out="logits")
    x = X / np.abs(X).max()
    x[2, 0, 0, 0] = 9.99
    error = refused(net.model({"logits": ["N", 5]}), x, method="smoothgrad", samples=20)
    assert error.images == (2,)
    assert "in a copy of the input" in str(error)


def test_float16_overflows() -> None:
    """Weights of 100 and an image of 600: the convolution exceeds 65504 in one image."""
    net = Net()
    x = net.input("x", ["N", 3, 4, 4], np.float16)
    conv = net.op("Conv", x, net.array(np.full((2, 3, 1, 1), 100, np.float16)), out="conv")
    relu = net.op("Relu", conv, out="relu")
    pooled = net.op("Flatten", net.op("GlobalAveragePool", relu))
    net.op("MatMul", pooled, net.array(np.array([[1, 0.5], [0.5, 1]], np.float16)), out="logits")
    model = net.model({"logits": ["N", 2]}, {"logits": TensorProto.FLOAT16})
    images = np.ones((3, 3, 4, 4), np.float16)
    images[1] = 600
    for target in (None, ogc.TopK(2)):
        error = refused(model, images, target=target)
        assert error.images == (1,)
        assert "node_conv" in error.where
        assert "float32" in error.hint


# --- the backward pass -----------------------------------------------------------------------------------------


def with_square_root() -> onnx.ModelProto:
    """The mean over the root of what lies behind ``relu``: where that is 0, the slope is infinite."""
    net = Net()
    relu = net.op("Relu", net.input("x", ["N", 3, 4, 4]), out="relu")
    net.head(net.op("Sqrt", net.op("Mul", relu, net.array(np.float32(2)), out="twice"), out="root"), 3)
    return net.model({"logits": ["N", 5]})


@pytest.mark.parametrize("target", [None, 2, ogc.TopK(2)], ids=str)
def test_a_gradient_that_is_infinite(target: Any) -> None:
    x = np.abs(X[:, :, :4, :4]) + 1
    x[2, 1, 1, 1] = 0
    model = with_square_root()
    error = refused(model, x, "relu", target=target)
    assert error.images == (2,)
    assert error.value == "relu"
    assert "goes back over node 'node_root' (Sqrt)" in error.where
    assert "eigencam" in error.hint
    assert "reciprocam" in error.hint
    with ogc.Explainer(model, "relu", providers=["cpu"]) as explainer:
        assert np.isfinite(explainer.explain(x, target=target, method="eigencam").heatmap).all()
        assert np.isfinite(explainer.explain(x[:2], target=target).heatmap).all()


def test_a_map_that_overflows() -> None:
    """y = (a − b) + (c − d) of four channels near the end of float32: y and its gradient ±1 are small, a + c is not."""
    net = Net()
    large = net.op("Mul", net.input("x", ["N", 4, 2, 2]), net.array(np.float32(1e38)), out="large")
    a, b, c, d = net.ops("Split", large, out=["a", "b", "c", "d"], axis=1, num_outputs=4)
    total = net.op("Add", net.op("Sub", a, b), net.op("Sub", c, d))
    net.op("ReduceSum", total, net.ints(2, 3), keepdims=0, out="y")
    x = np.ones((3, 4, 2, 2), np.float32)
    x[1] = 3
    error = refused(net.model({"y": ["N", 1]}), x, "large", method="layercam")
    assert error.images == (1,)
    assert "the map at 'large' overflows float32" in str(error)


# --- what is finite where it matters ---------------------------------------------------------------------------


def masked() -> onnx.ModelProto:
    """Classes 1 and 4 are ruled out: their logits are −∞."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv"), out="relu")
    net.head(relu, 4, out="raw")
    net.op("Add", "raw", net.array(np.array([0, -np.inf, 0, 0, -np.inf], np.float32)), out="logits")
    return net.model({"logits": ["N", 5], "raw": ["N", 5]})


@pytest.mark.parametrize("target", [None, 0, ogc.TopK(3), ogc.Probability(2)], ids=str)
def test_classes_that_are_ruled_out_stop_nothing(target: Any) -> None:
    with ogc.Explainer(masked(), providers=["cpu"]) as explainer:
        explanation = explainer.explain(X, target=target)
    assert np.isfinite(explanation.heatmap).all()
    raw = explanation.outputs["raw"][:, [0, 2, 3]].astype(np.float64)
    of_class = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    expected = of_class[explanation.image_index, np.searchsorted([0, 2, 3], explanation.class_index)]
    np.testing.assert_allclose(explanation.probability, expected, rtol=1e-5)


@pytest.mark.parametrize("target", [1, ogc.TopK(4)], ids=str)
def test_a_class_that_is_ruled_out_is_no_target(target: Any) -> None:
    error = refused(masked(), target=target)
    assert "the score of class 1 is -inf" in str(error)
    assert "rules this one out" in error.hint


def test_another_output_may_hold_what_it_likes() -> None:
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv"), out="relu")
    net.head(relu, 4)
    net.op("Log", net.op("ReduceMin", relu, net.ints(1, 2, 3), keepdims=0), out="other")
    with ogc.Explainer(net.model({"logits": ["N", 5], "other": ["N"]}), providers=["cpu"]) as explainer:
        explanation = explainer.explain(X)
    assert (explanation.outputs["other"] == -np.inf).all()
    assert np.isfinite(explanation.heatmap).all()


def test_a_baseline_without_a_score_is_a_warning() -> None:
    """y = w · x / |x|: at the baseline 0 there is no score, on the way to x there is."""
    net = Net()
    flat = net.op("Flatten", net.input("x", ["N", 3, 2, 2]), out="flat")
    norm = net.op("ReduceL2", flat, net.ints(1), keepdims=1)
    net.linear(net.op("Div", flat, norm), 12, 5, out="logits")
    x = X[:, :, :2, :2]
    with ogc.Explainer(net.model({"logits": ["N", 5]}), providers=["cpu"]) as explainer:
        explanation = explainer.explain(x, method="integrated-gradients", steps=10)
    assert any("NaN or infinity at the baseline" in warning for warning in explanation.warnings)
    assert np.isfinite(explanation.heatmap).all()


# --- what it costs ---------------------------------------------------------------------------------------------


def test_no_session_is_opened_for_it_where_all_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Callable[..., str]] = []
    monkeypatch.setattr("onnx_gradcam.engine.checks.trace", lambda *args: calls.append(args[0]))
    with ogc.Explainer(builders.plain(), providers=["cpu"]) as explainer:
        explainer.explain(X)
        explainer.explain(X, ogc.TopK(2))
    assert calls == []
