"""What a model declares of its outputs is believed only as far as inference and the first run agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from nets import Net, feeds
from onnx import helper

import onnx_gradcam as ogc

CLASSES = 5
X = feeds(builders.plain(), batch=3)["x"]


def features(net: Net, batch: int | str = "N") -> str:
    relu = net.op("Relu", net.conv(net.input("x", [batch, 3, 8, 8]), (3, 4), out="conv"), out="relu")
    return net.head(relu, 4, CLASSES, out="raw")


def plainly(declared: Sequence[Any] | None) -> onnx.ModelProto:
    """Inference knows the shape of the logits."""
    net = Net()
    net.op("Identity", features(net), out="logits")
    return net.model({"logits": declared})


def by_a_shape_that_is_computed(declared: Sequence[Any] | None) -> onnx.ModelProto:
    """The logits go through a Reshape to (N, k), where k = 5 is computed from them: inference knows nothing."""
    net = Net()
    raw = features(net)
    images = net.op("Slice", net.op("Shape", "x"), net.ints(0), net.ints(1))
    is_large = net.op("Greater", net.op("ReduceMax", raw, keepdims=0), net.array(np.float32(-1e9)))
    count = net.op("Where", is_large, net.array(np.int64(CLASSES)), net.array(np.int64(1)))
    net.op("Reshape", raw, net.op("Concat", images, net.op("Unsqueeze", count, net.ints(0)), axis=0), out="logits")
    return net.model({"logits": declared})


TARGETS: list[Any] = [None, ogc.TopK(2), 4]
DECLARED: list[Sequence[Any] | None] = [
    [1, 5], ["N", 10], ["M", 5], [None, None], None, [1, 10], ["N", 3], ["N", "C"], [4, 5],
]  # fmt: skip


@pytest.fixture(scope="module")
def expected() -> list[ogc.Explanation]:
    with ogc.Explainer(builders.plain(), providers=["cpu"]) as explainer:
        return [explainer.explain(X, target) for target in TARGETS]


@pytest.mark.parametrize("declared", DECLARED, ids=str)
@pytest.mark.parametrize("make", [plainly, by_a_shape_that_is_computed])
def test_declared_shapes_of_outputs(make: Any, declared: Sequence[Any] | None, expected: list[ogc.Explanation]) -> None:
    with ogc.Explainer(make(declared), providers=["cpu"]) as explainer:
        for target, right in zip(TARGETS, expected, strict=True):
            found = explainer.explain(X, target)
            assert explainer.score.count == CLASSES
            np.testing.assert_array_equal(found.class_index, right.class_index)
            np.testing.assert_allclose(found.cam, right.cam, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", [4, ogc.TopK(5)], ids=str)
def test_a_class_that_only_the_run_shows(target: Any) -> None:
    """Three are declared, and the first thing that is explained is the fifth."""
    with ogc.Explainer(by_a_shape_that_is_computed(["N", 3]), providers=["cpu"]) as explainer:
        assert 4 in explainer.explain(X, target).class_index


@pytest.mark.parametrize(
    "stale", [{"raw": [1, 7]}, {"relu": ["N", 3, 4, 4]}, {"relu": [1, 4, 8, 8], "raw": [1, 5]}], ids=str
)
def test_declared_shapes_within_the_model(stale: dict[str, Sequence[Any]]) -> None:
    model = plainly(["N", 5])
    model.graph.value_info.extend(helper.make_tensor_value_info(name, 1, dims) for name, dims in stale.items())
    with ogc.Explainer(builders.plain(), providers=["cpu"]) as explainer:
        expected = explainer.explain(X, ogc.TopK(2))
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        np.testing.assert_allclose(explainer.explain(X, ogc.TopK(2)).cam, expected.cam, rtol=1e-5, atol=1e-7)


def test_labels_are_those_of_the_classes_that_the_run_shows() -> None:
    names = [f"name {k}" for k in range(CLASSES)]
    with ogc.Explainer(by_a_shape_that_is_computed(None), labels=names, providers=["cpu"]) as explainer:
        assert explainer.explain(X, "name 3").label(0) == "name 3"


def test_an_ordinary_model_is_not_run_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_gradcam.explain.settling.Session", None)
    with ogc.Explainer(plainly(["N", 5]), providers=["cpu"]) as explainer:
        assert len(explainer.explain(X)) == 3


SLOW = [
    pytest.param(*case, marks=pytest.mark.slow) for case in [("n", "w", 1), ("n", 20, 2), (1, "w", 1), (None, None, 2)]
]


# --- sequences -----------------------------------------------------------------------------------------------


def sequence(
    time_first: bool, batch: int | str = "n", width: int | str = "w", ending: str = "Softmax", declared: Any = None
) -> onnx.ModelProto:
    """A line of text, (N, 1, 8, W) → steps, (T, N, 6) or (N, T, 6), of a linear layer or an LSTM."""
    net = Net()
    x = net.input("x", [batch, 1, 8, width])
    relu = net.op("Relu", net.conv(x, (1, 4), stride=2, out="conv"), out="relu")
    flat = net.op("ReduceMean", relu, net.ints(2), keepdims=0)
    steps = net.op("Transpose", flat, perm=[2, 0, 1], out="steps")
    if ending == "LSTM":
        hidden, _, _ = net.ops(
            "LSTM", steps, net.random(1, 12, 4), net.random(1, 12, 3), out=["h", "h1", "c1"], hidden_size=3
        )
        steps = net.op("Squeeze", hidden, net.ints(1))
    logits = net.op("MatMul", steps, net.random(3 if ending == "LSTM" else 4, 6), out="logits")
    y = logits if time_first else net.op("Transpose", logits, perm=[1, 0, 2], out="by_image")
    if ending == "Softmax":
        y = net.op("Softmax", y, axis=-1, out="p")
    return net.model({y: declared})


@pytest.mark.parametrize("ending", ["Softmax", "LSTM"])
@pytest.mark.parametrize(
    ("batch", "width", "images"),
    [("n", "w", 3), (1, "w", 2), (1, 20, 2), (-1, -1, 10), *SLOW],
)
def test_time_first(batch: Any, width: Any, images: int, ending: str, rng: np.random.Generator) -> None:
    """Maps, outputs and cells are those of the same model with the images first; with 10 images there are 10 steps."""
    x = rng.standard_normal((images, 1, 8, 20)).astype(np.float32)
    models = [sequence(time_first, batch, width, ending) for time_first in (True, False)]
    with (
        ogc.Explainer(models[0], providers=["cpu"]) as time_first,
        ogc.Explainer(models[1], providers=["cpu"]) as image_first,
    ):
        for target in (None, ogc.TopK(2)):
            found, expected = time_first.explain(x, target), image_first.explain(x, target)
            np.testing.assert_array_equal(found.class_index, expected.class_index)
            np.testing.assert_array_equal(found.cell, expected.cell)
            np.testing.assert_allclose(found.cam, expected.cam, rtol=1e-4, atol=1e-7)
            (output,), (of_image,) = found.outputs.values(), expected.outputs.values()
            np.testing.assert_allclose(output.transpose(1, 0, 2), of_image, rtol=1e-5)


# --- rows that are no images ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "target"), [(1, None), (3, None), (2, 1), (3, ogc.TopK(2))], ids=str)
def test_scores_of_views_apart_are_refused(images: int, target: Any, rng: np.random.Generator) -> None:
    """(N, 4, 3, 8, 8) → (4·N, 5): which of the four rows is that of the image?"""
    net = Net()
    flat = net.op("Reshape", net.input("x", ["N", 4, 3, 8, 8]), net.ints(-1, 3, 8, 8))
    net.head(net.op("Relu", net.conv(flat, (3, 4)), out="relu"), 4)
    x = rng.standard_normal((images, 4, 3, 8, 8)).astype(np.float32)
    with (
        ogc.Explainer(net.model({"logits": None}), providers=["cpu"]) as explainer,
        pytest.raises(ogc.ScoreError) as caught,
    ):
        explainer.explain(x, target)
    assert f"({4 * images}, 5)" in str(caught.value)
    assert "--score" in caught.value.hint


def test_a_free_width_of_one_image_at_a_time() -> None:
    """Scores by columns, (T, 1, classes) by a Reshape that is computed: of a fixed batch, only the width tells T."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, "width"]), (3, 4), out="conv"), out="relu")
    columns = net.op("Transpose", net.op("ReduceMean", x, net.ints(2), keepdims=0), perm=[2, 0, 1])
    length = net.op("Slice", net.op("Shape", columns), net.ints(0), net.ints(1))
    weights = net.random(4, CLASSES)
    rows = net.op("MatMul", net.op("Reshape", columns, net.ints(-1, 4)), weights)
    net.op("Reshape", rows, net.op("Concat", length, net.ints(1), net.ints(-1), axis=0), out="scores")
    image = X[:1, :, :, :6]
    with ogc.Explainer(net.model({"scores": None}), target_layer="relu", providers=["cpu"]) as explainer:
        found = explainer.explain(image, method="gradcam")
        assert explainer.score.count == CLASSES
    scores = found.outputs["scores"][:, 0]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    p[:, np.bincount(p.argmax(1)).argmax()] = 0  # the class that wins most steps is background
    step, best = np.unravel_index(p.argmax(), p.shape)
    assert found.class_index.tolist() == [best]
    w = next(onnx.numpy_helper.to_array(t) for t in net.model({}).graph.initializer if t.dims == [4, CLASSES])
    np.testing.assert_allclose(found.score, [scores[step, best]], rtol=1e-5)
    # Only the step's own column has a gradient: W[k, best] / height in each of its places; α is its mean over space.
    alpha = w[:, best] / found.activation.shape[2] / found.activation.shape[3]
    expected = np.maximum(np.einsum("khw,k->hw", found.activation[0], alpha), 0)
    np.testing.assert_allclose(found.cam[0], expected, rtol=1e-4, atol=1e-7)


