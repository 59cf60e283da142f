"""Several heads, and heads that hold no classes: what is explained, what is refused, and the way out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import BATCH, Net, run

import onnx_gradcam as ogc

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def model(kind: str) -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="features")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x), out="flat")
    if kind == "heads":
        net.linear(flat, 6, 1, out="age")
        net.op("Softmax", net.linear(flat, 6, 3, out="logits"), axis=1, out="mood")
        return net.model({"age": [BATCH, 1], "mood": [BATCH, 3]})
    y = net.linear(flat, 6, 5, out="y")
    if kind == "embedding":
        net.op("LpNormalization", y, axis=1, p=2, out="out")
    else:
        net.op("Tanh", y, out="out")
    return net.model({"out": [BATCH, 5]})


def slope(proto: onnx.ModelProto, score: object, x: np.ndarray, v: np.ndarray) -> float:
    """The central difference of ``score`` (outputs → number) along v."""
    ends = [score(run(proto, {"x": x + s * 1e-2 * v})["out"].astype(np.float64)) for s in (1, -1)]  # type: ignore[operator]
    return float(ends[0] - ends[1]) / 2e-2


@pytest.mark.parametrize("kind", ["embedding", "values"])
@pytest.mark.parametrize("target", [None, 3, ogc.TopK(2)])
def test_no_classes_no_top1(kind: str, target: ogc.TopK | int | None) -> None:
    explainer = ogc.Explainer(model(kind), providers=["cpu"])
    with pytest.raises(ogc.TargetError, match="'out' holds 5 numbers that are no classes") as error:
        explainer.explain(X, target)
    assert "output:K" in error.value.hint
    assert ("similar:FILE.npy" in error.value.hint) == (kind == "embedding")
    assert "--score out" in error.value.hint


@pytest.mark.parametrize("kind", ["embedding", "values"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_of_it(kind: str, sign: int) -> None:
    """Its score is the number, its gradient that of differences, and it has no probability and no class."""
    proto = model(kind)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X[:1], ogc.Output(3, sign), "saliency")
    assert found.score[0] == pytest.approx(sign * float(run(proto, {"x": X[:1]})["out"][0, 3]), rel=1e-5)
    assert np.isnan(found.probability[0])
    assert found.class_index[0] == -1
    assert found.attribution is not None
    v = np.random.default_rng(1).standard_normal(X[:1].shape).astype(np.float32)
    expected = slope(proto, lambda out: sign * out[0, 3], X[:1], v)
    assert float(np.vdot(found.attribution, v)) == pytest.approx(expected, rel=2e-2, abs=1e-5)


def test_an_embedding_is_compared() -> None:
    proto, q = model("embedding"), np.random.default_rng(2).standard_normal(5).astype(np.float32)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X, ogc.Similar(q))
    e = run(proto, {"x": X})["out"].astype(np.float64)
    np.testing.assert_allclose(found.score, e @ q / np.linalg.norm(q) / np.linalg.norm(e, axis=1), rtol=1e-5)
    assert np.isnan(found.probability).all()


def test_what_a_user_names_is_taken_for_classes() -> None:
    with ogc.Explainer(model("values"), score="out", providers=["cpu"]) as explainer:
        assert explainer.explain(X).class_index.tolist() == run(model("values"), {"x": X})["out"].argmax(1).tolist()


def test_which_head_is_explained_is_said() -> None:
    proto = model("heads")
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    assert found.probability.shape == (2,)
    assert found.provenance.score == "logits"
    (sentence,) = (w for w in found.warnings if "heads" in w)
    assert sentence.startswith("the model has 2 heads: 'mood' is explained, and not 'age'; choose with --head NAME")


def test_another_head_by_name() -> None:
    proto = model("heads")
    with ogc.Explainer(proto, head="age", providers=["cpu"]) as explainer:
        found = explainer.explain(X)
        assert explainer.network.score.kind == "regression"
    np.testing.assert_allclose(found.score, run(proto, {"x": X})["age"][:, 0], rtol=1e-5)
    assert not any("heads" in w for w in found.warnings)
    with pytest.raises(ogc.ScoreError, match="no head 'ages' could be explained"):
        ogc.Explainer(proto, head="ages")


def test_the_list_of_heads() -> None:
    heads = ogc.heads(model("heads"), head="age")
    assert [(h.name, h.kind, h.count, h.chosen) for h in heads] == [
        ("mood", "classes", 3, False),
        ("age", "regression", 1, True),
    ]
    assert heads[0].reason == "a Softmax over its columns makes probabilities of them"
    assert heads[1].targets == "output:0, -output:0"
    (head,) = ogc.heads(model("embedding"))
    assert head.targets == "similar:FILE.npy, output:K, -output:K"


@pytest.mark.parametrize("kind", ["embedding", "values"])
def test_it_is_verified(kind: str) -> None:
    assert ogc.verify(model(kind), x=X[:1], providers=["cpu"]).ok


def test_labels_are_not_guessed_for_what_is_no_class() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="features")
    y = net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 1000, out="y")
    net.op("LpNormalization", y, axis=1, p=2, out="out")
    assert ogc.Explainer(net.model({"out": [BATCH, 1000]})).labels is None


@pytest.mark.parametrize("scale", [3.0, 0.01])
def test_an_output_that_rounds_every_probability_to_0(scale: float) -> None:
    """Boxes and probabilities of one scale, as some edge devices return them."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 6)), out="features")
    box = net.op("Mul", net.conv(x, (6, 4), kernel=1), net.array(np.float32(100)))
    y = net.op("Concat", box, net.op("Sigmoid", net.conv(x, (6, 2), kernel=1, out="logits")), axis=1)
    step, zero = net.array(np.float32(scale)), net.array(np.uint8(128))
    net.op("DequantizeLinear", net.op("QuantizeLinear", y, step, zero), step, zero, out="out")
    proto = net.model({"out": [1, 6, 8, 8]})
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X[:1])
    assert (run(proto, {"x": X[:1]})["out"][:, 4:].max() == 0) == (scale > 2)
    assert any("every probability is rounded to 0" in w for w in found.warnings) == (scale > 2)
    assert 0 < found.probability[0] < 1
