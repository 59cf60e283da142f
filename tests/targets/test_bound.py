"""Targets through the Explainer, on nets small enough to compute by hand; and those that a model has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.errors import TargetError
from onnx_gradcam.targets.contrasts import cosines, most_similar

LABELS = ["tabby", "tiger cat", "lynx", "car"]
HEAD = np.array([[1, 0, 0], [0.9, 0.1, 0], [0.5, 0.5, 0], [0, 0, 1]], np.float32)  # rows: classes
K, C = HEAD.shape


def classifier(activation: str = "Softmax", head: np.ndarray = HEAD) -> onnx.ModelProto:
    """Three channels → global average → ``head``."""
    net = Net()
    net.input("x", ["N", 3, 4, 4])
    a = net.op("Relu", net.conv("x", (3, 3)), out="a")
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    y = net.op("Gemm", flat, net.array(head), out="y", transB=1)
    out = net.op(activation, y, out="p") if activation else y
    return net.model({out: ["N", len(head)]})


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(classifier(), labels=LABELS, providers=["cpu"]) as found:
        yield found


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)


def logits(explainer: Any, x: np.ndarray) -> np.ndarray:
    """By classes, one column each."""
    return np.stack([explainer.explain(x, target=k).score for k in range(K)], axis=1)


def slopes(found: Any) -> np.ndarray:
    """∂score/∂(pooled channel), (R, C): the gradient of a cell times the number of cells."""
    gradient = found.gradient
    assert (gradient == gradient[:, :, :1, :1]).all()
    return gradient[:, :, 0, 0] * gradient[0, 0].size


def softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_difference(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=ogc.Difference("tabby", "car"))
    y = logits(explainer, x)
    np.testing.assert_allclose(found.score, y[:, 0] - y[:, 3], rtol=1e-5)
    np.testing.assert_allclose(slopes(found), np.tile(HEAD[0] - HEAD[3], (2, 1)), atol=1e-6)
    assert found.label(0) == "tabby − car"
    assert found.target(0) == "diff:0,3"
    assert list(found.class_index) == [0, 0]


def test_probability_and_its_logarithm(explainer: Any, x: np.ndarray) -> None:
    p = softmax(logits(explainer, x))
    found = explainer.explain(x, target=ogc.Probability("lynx"))
    np.testing.assert_allclose(found.score, p[:, 2], rtol=1e-5)
    np.testing.assert_allclose(found.probability, p[:, 2], rtol=1e-5)
    np.testing.assert_allclose(slopes(found), p[:, 2:3] * (HEAD[2] - p @ HEAD), rtol=1e-4, atol=1e-6)
    assert (found.label(0), found.target(0)) == ("P(lynx)", "prob:2")
    found = explainer.explain(x, target=ogc.LogProbability())
    best = p.argmax(axis=1)
    np.testing.assert_array_equal(found.class_index, best)
    np.testing.assert_allclose(found.score, np.log(p.max(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(slopes(found), HEAD[best] - p @ HEAD, rtol=1e-4, atol=1e-6)


def finer(y: np.ndarray, head: np.ndarray, c: int, similar: int, gamma: float) -> float:
    """Finer-CAM's score as the paper has it, class by class."""
    others = [k for k in range(len(head)) if k != c]
    like = {k: head[k] @ head[c] / np.sqrt((head[k] @ head[k]) * (head[c] @ head[c])) for k in others}
    nearest = sorted(others, key=lambda k: -like[k])[:similar]
    return float(y[c] - gamma * sum(y[k] for k in nearest) / similar)


@pytest.mark.parametrize(("similar", "gamma"), [(1, 0.6), (2, 0.6), (3, 1.0)])
def test_finer(explainer: Any, x: np.ndarray, similar: int, gamma: float) -> None:
    y = logits(explainer, x)
    for c in range(K):
        found = explainer.explain(x, target=ogc.Finer(c, similar, gamma))
        expected = [finer(row, HEAD, c, similar, gamma) for row in y]
        np.testing.assert_allclose(found.score, expected, rtol=1e-4, atol=1e-6)
    assert explainer.explain(x, target=ogc.Finer("tabby", 2)).label(0) == "tabby − 0.6 · mean(tiger cat, lynx)"


