"""Concepts of a layer through the Explainer: their rows, their classes by the head, and what they lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.methods.factorization import deep_feature_factorization

DEMO = Path(__file__).parents[2] / "models"
HEAD = np.array([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, -1]], np.float32)


def classifier() -> onnx.ModelProto:
    net = Net()
    net.input("x", ["N", 3, 8, 8])
    a = net.op("Relu", net.conv("x", (3, 4)), out="a")
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    y = net.op("Gemm", flat, net.array(HEAD), out="y", transB=1)
    return net.model({net.op("Softmax", y, out="p"): ["N", 3]})


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def test_rows_are_images_times_concepts_with_their_classes() -> None:
    x = images(2)
    with ogc.Explainer(classifier(), labels=["cat", "dog", "car"], providers=["cpu"]) as explainer:
        found = explainer.explain(x, method="dff", concepts=3)
        activation = explainer.explain(x, method="gradcam").activation
    expected = deep_feature_factorization(activation, concepts=3)
    np.testing.assert_array_equal(found.image_index, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.cam, expected.maps.reshape(6, *activation.shape[2:]), atol=1e-5)
    np.testing.assert_allclose(found.weights[:3, :, 0, 0], expected.vectors, atol=1e-5)
    np.testing.assert_array_equal(found.weights[:3], found.weights[3:])
    logits = expected.vectors @ HEAD.T  # the mean over space of a constant is that constant
    np.testing.assert_array_equal(found.class_index[:3], logits.argmax(axis=1))
    np.testing.assert_allclose(found.score[:3], logits.max(axis=1), rtol=1e-4)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found.probability[:3], 1 / p.sum(axis=1), rtol=1e-4)
    names = ["cat", "dog", "car"]
    for row in range(3):
        share, label = expected.shares[row], names[int(logits[row].argmax())]
        assert found.label(row) == f"concept {row + 1} ({share:.0%}): {label}"
        assert found.target(row) == f"concept:{row + 1}"


def test_the_two_objects_of_a_photo_are_concepts_of_their_own_classes() -> None:
    with ogc.Explainer(DEMO / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(DEMO / "images" / "arrow-and-circle.png", method="dff", concepts=4)
    assert {"arrow", "circle"} <= {found.label(row).rpartition(": ")[2] for row in range(4)}
    assert found.heatmap.shape[0] == 4
    assert found.heatmap.max(axis=(1, 2)) == pytest.approx(np.ones(4))


def test_a_model_without_classes_has_concepts_without_classes() -> None:
    net = Net()
    net.input("x", ["N", 3, 8, 8])
    a = net.op("Relu", net.conv("x", (3, 4)), out="a")
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    model = net.model({net.op("Gemm", flat, net.array(HEAD[:1]), out="y", transB=1): ["N", 1]})
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        found = explainer.explain(images(1), method="dff", concepts=2)
    np.testing.assert_array_equal(found.class_index, [-1, -1])
    np.testing.assert_allclose(found.score.sum(), 1, rtol=1e-5)  # shares of the activation
    assert np.isnan(found.probability).all()


@pytest.mark.parametrize(
    ("variant", "what"),
    [
        ({"signed": True}, "no signed variant"),
        ({"counterfactual": True}, "no counterfactual variant"),
        ({"smooth": "noise"}, "reads the activation alone"),
        ({"concepts": 99}, "99 concepts of 4 channels"),
    ],
)
def test_what_it_lacks(variant: dict[str, Any], what: str) -> None:
    with ogc.Explainer(classifier(), providers=["cpu"]) as explainer, pytest.raises(ogc.MethodError, match=what):
        explainer.explain(images(1), method="dff", **variant)


def test_one_layer_at_a_time() -> None:
    with (
        ogc.Explainer(DEMO / "shapes-resnet.onnx", ["relu_4", "relu_6"], providers=["cpu"]) as explainer,
        pytest.raises(ogc.MethodError, match="finds concepts in one layer"),
    ):
        explainer.explain_image(DEMO / "images" / "cross.png", method="dff")


def test_it_can_be_saved_and_read(tmp_path: Path) -> None:
    with ogc.Explainer(DEMO / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        explainer.explain_image(DEMO / "images" / "cross.png", method="dff", concepts=2).save(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {f"explanation.dff.concept-{k}.png" for k in (1, 2)}


def test_photos_share_their_concepts() -> None:
    """As one batch of their tensors; each drawn in the pixels of its own photo, with its own peak."""
    photos = [DEMO / "images" / name for name in ("arrow-and-circle.png", "cross.png", "drop.png")]
    with ogc.Explainer(DEMO / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        found = ogc.concepts(explainer, photos, 4)
        activation = np.concatenate([explainer.explain_image(photo).activation for photo in photos])
        alone = [explainer.explain_image(photo) for photo in photos]
    expected = deep_feature_factorization(activation, concepts=4)
    for k, (each, own) in enumerate(zip(found, alone, strict=True)):
        np.testing.assert_allclose(each.weights[:, :, 0, 0], expected.vectors, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(each.cam, expected.maps[k], atol=1e-3)
        assert each.heatmap.shape[1:] == own.heatmap.shape[1:]
        assert [each.label(row) for row in range(4)] == [found[0].label(row) for row in range(4)]
        np.testing.assert_array_equal(each.image_index, [0] * 4)
    assert np.stack([each.scale for each in found]).max(axis=0) == pytest.approx(np.ones(4), abs=0.1)
    assert ogc.contact_sheet(found, [photo.name for photo in photos]).ndim == 3


def test_concepts_are_not_measured_as_maps_of_classes() -> None:
    model, photo = DEMO / "shapes-resnet.onnx", DEMO / "images" / "cross.png"
    for ask in (
        lambda: ogc.compare(model, model, [photo], method="dff"),
        lambda: ogc.evaluate(model, [photo], method="dff"),
    ):
        with pytest.raises(ogc.MethodError, match="nothing to compare, to join or to measure"):
            ask()


def test_no_photos() -> None:
    with (
        ogc.Explainer(DEMO / "shapes-resnet.onnx", providers=["cpu"]) as explainer,
        pytest.raises(ogc.InputError, match="no photos"),
    ):
        ogc.concepts(explainer, [])
