"""Several streams that end in no classes: embeddings, regressions, pairs of images; the smallest cut of their paths."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import BATCH, Net
from onnx import numpy_helper

import onnx_gradcam as ogc

RNG = np.random.default_rng(0)


def trunk(net: Net, x: str, end: str, weights: list[str]) -> str:
    """Two convolutions and a global mean, (N, 6)."""
    y = net.op("Relu", net.op("Conv", x, weights[0], pads=[1] * 4))
    y = net.op("Relu", net.op("Conv", y, weights[1], pads=[1] * 4, strides=[2, 2]), out=end)
    return net.op("Flatten", net.op("GlobalAveragePool", y))


def weights(net: Net) -> list[str]:
    return [net.random(4, 3, 3, 3), net.random(6, 4, 3, 3)]


def streams(ending: str) -> onnx.ModelProto:
    """Two networks of one image, side by side, and what is made of their features."""
    net = Net()
    x = net.input("x", [BATCH, 3, 8, 8])
    y = net.op("Concat", *(trunk(net, x, f"end{k}", weights(net)) for k in range(2)), axis=1)
    if ending == "regression":
        net.op("Gemm", y, net.array(RNG.standard_normal((1, 12)).astype(np.float32), "w"), net.array(np.float32([0.3])),
               out="y", transB=1)  # fmt: skip
        return net.model({"y": [BATCH, 1]})
    net.op("Tanh" if ending == "values" else "LpNormalization", net.linear(y, 12, 4), out="y",
           **({} if ending == "values" else {"axis": 1, "p": 2}))  # fmt: skip
    return net.model({"y": [BATCH, 4]})


X = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("ending", ["regression", "values", "embedding"])
def test_both_streams_are_the_layers(ending: str) -> None:
    with ogc.Explainer(streams(ending), providers=["cpu"]) as explainer:
        assert sorted(explainer.target_layers) == ["end0", "end1"]
        assert explainer.network.score.kind == ending
        found = explainer.explain(X) if ending == "regression" else explainer.explain(X, ogc.Output(1))
    assert all(layer.gradient.any(axis=(1, 2, 3)).all() for layer in found.layers)


def test_the_parts_of_a_regression_are_the_whole_value() -> None:
    """Behind the layers all is linear: Σ A · G of both streams is the value but for its bias."""
    with ogc.Explainer(streams("regression"), providers=["cpu"]) as explainer:
        found = explainer.explain(X, method="hirescam")
    parts = [(layer.activation.astype(np.float64) * layer.gradient).sum(axis=(1, 2, 3)) for layer in found.layers]
    assert all((np.abs(part) > 1e-3).all() for part in parts)
    np.testing.assert_allclose(sum(parts) + 0.3, found.score, rtol=1e-4)


def pair() -> onnx.ModelProto:
    """Whether two images show the same: one network for both, and a linear layer on what differs."""
    net = Net()
    shared = weights(net)
    each = [trunk(net, net.input(name, [BATCH, 3, 8, 8]), f"end_{name}", shared) for name in ("a", "b")]
    apart = net.op("Sub", *each)
    net.op(
        "Sigmoid",
        net.op("Gemm", apart, net.array(RNG.standard_normal((1, 6)).astype(np.float32), "w"), transB=1),
        out="p",
    )
    return net.model({"p": [BATCH, 1]})


@pytest.mark.parametrize(("name", "sign"), [("a", 1), ("b", -1)])
def test_the_image_that_is_explained_has_its_own_stream(name: str, sign: int) -> None:
    """The gradient of the logit at a place of the map is the weight of its channel / the number of places."""
    proto = pair()
    (w,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "w")
    feeds = {"a": X, "b": X[::-1].copy()}
    with ogc.Explainer(proto, image_input=name, providers=["cpu"]) as explainer:
        assert explainer.target_layers == (f"end_{name}",)
        found = explainer.explain(feeds, 1)
    expected = np.broadcast_to(sign * w.reshape(1, 6, 1, 1) / 16, found.gradient.shape)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-5)
