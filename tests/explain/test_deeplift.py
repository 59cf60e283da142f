"""DeepLIFT's Rescale rule against a naive version in float64, and sums that must be differences of scores."""

from __future__ import annotations

from typing import Any

import naive_relevance as naive
import numpy as np
import onnx
import pytest
from layered_net import TARGETS, X, chain, network
from measures import close
from nets import BATCH, Net

import onnx_gradcam as ogc
from onnx_gradcam.errors import MethodError, UnsupportedGradient

METHOD = "deeplift"


@pytest.fixture(scope="module")
def explainer() -> Any:
    with ogc.Explainer(network(), providers=["cpu"]) as opened:
        yield opened


def multipliers(x: np.ndarray, baseline: np.ndarray, target: int) -> np.ndarray:
    """The multipliers of one image, layer by layer, as the paper defines them."""
    layers, values, starts = chain(), [x], [baseline]
    for layer in layers:
        values.append(layer.forward(values[-1]))
        starts.append(layer.forward(starts[-1]))
    m = np.eye(len(values[-1]))[target]
    for layer, a, b, y, z in reversed(list(zip(layers, values, starts, values[1:], starts[1:], strict=False))):
        if isinstance(layer, naive.Linear):
            m = layer.matrix @ m
        elif isinstance(layer, naive.Relu):
            m = m * np.where(a == b, a > 0, (y - z) / np.where(a == b, 1, a - b))
        else:
            found = np.zeros_like(a)
            for out, group in enumerate(layer.members):
                if isinstance(layer, naive.Pool):
                    found[group] += m[out] / len(group)
                elif y[out] != z[out]:
                    winner = group[(a if y[out] > z[out] else b)[group].argmax()]
                    found[winner] += m[out] * (y[out] - z[out]) / (a[winner] - b[winner])
            m = found
    return m


@pytest.mark.parametrize("baseline", [0.0, 0.7, X[::-1]])
def test_the_rescale_rule(explainer: Any, baseline: Any) -> None:
    found = explainer.explain(X, TARGETS, METHOD, baseline=baseline)
    starts = np.broadcast_to(baseline, X.shape).astype(np.float64)
    for row, target in enumerate(TARGETS):
        x, start = X[row].ravel().astype(np.float64), starts[row].ravel()
        expected = (x - start) * multipliers(x, start, target)
        np.testing.assert_allclose(found.attribution[row].ravel(), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.completeness.error, 0, atol=1e-5)
    assert not [w for w in found.warnings if "add up" in w]


def test_named_baselines(explainer: Any) -> None:
    mean = X.mean(axis=(2, 3), keepdims=True)
    expected = explainer.explain(X, TARGETS, METHOD, baseline=mean).attribution
    close(explainer.explain(X, TARGETS, METHOD, baseline="mean").attribution, expected)


def test_the_mean_over_several_baselines(explainer: Any) -> None:
    starts = np.random.default_rng(4).standard_normal((3, 1, *X.shape[1:])).astype(np.float32)
    alone = [explainer.explain(X, TARGETS, METHOD, baseline=start) for start in starts]
    found = explainer.explain(X, TARGETS, METHOD, baseline=starts)
    close(found.attribution, np.mean([each.attribution for each in alone], axis=0))
    close(found.completeness.difference, np.mean([each.completeness.difference for each in alone], axis=0))


def test_several_targets_of_each_image(explainer: Any) -> None:
    several = explainer.explain(X, ogc.Classes([0, 2]), METHOD)
    for row, (image, target) in enumerate([(0, 0), (0, 2), (1, 0), (1, 2)]):
        close(several.attribution[row], explainer.explain(X[image : image + 1], target, METHOD).attribution[0])


def test_a_batch_of_one(explainer: Any) -> None:
    fixed = network()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with ogc.Explainer(fixed, providers=["cpu"]) as one:
        close(one.explain(X, TARGETS, METHOD).attribution, explainer.explain(X, TARGETS, METHOD).attribution)


def sums(*nodes: tuple[str, list[str], dict[str, Any]], **weights: np.ndarray) -> onnx.ModelProto:
    """A linear layer, then ``nodes`` from "a" to "b", (N, 4, 6) each, then the mean and a linear layer."""
    net = Net(opset=20)
    net.input("x", [BATCH, 4, 5])
    for name, array in weights.items():
        net.array(array if array.dtype == np.int64 else array.astype(np.float32), name)
    net.op("MatMul", "x", net.random(5, 6), out="a")
    for op_type, names, attributes in nodes:
        net.op(op_type, *names[:-1], out=names[-1], **attributes)
    net.linear(net.op("Flatten", "b"), 24, 3, out="logits")
    return net.model({"logits": [BATCH, 3]})


