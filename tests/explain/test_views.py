"""Views or frames folded into the batch: one map for each, named by its number, of the right image."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.jobs.truth import against_truth
from onnx_gradcam.photos.inputs import has_views
from onnx_gradcam.photos.preprocess.choice import InputSpec

VIEWS, SIDE, CLASSES = 4, 6, 5
FOLDS = {
    "view by view": ([1, 0, 2, 3, 4], [VIEWS, -1, 4]),  # (V, N, …) → V·N
    "image by image": (None, [-1, VIEWS, 4]),
}


def several_views(batch: int | str = "N", fold: str = "image by image", pool: str = "ReduceMax") -> onnx.ModelProto:
    """(N, V, 3, H, W): a convolution of each view, its mean, what is largest in any view, a linear layer."""
    net = Net()
    order, apart = FOLDS[fold]
    x = net.input("x", [batch, VIEWS, 3, SIDE, SIDE])
    x = x if order is None else net.op("Transpose", x, perm=order)
    flat = net.op("Reshape", x, net.ints(-1, 3, SIDE, SIDE))
    relu = net.op("Relu", net.conv(flat, (3, 4), out="conv"), out="relu")
    features = net.op("Reshape", net.op("GlobalAveragePool", relu), net.ints(*apart))
    pooled = net.op(pool, features, net.ints(0 if order else 1), keepdims=0, out="pooled")
    net.linear(pooled, 4, CLASSES, out="logits")
    return net.model({"logits": [batch, CLASSES]})


def by_hand(model: onnx.ModelProto, x: np.ndarray, image: int, class_index: int) -> np.ndarray:
    """The Grad-CAM of each view: the weights of a view are those of the channels in which its mean is the largest."""
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    arrays = [w for w in weights.values() if w.dtype == np.float32]
    (kernel,), (linear,) = ([w for w in arrays if w.ndim == n] for n in (4, 2))
    bias = next(w for w in arrays if w.shape == (4,))
    padded = np.pad(x[image].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    activation = (np.einsum("vchwij,kcij->vkhw", windows, kernel) + bias[:, None, None]).clip(0)
    means = activation.mean((2, 3))
    alpha = (means == means.max(0)) * linear[class_index] / SIDE**2
    cam: np.ndarray = np.einsum("vk,vkhw->vhw", alpha, activation).clip(0)
    return cam


@pytest.mark.parametrize("target", [None, 2, ogc.TopK(2), ogc.Difference(0, 1)], ids=str)
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize(("batch", "images"), [("N", 1), ("N", 3), (1, 3)])
def test_one_map_for_each_view(batch: Any, images: int, fold: str, target: Any, rng: np.random.Generator) -> None:
    model = several_views(batch, fold)
    x = rng.standard_normal((images, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        explanation = explainer.explain(x, target=target)
    each = 2 if isinstance(target, ogc.TopK) else 1
    assert len(explanation) == images * each * VIEWS
    np.testing.assert_array_equal(explanation.image_index, np.repeat(np.arange(images), each * VIEWS))
    np.testing.assert_array_equal(explanation.view_index, np.tile(np.arange(VIEWS), images * each))
    assert explanation.heatmap.shape == (len(explanation), SIDE, SIDE)
    assert explanation.outputs["logits"].shape == (images, CLASSES)
    if isinstance(target, ogc.Difference):
        return
    for row in range(len(explanation)):
        image, view = explanation.image_index[row], explanation.view_index[row]
        expected = by_hand(model, x, image, explanation.class_index[row])[view]
        np.testing.assert_allclose(explanation.cam[row], expected, rtol=1e-4, atol=1e-6)


def test_a_fixed_batch_that_lies_image_by_image(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    for target in (None, ogc.TopK(2)):
        with ogc.Explainer(several_views(2), providers=["cpu"]) as fixed:
            found = fixed.explain(x, target=target)
        with ogc.Explainer(several_views(), providers=["cpu"]) as free:
            expected = free.explain(x, target=target)
        np.testing.assert_allclose(found.cam, expected.cam, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.view_index, expected.view_index)


def test_a_fixed_batch_that_lies_view_by_view_is_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    explainer = ogc.Explainer(several_views(2, "view by view"), providers=["cpu"])
    with pytest.raises(ogc.LayerError, match="do not lie image by image"):
        explainer.explain(x)


@pytest.mark.parametrize("method", ["eigencam", "layercam", "hirescam", "gradcam++", "shapleycam"])
def test_other_methods(method: str, rng: np.random.Generator) -> None:
    """Each image alone gives what it gives among others."""
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(several_views(), providers=["cpu"]) as explainer:
        together = explainer.explain(x, 1, method)
        alone = [explainer.explain(x[k : k + 1], 1, method) for k in range(2)]
    np.testing.assert_allclose(together.cam, np.concatenate([e.cam for e in alone]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["ablationcam", "reciprocam"])
def test_methods_that_change_the_activation_of_one_image(method: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    explainer = ogc.Explainer(several_views(), providers=["cpu"])
    with pytest.raises(ogc.MethodError, match="for each view of an image") as raised:
        explainer.explain(x, 1, method)
    assert "gradcam" in raised.value.hint


@pytest.mark.parametrize("smooth", ["noise", "aug", "eigen"])
def test_smoothing(smooth: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(several_views(pool="ReduceMean"), providers=["cpu"]) as explainer:
        found = explainer.explain(x, 1, smooth=smooth)
    assert found.heatmap.shape == (2 * VIEWS, SIDE, SIDE)


def test_files_notebook_and_pictures(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(several_views(pool="ReduceMean"), providers=["cpu"]) as explainer:
        found = explainer.explain(x, ogc.TopK(2))
    manifest = json.loads(found.save(tmp_path / "one").read_text("utf-8"))
    rows = manifest["results"][0]["rows"]
    assert [(row["image_index"], row["view_index"]) for row in rows[:6]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 0),
        (0, 1),
    ]
    assert rows[2]["npy"] == f"explanation-0-view2.gradcam.{found.class_index[2]}.npy"
    assert len({row["npy"] for row in rows}) == len(rows) == 2 * 2 * VIEWS
    for row, entry in enumerate(rows):
        np.testing.assert_array_equal(np.load(tmp_path / "one" / entry["npy"]), found.heatmap[row])
    assert "view 3" in found.title(3)[0]
    assert "view 3" in found._repr_html_()
    picture = found.picture(7).astype(float)
    expected = x[0, 3].transpose(1, 2, 0)
    expected = (expected - expected.min()) / np.ptp(expected) * 255
    np.testing.assert_allclose(picture, expected, atol=0.51)
    sides = ogc.both(found)
    sides.save(tmp_path / "both")
    assert sides.figure(5).shape[2] == 3
    first, second = (found[found.class_index == index] for index in np.unique(found.class_index)[:2])
    if len(first) == len(second) == 2 * VIEWS:
        ogc.contrast(first, second, names=("a", "b")).save(tmp_path / "contrast")


@pytest.mark.parametrize("true", range(CLASSES))
def test_the_prediction_against_the_true_class(true: int, rng: np.random.Generator) -> None:
    """Each view stands beside the same view, whether the prediction is right or wrong."""
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(several_views(pool="ReduceMean"), providers=["cpu"]) as explainer:
        first, second, _ = against_truth(partial(explainer.explain, x), true).parts.values()
        for part in (first, second):
            np.testing.assert_array_equal(part.view_index, [*range(VIEWS)] * 2)
            of_images = part.class_index.reshape(2, VIEWS)
            assert (of_images == of_images[:, :1]).all()
            expected = explainer.explain(x, of_images[:, 0].tolist())
            np.testing.assert_allclose(part.cam, expected.cam, rtol=1e-5, atol=1e-7)


def test_views_with_channels_last(rng: np.random.Generator) -> None:
    net = Net()
    x = net.op("Transpose", net.input("x", ["N", VIEWS, SIDE, SIDE + 2, 3]), perm=[0, 1, 4, 2, 3])
    relu = net.op("Relu", net.conv(net.op("Reshape", x, net.ints(-1, 3, SIDE, SIDE + 2)), (3, 4)), out="relu")
    features = net.op("Reshape", net.op("GlobalAveragePool", relu), net.ints(-1, VIEWS, 4))
    net.linear(net.op("ReduceMean", features, net.ints(1), keepdims=0), 4, CLASSES, out="logits")
    images = rng.standard_normal((2, VIEWS, SIDE, SIDE + 2, 3)).astype(np.float32)
    with ogc.Explainer(net.model({"logits": ["N", CLASSES]}), providers=["cpu"]) as explainer:
        found = explainer.explain(images)
    assert found.heatmap.shape == (2 * VIEWS, SIDE, SIDE + 2)
    expected = (images[1, 2] - images[1, 2].min()) / np.ptp(images[1, 2]) * 255
    np.testing.assert_allclose(found.picture(VIEWS + 2).astype(float), expected, atol=0.51)


# --- what is refused -----------------------------------------------------------------------------------------


def test_tiles_of_one_image_are_no_views(rng: np.random.Generator) -> None:
    """(N, 3, H, W) cut into four tiles: their maps belong to places that are not known."""
    net = Net()
    x = net.op("Reshape", net.input("x", ["N", 3, 8, 8]), net.ints(-1, 3, 2, 4, 2, 4))
    tiles = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5]), net.ints(-1, 3, 4, 4))
    relu = net.op("Relu", net.conv(tiles, (3, 4)), out="relu")
    features = net.op("Reshape", net.op("GlobalAveragePool", relu), net.ints(-1, 4, 4))
    net.linear(net.op("ReduceMean", features, net.ints(1), keepdims=0), 4, CLASSES, out="logits")
    images = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    explainer = ogc.Explainer(net.model({"logits": ["N", CLASSES]}), "relu", providers=["cpu"])
    with pytest.raises(ogc.LayerError, match="'relu' has 8 entries for 2 images"):
        explainer.explain(images)


ATTRIBUTIONS = ["saliency", "input-x-gradient", "integrated-gradients", "smoothgrad", "guided-backprop"]


@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_attributions_have_a_map_for_each_view(method: str, tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    with ogc.Explainer(several_views(), providers=["cpu"]) as explainer:
        found = explainer.explain(x, ogc.TopK(2), method)
    assert found.heatmap.shape == (2 * 2 * VIEWS, SIDE, SIDE)
    assert found.attribution is not None
    for row in range(len(found)):
        of_view = np.abs(found.attribution[row][found.view_index[row]]).max(axis=0)
        np.testing.assert_allclose(found.heatmap[row], of_view / (of_view.max() or 1), rtol=1e-5, atol=1e-7)
    found.save(tmp_path)
    assert (tmp_path / f"explanation-1-view3.{method}.{found.class_index[-1]}.png").exists()


def test_fullgrad_is_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    explainer = ogc.Explainer(several_views(), providers=["cpu"])
    with pytest.raises(ogc.MethodError, match="has 8 entries for 2 rows"):
        explainer.explain(x, method="fullgrad")


def test_a_guided_method_is_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    explainer = ogc.Explainer(several_views(), providers=["cpu"])
    with pytest.raises(ogc.MethodError, match="one for each of its 4 views"):
        explainer.explain(x, method="guided-gradcam")


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [
        ((2, 4, 3, 8, 8), 4, True),
        ((2, 4, 8, 8, 3), 4, True),
        ((2, 2, 5, 3, 8, 8), 10, True),
        ((2, 12, 8, 8), 4, True),  # four frames in the channels
        ((2, 7, 8, 8), 7, True),
        ((2, 3, 8, 8), 4, False),
        ((2, 4, 3, 8, 8), 2, False),
        ((2, 8, 8), 4, False),
    ],
)
def test_which_inputs_hold_views(shape: tuple[int, ...], count: int, expected: bool) -> None:
    assert has_views(InputSpec("x", (None, *shape[1:]), "float32"), shape, count) is expected