def test_verify_asks_the_run_as_well() -> None:
    """Inference knows nothing of the logits, and the model declares nothing: the run tells that they are five."""
    report = ogc.verify(by_a_shape_that_is_computed(None), providers=["cpu"])
    assert report.ok
    assert report.score == "logits"
    assert report.layers == ("relu",)


def steps_first() -> onnx.ModelProto:
    """A sequence whose steps stand before the images, declared as if it had one number for each."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 1, 8, "W"]), (1, 6)), out="relu")
    steps = net.op("Transpose", net.op("ReduceMean", x, net.ints(2), keepdims=0), perm=[2, 0, 1])
    rows = net.op("Reshape", steps, net.ints(-1, 6))
    logits = net.op("MatMul", rows, net.random(6, CLASSES))
    images = net.op("Slice", net.op("Shape", steps), net.ints(0), net.ints(2))
    net.op("Reshape", logits, net.op("Concat", images, net.ints(-1), axis=0), out="logits")
    return net.model({"logits": [1, "T"]})


def test_verify_finds_the_steps_of_a_sequence() -> None:
    x = np.random.default_rng(5).standard_normal((1, 1, 8, 12)).astype(np.float32)
    with ogc.Explainer(steps_first(), providers=["cpu"]) as explainer:
        explained = explainer.explain(x, method="gradcam")
    report = ogc.verify(steps_first(), x=x, providers=["cpu"])
    assert report.ok
    assert (report.score, report.class_index) == ("logits", tuple(explained.class_index))
