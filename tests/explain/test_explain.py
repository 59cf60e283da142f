"""Explainer and Explanation, against closed forms and against running one image and one class at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.methods.cam import CAMS, NEEDS, NEEDS_GRADIENT, WEIGHTS, compute_cam
from onnx_gradcam.methods.heatmap import upsample

CLASSES = 4


def classifier(batch: int | str = "batch", softmax: bool = True) -> onnx.ModelProto:
    """Conv → Relu (8×8) → MaxPool → Conv → Relu (4×4) → GAP → Gemm → Softmax, weights from a seed."""
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) * 0.5

    weights = {"w1": weight(6, 3, 3, 3), "w2": weight(5, 6, 3, 3), "w3": weight(CLASSES, 5), "b3": weight(CLASSES)}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    output = "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        output = "probabilities"
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", 1, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info(output, 1, [batch, CLASSES])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(classifier(), labels=["ant", "bee", "cat", "dog"]) as found:
        yield found


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 3, 8, 8)).astype(np.float32)


def test_closed_form(explainer: Any, x: np.ndarray) -> None:
    """GAP and Linear: ∂y_c/∂A_k = w_ck / (H·W) everywhere, so α = w_c / 16 and cam = relu(Σ_k w_ck A_k) / 16."""
    found = explainer.explain(x, target=2)
    w = weights_of(classifier())["w3"]
    np.testing.assert_allclose(found.gradient, np.broadcast_to(w[2][None, :, None, None] / 16, (3, 5, 4, 4)), rtol=1e-6)
    expected = np.maximum(np.einsum("k,nkhw->nhw", w[2], found.activation), 0) / 16
    np.testing.assert_allclose(found.cam, expected, atol=1e-6)
    score = found.activation.mean(axis=(2, 3)) @ w[2] + weights_of(classifier())["b3"][2]
    np.testing.assert_allclose(found.score, score, rtol=1e-5)
    np.testing.assert_allclose(found.probability, found.outputs["probabilities"][:, 2], rtol=1e-5)
    assert found.target_layer == "r2"
    assert found.score_name == "logits"
    assert found.score_activation == "Softmax"


def test_identities(explainer: Any, x: np.ndarray) -> None:
    gradcam = explainer.explain(x, target=1).cam
    np.testing.assert_allclose(explainer.explain(x, target=1, method="cam").cam, gradcam * 16, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explainer.explain(x, target=1, method="hirescam").cam, gradcam, rtol=1e-5, atol=1e-6)
    signed = explainer.explain(x, target=1, method="hirescam", signed=True)
    bias = weights_of(classifier())["b3"][1]
    np.testing.assert_allclose(signed.cam.sum(axis=(1, 2)), signed.score - bias, rtol=1e-4, atol=1e-5)


def test_default_is_top1(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x)
    np.testing.assert_array_equal(found.class_index, found.outputs["probabilities"].argmax(axis=1))
    assert [found.label(i) for i in range(3)] == [("ant", "bee", "cat", "dog")[c] for c in found.class_index]


@pytest.mark.parametrize("method", sorted(CAMS))
def test_every_method_row_by_row(explainer: Any, x: np.ndarray, method: str) -> None:
    """Top-k runs forward once and backward in rows; each row equals one image and one class explained alone."""
    found = explainer.explain(x, target=ogc.TopK(3), method=method)
    assert found.image_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    order = np.argsort(-found.outputs["probabilities"], axis=1)[:, :3]
    assert found.class_index.tolist() == order.ravel().tolist()
    for row in range(9):
        image, c = int(found.image_index[row]), int(found.class_index[row])
        alone = explainer.explain(x[image : image + 1], target=c, method=method)
        np.testing.assert_allclose(found.cam[row], alone.cam[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.heatmap[row], alone.heatmap[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.score[row], alone.score[0], rtol=1e-5)
    if not set(NEEDS[method]) - {"activation", "gradient"}:
        gradient = found.gradient if method in NEEDS_GRADIENT else None
        np.testing.assert_allclose(found.cam, compute_cam(method, found.activation, gradient)[1], rtol=1e-6)


@pytest.mark.parametrize("method", sorted(name for name in WEIGHTS if len(NEEDS[name]) == 2))
def test_counterfactual_is_the_method_on_the_negated_gradient(explainer: Any, x: np.ndarray, method: str) -> None:
    found = explainer.explain(x, target=0, method=method, counterfactual=True)
    np.testing.assert_allclose(
        found.cam, compute_cam(method, found.activation, -found.gradient)[1], rtol=1e-6, atol=1e-7
    )
    assert found.method == f"{method} counterfactual"


def test_targets(explainer: Any, x: np.ndarray) -> None:
    each = explainer.explain(x, target=["dog", 0, "label:bee"])
    assert each.class_index.tolist() == [3, 0, 1]
    for row, c in enumerate([3, 0, 1]):
        np.testing.assert_allclose(each.cam[row], explainer.explain(x[row : row + 1], target=c).cam[0], atol=1e-6)
    some = explainer.explain(x, target=ogc.Classes([1, 3]))
    assert some.class_index.tolist() == [1, 3] * 3
    assert some.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ogc.TargetError, match="2 targets for 3 images"):
        explainer.explain(x, target=[0, 1])


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("target", [None, ogc.TopK(2)])
def test_a_fixed_batch_gives_the_same_maps(explainer: Any, batch: int, target: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 3, 8, 8)).astype(np.float32)
    expected = explainer.explain(x, target=target)
    with ogc.Explainer(classifier(batch)) as fixed:
        found = fixed.explain(x, target=target)
    np.testing.assert_allclose(found.cam, expected.cam, atol=1e-6)
    np.testing.assert_array_equal(found.class_index, expected.class_index)
    np.testing.assert_allclose(found.outputs["probabilities"], expected.outputs["probabilities"], rtol=1e-5)


def flat_tail() -> onnx.ModelProto:
    """Between layer and score the images of a batch lie one behind the other on one axis, as some exporters write."""
    model = classifier(softmax=False)
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    gemm.input[0] = "folded"
    at = list(model.graph.node).index(gemm)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([-1], np.int64), "line"),
            numpy_helper.from_array(np.array([-1, 5], np.int64), "rows"),
        ]
    )
    for k, node in enumerate(
        [
            helper.make_node("Reshape", ["flat", "line"], ["one_axis"]),
            helper.make_node("Sigmoid", ["one_axis"], ["bent"]),
            helper.make_node("Reshape", ["bent", "rows"], ["folded"]),
        ]
    ):
        model.graph.node.insert(at + k, node)
    return model


@pytest.mark.parametrize("target", [ogc.TopK(2), ogc.Classes([1, 3])])
def test_rows_are_right_where_the_graph_cannot_be_cut_by_image(target: Any, x: np.ndarray) -> None:
    with ogc.Explainer(flat_tail()) as explainer:
        assert explainer.network.at_layers.cut is None
        found = explainer.explain(x, target=target)
        for row in range(6):
            image, c = int(found.image_index[row]), int(found.class_index[row])
            alone = explainer.explain(x[image : image + 1], target=c)
            np.testing.assert_allclose(found.cam[row], alone.cam[0], rtol=1e-5, atol=1e-7)


def test_layers_are_fused(x: np.ndarray) -> None:
    """Each cam upsampled, divided by its own maximum, then the mean, divided by its maximum."""
    with ogc.Explainer(classifier(), target_layer=["r1", "r2"]) as both:
        found = both.explain(x, target=1)
    parts = []
    for name in ["r1", "r2"]:
        with ogc.Explainer(classifier(), target_layer=name) as single:
            parts.append(single.explain(x, target=1).heatmap)
    assert [layer.name for layer in found.layers] == ["r1", "r2"]
    mean = np.mean(parts, axis=0)
    np.testing.assert_allclose(found.heatmap, mean / mean.max(axis=(1, 2), keepdims=True), atol=1e-5)
    with pytest.raises(ogc.LayerError, match="2 layers were fused"):
        _ = found.cam


def test_cam_needs_a_linear_head(x: np.ndarray) -> None:
    with (
        ogc.Explainer(classifier(), target_layer="r1") as early,
        pytest.raises(ogc.MethodError, match="global average pooling"),
    ):
        early.explain(x, method="cam")


def test_the_deployed_model_is_compared_once(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_gradcam.graph.prepare import prepare as module

    calls = []
    true = module.prepare

    def tampered(model: Any) -> Any:
        calls.append(1)
        prepared = true(model)
        import onnx_ir as ir

        bias = prepared.graph.initializers["b3"]
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.arange(CLASSES, dtype=np.float32) / 100)
        return prepared

    monkeypatch.setattr("onnx_gradcam.explain.network.prepare", tampered)
    with ogc.Explainer(classifier()) as wrong, pytest.raises(ogc.ForwardMismatch, match="'probabilities'"):
        wrong.explain(x)
    with ogc.Explainer(classifier(), check_forward=False) as unchecked:
        assert len(unchecked.explain(x)) == 3
    assert calls == [1, 1]


def test_inputs_of_all_kinds(explainer: Any, x: np.ndarray) -> None:
    expected = explainer.explain(x, target=0).cam
    np.testing.assert_array_equal(explainer.explain({"image": x}, target=0).cam, expected)
    np.testing.assert_allclose(explainer.explain(x.astype(np.float64), target=0).cam, expected, atol=1e-6)

    class OnlyDlpack:
        def __dlpack__(self, **kwargs: Any) -> Any:
            return x.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

    np.testing.assert_array_equal(explainer.explain(OnlyDlpack(), target=0).cam, expected)
    assert x.flags.writeable


def test_save_and_scale(explainer: Any, x: np.ndarray, tmp_path: Path) -> None:
    found = explainer.explain(x, target=1)
    assert found.overlay(row=1).shape == (8, 8, 3)
    found.save(tmp_path / "image")
    found.save(tmp_path / "shared", scale="shared")
    peaks = upsample(found.cam, (8, 8)).max(axis=(1, 2))
    np.testing.assert_allclose(found.scale, peaks, rtol=1e-6)
    for row in range(3):
        own = np.load(tmp_path / "image" / f"explanation-{row}.gradcam.1.npy") if row else None
        shared = np.load(sorted((tmp_path / "shared").glob("*.npy"))[row])
        np.testing.assert_allclose(shared, found.heatmap[row] * peaks[row] / peaks.max(), atol=1e-6)
        if own is not None:
            np.testing.assert_array_equal(own, found.heatmap[row])
    with pytest.raises(ogc.OutputError, match="--overwrite"):
        found.save(tmp_path / "image")


def test_sessions_are_kept_and_closed(x: np.ndarray) -> None:
    explainer = ogc.Explainer(classifier())
    explainer.explain(x)
    first = explainer.network.at_layers.whole_session
    explainer.explain(x)
    assert explainer.network.at_layers.whole_session is first
    explainer.close()
    assert not explainer.network.at_layers.passes().open_sessions
    assert len(explainer.explain(x)) == 3


def test_an_input_without_a_batch_axis_serves_every_row(rng: np.random.Generator) -> None:
    with ogc.Explainer(builders.scaled_by_an_input()) as explainer:
        feeds = {
            s.name: rng.standard_normal([2 if d is None else d for d in s.shape]) for s in explainer.inputs.values()
        }
        image = explainer.image_input.name
        found = explainer.explain(feeds, target=ogc.Classes([1, 0]))
        for row in range(len(found)):
            k = int(found.image_index[row])
            alone = {**feeds, image: feeds[image][k : k + 1]}
            expected = explainer.explain(alone, target=int(found.class_index[row])).cam[0]
            np.testing.assert_allclose(found.cam[row], expected, rtol=1e-4, atol=1e-6)