def test_finer_against_named_classes(explainer: Any, x: np.ndarray) -> None:
    y = logits(explainer, x)
    found = explainer.explain(x, target=ogc.Finer("tabby", against=["car", 2, "tabby"], gamma=0.5))
    np.testing.assert_allclose(found.score, y[:, 0] - 0.5 * (y[:, 3] + y[:, 2]) / 2, rtol=1e-5)
    np.testing.assert_allclose(slopes(found), np.tile(HEAD[0] - (HEAD[3] + HEAD[2]) / 4, (2, 1)), atol=1e-6)
    assert found.label(0) == "tabby − 0.5 · mean(car, lynx)"


def test_finer_by_the_closest_scores(explainer: Any, x: np.ndarray) -> None:
    """torch-cam's way: for a class in the middle they lie above and below it, other ones for each image."""
    y = logits(explainer, x)
    for c in range(K):
        found = explainer.explain(x, target=ogc.Finer(c, 1, by="scores"))
        for row, score in zip(y, found.score, strict=True):
            closest = min((k for k in range(K) if k != c), key=lambda k, c=c, row=row: abs(row[k] - row[c]))
            assert score == pytest.approx(row[c] - 0.6 * row[closest], rel=1e-4, abs=1e-6)


def weighted_contrast(y: np.ndarray, c: int, others: list[int], alpha: float) -> float:
    """pytorch-grad-cam's FinerWeightedTarget: Σ p_k (y_c − α y_k) / Σ p_k, p the softmax over all classes."""
    p = softmax(y[None])[0]
    return float(sum(p[k] * (y[c] - alpha * y[k]) for k in others) / sum(p[k] for k in others))


def test_finer_weighted_by_the_softmax_with_its_gradient(explainer: Any, x: np.ndarray) -> None:
    y = logits(explainer, x).astype(np.float64)
    found = explainer.explain(x, target=ogc.Finer(0, against=[1, 3], gamma=1.0, weighting="softmax"))
    assert found.label(0) == "tabby − 1 · softmax(tiger cat, car)"
    for row in range(2):
        expected = weighted_contrast(y[row], 0, [1, 3], 1.0)
        assert float(found.score[row]) == pytest.approx(expected, rel=1e-5)
        step = 1e-6
        moved = [
            [weighted_contrast(y[row] + sign * step * HEAD[:, k], 0, [1, 3], 1.0) for sign in (1, -1)] for k in range(C)
        ]
        numeric = [(up - down) / (2 * step) for up, down in moved]
        np.testing.assert_allclose(slopes(found)[row], numeric, rtol=1e-4, atol=1e-6)


def test_finer_has_no_head_to_compare_where_there_is_none() -> None:
    net = Net()
    net.input("x", ["N", 3, 4, 4])
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv("x", (3, 4)))))
    model = net.model({net.op("Mul", pooled, pooled, out="y"): ["N", 4]})
    x = np.ones((1, 3, 4, 4), np.float32)
    with ogc.Explainer(model, providers=["cpu"]) as squares, pytest.raises(TargetError, match="no such layer makes"):
        squares.explain(x, target=ogc.Finer(0, by="head"))


def test_classes_are_similar_by_the_rows_of_the_head() -> None:
    assert list(most_similar(cosines(HEAD, 0), 0, 3)) == [1, 2, 3]
    assert list(most_similar(cosines(HEAD, 2), 2, 2)) == [1, 0]


def test_without_a_linear_head_classes_are_similar_by_score() -> None:
    net = Net()
    net.input("x", ["N", 3, 4, 4])
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv("x", (3, 4)))))
    model = net.model({net.op("Mul", pooled, pooled, out="y"): ["N", 4]})
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        y = np.array([float(explainer.explain(x, target=k).score[0]) for k in range(4)])
        first, second, third, _ = np.argsort(-y)
        score = float(explainer.explain(x, target=ogc.Finer(int(second), 2)).score[0])
    assert score == pytest.approx(y[second] - 0.6 * (y[first] + y[third]) / 2, rel=1e-5)