LAST = np.array([-1], np.int64)
NETWORKS = {
    "SiLU": sums(("Sigmoid", ["a", "s"], {}), ("Mul", ["a", "s", "b"], {})),
    "Gelu": sums(("Gelu", ["a", "b"], {})),
    "a square": sums(("Mul", ["a", "a", "b"], {})),
    "a power": sums(("Exp", ["a", "s"], {}), ("Pow", ["s", "p", "b"], {}), p=np.array(1.5)),
    "a quotient": sums(("Exp", ["a", "s"], {}), ("Div", ["a", "s", "b"], {})),
    "attention": sums(
        ("Transpose", ["a", "t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["a", "t", "q"], {}),
        ("Softmax", ["q", "s"], {}),
        ("MatMul", ["s", "a", "b"], {}),
    ),
    "LayerNormalization": sums(("LayerNormalization", ["a", "g", "b"], {}), g=np.arange(1.0, 7)),
    "a unit vector": sums(("ReduceL2", ["a", "i", "n"], {}), ("Div", ["a", "n", "b"], {}), i=LAST),
    "squares": sums(("ReduceSumSquare", ["a", "i", "n"], {}), ("Mul", ["a", "n", "b"], {}), i=LAST),
    "a maximum": sums(("ReduceMax", ["a", "i", "n"], {}), ("Sub", ["a", "n", "b"], {}), i=LAST),
    "a number format": sums(
        ("QuantizeLinear", ["a", "s", "z", "q"], {}),
        ("DequantizeLinear", ["q", "s", "z", "b"], {}),
        s=np.array(2**-20),
    ),
}
NETWORKS["a number format"].graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.uint16), "z"))


@pytest.mark.parametrize("name", NETWORKS)
def test_attributions_add_up_to_the_difference_of_scores(name: str) -> None:
    x = np.random.default_rng(3).standard_normal((2, 4, 5)).astype(np.float32)
    model = NETWORKS[name]
    if name == "a number format":
        model.opset_import[0].version = 21
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        found = explainer.explain(x, [0, 2], METHOD, baseline=0.1)
    difference = found.completeness.difference
    np.testing.assert_allclose(found.completeness.total, difference, atol=2e-4 * max(np.abs(difference).max(), 0.1))


def test_all_inputs_move() -> None:
    """y = mean(x) · w: each gets its difference times the mean of the other, and both add up."""
    net = Net()
    net.input("x", [BATCH, 1, 2, 2])
    net.input("w", [BATCH, 3])
    mean = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    net.op("Mul", mean, "w", out="logits")
    x = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    w = np.array([[2, 1, 0], [-3, 1, 1]], np.float32)
    with ogc.Explainer(net.model({"logits": [BATCH, 3]}), providers=["cpu"], image_input="x") as explainer:
        found = explainer.explain({"x": x, "w": w}, 0, METHOD, baseline={"x": 1, "w": 0.5})
        held = explainer.explain({"x": x, "w": w}, 0, METHOD, baseline={"x": 1, "w": "fixed"})
    close(found.attribution, (x - 1) / 4 * (w[:, :1, None, None] + 0.5) / 2)
    close(found.completeness.sums["w"], (w[:, 0] - 0.5) * (x.mean(axis=(1, 2, 3)) + 1) / 2)
    close(held.attribution, (x - 1) / 4 * w[:, :1, None, None])
    np.testing.assert_allclose(found.completeness.error, 0, atol=1e-5)


def test_a_choice_by_the_input_has_no_rule() -> None:
    model = sums(("Greater", ["a", "z", "c"], {}), ("Where", ["c", "a", "z", "b"], {}), z=np.array(0))
    explainer = ogc.Explainer(model, providers=["cpu"])
    with pytest.raises(UnsupportedGradient, match="DeepLIFT has no rule, for a condition"):
        explainer.explain(np.ones((1, 4, 5), np.float32), 0, METHOD)


def test_a_baseline_that_does_not_fit(explainer: Any) -> None:
    with pytest.raises(MethodError, match="does not fit"):
        explainer.explain(X, TARGETS, METHOD, baseline=np.zeros(7))
