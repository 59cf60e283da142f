"""The method of "auto": hirescam for dense scores, gradcam for all others."""

from __future__ import annotations

import inspect

import dense_kinds
import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.jobs.inspect import overview
from onnx_gradcam.jobs.request import Request

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
REMARK = "dense score: hirescam; --method gradcam gives Grad-CAM"
FLAT = "a weight for each place"


def dense(name: str) -> onnx.ModelProto:
    return dense_kinds.model(dense_kinds.KINDS[name].write)


def classifier(pooled: bool = True) -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 32, 32]), (3, 4), stride=2), out="last")
    x = net.op("Flatten", net.op("GlobalAveragePool", x) if pooled else net.op("MaxPool", x, kernel_shape=[2, 2]))
    net.linear(x, 4 if pooled else 4 * 15 * 15, 5, out="logits")
    return net.model({"logits": [1, 5]})


@pytest.mark.parametrize("name", ["yolov5", "centernet", "raw v8", "ctc", "detr"])
def test_a_dense_score_is_explained_by_hirescam(name: str) -> None:
    """Its map is Σ_k relu(G · A) by hand; --method gradcam is the mean over space, as asked."""
    with ogc.Explainer(dense(name), providers=["cpu"]) as explainer:
        found, asked = explainer.explain(X), explainer.explain(X, method="gradcam")
    assert (found.method, found.recipe.method, asked.method) == ("hirescam", "hirescam", "gradcam")
    for layer, of_asked in zip(found.layers, asked.layers, strict=True):
        assert layer.gradient is not None
        a, g = layer.activation.astype(np.float64), layer.gradient.astype(np.float64)
        np.testing.assert_allclose(layer.cam, np.maximum((a * g).sum(axis=1), 0), rtol=1e-4, atol=1e-7)
        mean = g.mean(axis=(2, 3), keepdims=True)
        np.testing.assert_allclose(of_asked.cam, np.maximum((a * mean).sum(axis=1), 0), rtol=1e-4, atol=1e-7)
    assert REMARK in found.warnings
    assert REMARK not in asked.warnings


def test_one_score_for_each_image_is_explained_by_gradcam() -> None:
    with ogc.Explainer(classifier(), providers=["cpu"]) as explainer:
        found, asked = explainer.explain(X), explainer.explain(X, method="gradcam")
    assert found.method == "gradcam"
    np.testing.assert_array_equal(found.heatmap, asked.heatmap)
    assert REMARK not in found.warnings
    assert not any(FLAT in warning for warning in found.warnings)


@pytest.mark.parametrize(("method", "is_told"), [("auto", True), ("hirescam", False), ("eigencam", False)])
def test_a_mean_of_a_flattened_grid_is_named(method: str, is_told: bool) -> None:
    with ogc.Explainer(classifier(pooled=False), providers=["cpu"]) as explainer:
        found = explainer.explain(X, method=method)
    assert any(FLAT in warning and "--method hirescam" in warning for warning in found.warnings) is is_told


def test_auto_is_the_default_everywhere() -> None:
    functions = (
        ogc.Explainer.explain, ogc.Explainer.explain_image, ogc.Explainer.explain_images, ogc.Explainer.explain_each,
        ogc.compare,
    )  # fmt: skip
    assert {inspect.signature(function).parameters["method"].default for function in functions} == {"auto"}
    assert Request("model.onnx", ()).method == "auto"


def test_auto_takes_the_variants_of_both() -> None:
    with ogc.Explainer(dense("centernet"), providers=["cpu"]) as explainer:
        assert explainer.explain(X, method="Auto", signed=True).method == "hirescam signed"
        with pytest.raises(ogc.MethodError, match="has no option 'steps'"):
            explainer.explain(X, steps=3)


def test_inspect_says_which_and_why() -> None:
    of_cells, of_images = overview(dense("yolov5")), overview(classifier())
    assert (of_cells.method, of_images.method) == ("hirescam", "gradcam")
    assert "--method gradcam gives Grad-CAM" in of_cells.method_note
    assert of_images.method_note == "one score for each image"


def test_two_models_are_compared_by_one_method() -> None:
    comparison = ogc.compare(dense("centernet"), dense("centernet"), [X_FILE], target=0, preprocess="zero-one")
    assert comparison.method == "hirescam"
    assert comparison.request["method"] == "hirescam"
    assert REMARK in comparison.warnings


X_FILE = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