def test_several_targets_in_one_call_are_those_of_single_calls(explainer: Any, x: np.ndarray) -> None:
    several = [1, ogc.Probability(2), ogc.Difference(0, 1), "lynx", ogc.LogProbability(1)]
    found = explainer.explain(x, target=ogc.Each(several))
    assert len(found) == 10
    for row in range(10):
        image, k = divmod(row, 5)
        alone = explainer.explain(x[image : image + 1], target=several[k])
        assert found.image_index[row] == image
        assert found.target(row) == alone.target(0)
        np.testing.assert_allclose(found.score[row], alone.score[0], rtol=1e-5)
        np.testing.assert_allclose(found.gradient[row], alone.gradient[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.heatmap[row], alone.heatmap[0], atol=1e-5)
    mixed = explainer.explain(x, target=[ogc.Probability(2), 3])
    np.testing.assert_allclose(mixed.score, [found.score[1], explainer.explain(x, target=3).score[1]], rtol=1e-5)


def test_a_method_without_gradients_has_the_score(explainer: Any, x: np.ndarray) -> None:
    found = explainer.explain(x, target=ogc.Difference(0, 3), method="eigencam")
    expected = explainer.explain(x, target=ogc.Difference(0, 3))
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)
    assert found.gradient is None


def test_attributions_of_the_input(explainer: Any, x: np.ndarray) -> None:
    """Linear: the difference's gradient is that of the classes' gradients."""
    parts = [explainer.explain(x, target=k, method="saliency", signed=True).attribution for k in (0, 3)]
    found = explainer.explain(x, target=ogc.Difference(0, 3), method="saliency", signed=True)
    np.testing.assert_allclose(found.attribution, parts[0] - parts[1], atol=1e-6)


def test_binary(x: np.ndarray) -> None:
    with ogc.Explainer(classifier("Sigmoid", HEAD[:1]), providers=["cpu"]) as explainer:
        z = explainer.explain(x, target=1).score
        p = 1 / (1 + np.exp(-z))
        np.testing.assert_allclose(explainer.explain(x, target=ogc.Probability(0)).score, 1 - p, rtol=1e-5)
        np.testing.assert_allclose(explainer.explain(x, target=ogc.Output(sign=-1)).score, -z, rtol=1e-5)
        np.testing.assert_allclose(explainer.explain(x, target=ogc.Difference(1, 0)).score, 2 * z, rtol=1e-5)


def test_regression(x: np.ndarray) -> None:
    with ogc.Explainer(classifier("", HEAD[:1]), providers=["cpu"]) as explainer:
        y = explainer.explain(x).score
        up, down = (explainer.explain(x, target=ogc.Output(0, sign)) for sign in (1, -1))
        np.testing.assert_allclose(up.score, y, rtol=1e-6)
        np.testing.assert_allclose(down.score, -y, rtol=1e-6)
        np.testing.assert_array_equal(down.gradient, -up.gradient)
        assert list(down.class_index) == [-1, -1]
        assert down.target(0) == "-output:0"
        assert down.label(0) == "-y[0]"
        with pytest.raises(TargetError, match="a regression") as error:
            explainer.explain(x, target=ogc.Probability())
        assert "output:0, -output:0" in error.value.hint


def test_similarity(x: np.ndarray, tmp_path: Path) -> None:
    q = np.array([1, -2, 0.5, 3])
    np.save(tmp_path / "cat.npy", q)
    with ogc.Explainer(classifier(""), providers=["cpu"]) as explainer:
        e = logits(explainer, x)
        expected = e @ q / np.linalg.norm(e, axis=1) / np.linalg.norm(q)
        for given in (q, tmp_path / "cat.npy"):
            found = explainer.explain(x, target=ogc.Similar(given))
            np.testing.assert_allclose(found.score, expected, rtol=1e-5)
        assert found.target(0) == "similar:cat.npy"
        assert list(found.class_index) == [-1, -1]
        assert np.isnan(found.probability).all()
        itself = explainer.explain(x[:1], target=ogc.Similar(e[0]))
        assert itself.score[0] == pytest.approx(1, abs=1e-6)
        with pytest.raises(TargetError, match="an embedding of 3 numbers"):
            explainer.explain(x, target=ogc.Similar(q[:3]))
        with pytest.raises(TargetError, match="no such file"):
            explainer.explain(x, target=ogc.Similar(tmp_path / "dog.npy"))
        with pytest.raises(TargetError, match="length 0"):
            explainer.explain(x, target=ogc.Similar(0 * q))


def test_custom(explainer: Any, x: np.ndarray) -> None:
    def surprise(op: Any, outputs: Any) -> Any:
        p = outputs["p"]
        return op.Neg(op.ReduceSum(op.Mul(p, op.Log(p)), op.ints(1), keepdims=0))

    found = explainer.explain(x, target=ogc.Custom(surprise))
    p = softmax(logits(explainer, x))
    np.testing.assert_allclose(found.score, -(p * np.log(p)).sum(axis=1), rtol=1e-5)
    assert (found.label(0), found.target(0)) == ("surprise", "custom:surprise")

    def matrix(op: Any, outputs: Any) -> Any:
        return outputs["p"]

    with pytest.raises(TargetError, match=r"matrix made FLOAT \[N,4\], not one score per row"):
        explainer.explain(x, target=ogc.Custom(matrix))
    with pytest.raises(TargetError, match="made NoneType"):
        explainer.explain(x, target=ogc.Custom(lambda op, outputs: None))


@pytest.mark.parametrize(
    "target",
    [
        ogc.Region(1, box=(0, 0, 2, 2)),
        ogc.Region(1),
        ogc.Box(3),
        ogc.Box(point=(1, 1)),
        ogc.Tokens([1, 2]),
        ogc.Similar(np.ones(4)),
    ],
)
def test_what_a_classifier_has_not(explainer: Any, x: np.ndarray, target: Any) -> None:
    with pytest.raises(TargetError) as error:
        explainer.explain(x, target=target)
    assert type(target).__name__ in error.value.what
    assert "diff:A,B" in error.value.hint
    assert "mask:" not in error.value.hint


def test_what_is_out_of_range(explainer: Any, x: np.ndarray) -> None:
    for target, words in [
        (ogc.Finer(0, similar=4), "4 similar classes of 4"),
        (ogc.Finer(0, similar=np.array([1, 2])), r"\[1 2\] similar classes of 4"),  # type: ignore[arg-type]
        (ogc.Finer(0, by="weights"), "by 'weights'"),
        (ogc.Finer(0, weighting="sum"), "weighting 'sum'"),
        (ogc.Finer(0, against=[0]), "against itself alone"),
        (ogc.Output(4), "no output 4"),
        (ogc.Output(0, 2), "with sign 2"),
        (ogc.Difference(0, 9), "class 9 is out of range"),
        (ogc.Probability("dog"), "no label 'dog'"),
        (ogc.Each([]), "names no target"),
    ]:
        with pytest.raises(TargetError, match=words):
            explainer.explain(x, target=target)


def test_inspect_says_which_targets_a_model_has() -> None:
    from onnx_gradcam.jobs.inspect import overview
    from onnx_gradcam.jobs.report import text

    assert overview(classifier()).targets.endswith("diff:A,B, finer:CLASS, output:K, -output:K, similar:FILE.npy")
    assert "targets\n  output:0, -output:0\n" in text.inspected(overview(classifier("", HEAD[:1])), None)


def test_float16(x: np.ndarray) -> None:
    net = Net()
    net.input("x", ["N", 3, 4, 4], np.float16)
    w = net.array(np.random.default_rng(1).standard_normal((3, 3, 1, 1)).astype(np.float16))
    a = net.op("Relu", net.op("Conv", "x", w), out="a")
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    y = net.op("Gemm", flat, net.array(HEAD.astype(np.float16)), out="y", transB=1)
    model = net.model({net.op("Softmax", y, out="p"): ["N", 4]}, {"p": onnx.TensorProto.FLOAT16})
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        half = x.astype(np.float16)
        p = softmax(logits(explainer, half).astype(np.float64))
        found = explainer.explain(half, target=ogc.LogProbability(1))
        np.testing.assert_allclose(found.score, np.log(p[:, 1]), atol=2e-3)
        np.testing.assert_allclose(slopes(found), HEAD[1] - p @ HEAD, atol=2e-3)
