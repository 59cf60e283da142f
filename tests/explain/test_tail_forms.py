"""Methods that run the graph behind a layer, on models of many forms, against the whole model run copy by copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import changed
import nets
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_gradcam as ogc

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
Score = Callable[[np.ndarray], float]


def check(model: onnx.ModelProto, x: np.ndarray, c: int, score_of: Score, a: np.ndarray, **opening: Any) -> None:
    """Compare both methods for one image; ``a`` (C, *space) and ``score_of`` are of it, and the class is ``c``."""
    with ogc.Explainer(model, "a", providers=["cpu"], **opening) as explainer:
        ablation = explainer.explain(x, c, "ablationcam", signed=True)
        alone = explainer.explain(x, c, "reciprocam", window="point") if a.ndim != 3 else None
        window = explainer.explain(x, c, "reciprocam") if a.ndim == 3 else None
    np.testing.assert_allclose(ablation.cam[0], changed.ablation_cam(a, score_of)[1], **CLOSE)
    if window is not None:
        np.testing.assert_allclose(window.cam[0], changed.recipro_cam(a, score_of), **CLOSE)
    if alone is not None:
        np.testing.assert_allclose(alone.cam[0], each_alone(a, score_of), **CLOSE)


def each_alone(a: np.ndarray, score: Score) -> np.ndarray:
    out = np.zeros(a.shape[1:])
    for place in np.ndindex(out.shape):
        mask = np.zeros(a.shape[1:], np.float32)
        mask[place] = 1
        out[place] = score(a * mask)
    return out - out.min()


@pytest.mark.parametrize("space", [(10,), (4, 5, 3)])
def test_signals_and_volumes(rng: np.random.Generator, space: tuple[int, ...]) -> None:
    net = nets.Net(seed=1)
    kernel = [3] * len(space)
    y = net.op("Conv", net.input("x", [nets.BATCH, 2, *space]), net.random(4, 2, *kernel), pads=[1] * 2 * len(space))
    net.op("Relu", y, out="a")
    net.head(net.op("Relu", net.op("Conv", "a", net.random(4, 4, *kernel), pads=[1] * 2 * len(space))), 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 2, *space)).astype(np.float32)
    run = changed.runner(model, "a", {"x": x}, "logits")
    check(model, x, 2, lambda a: float(run(a[None])[0, 2]), changed.value_of(model, "a", {"x": x})[0])


def test_channels_last(rng: np.random.Generator) -> None:
    """The layer lies between two nodes of the graph that put its channels last."""
    net = nets.Net(seed=2)
    y = net.op("Transpose", net.input("x", [nets.BATCH, 5, 6, 3]), perm=[0, 3, 1, 2])
    net.op("Transpose", net.op("Relu", net.conv(y, (3, 4))), perm=[0, 2, 3, 1], out="a")
    net.head(net.op("Relu", net.conv(net.op("Transpose", "a", perm=[0, 3, 1, 2]), (4, 4))), 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 5, 6, 3)).astype(np.float32)
    run = changed.runner(model, "a", {"x": x}, "logits")
    a = changed.value_of(model, "a", {"x": x})[0].transpose(2, 0, 1)
    check(model, x, 1, lambda a: float(run(a.transpose(1, 2, 0)[None])[0, 1]), a)


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch(rng: np.random.Generator, batch: int, flatten: bool) -> None:
    """Without ``flatten`` the graph behind the layer names the batch itself, and copies cannot be run together."""
    net = nets.Net(seed=4)
    net.op("Relu", net.conv(net.input("x", [batch, 3, 5, 6]), (3, 4)), out="a")
    pooled = net.op("GlobalAveragePool", net.op("Relu", net.conv("a", (4, 4))))
    flat = net.op("Flatten", pooled) if flatten else net.op("Reshape", pooled, net.ints(batch, 4))
    net.linear(flat, 4, 5, out="logits")
    model = net.model({"logits": [batch, 5]})
    x = rng.standard_normal((1, 3, 5, 6)).astype(np.float32)
    full = x.repeat(batch, axis=0)
    run = changed.runner(model, "a", {"x": full}, "logits")

    def score(activation: np.ndarray) -> float:
        return float(run(activation[None].repeat(batch, axis=0))[0, 3])

    check(model, x, 3, score, changed.value_of(model, "a", {"x": full})[0])


def test_integers_are_rounded_as_in_the_model(rng: np.random.Generator) -> None:
    net = nets.Net(seed=5)
    scale, zero = net.array(np.float32(0.03)), net.array(np.uint8(10))
    y = net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 5, 6]), (3, 4)))
    net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero, out="q"), scale, zero, out="a")
    net.head(net.op("Relu", net.conv("a", (4, 4))), 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 3, 5, 6)).astype(np.float32)
    run = changed.runner(model, "a", {"x": x}, "logits")

    def score(a: np.ndarray) -> float:
        rounded = (np.clip(np.rint(a / np.float32(0.03)) + 10, 0, 255) - 10) * np.float32(0.03)
        return float(run(rounded[None].astype(np.float32))[0, 1])

    check(model, x, 1, score, changed.value_of(model, "a", {"x": x})[0])


def test_a_class_token_stays_as_it_is(rng: np.random.Generator) -> None:
    """Seven tokens, the first of them the class token; tokens are mixed by a product behind the layer."""
    net = nets.Net(seed=6)
    patches = net.op("Conv", net.input("x", [nets.BATCH, 3, 4, 6]), net.random(5, 3, 2, 2), strides=[2, 2])
    tokens = net.op("Transpose", net.op("Reshape", patches, net.ints(0, 5, 6)), perm=[0, 2, 1])
    first = net.op("ReduceMean", tokens, net.ints(1), keepdims=1)
    net.op("Concat", first, tokens, axis=1, out="a")
    mixed = net.op("Relu", net.op("Add", "a", net.op("MatMul", net.random(7, 7), "a")))
    net.linear(net.op("Gather", mixed, net.array(np.int64(0)), axis=1), 5, 5, out="logits")
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 3, 4, 6)).astype(np.float32)
    run, value = changed.runner(model, "a", {"x": x}, "logits"), changed.value_of(model, "a", {"x": x})

    def score(a: np.ndarray) -> float:
        tokens = np.concatenate([value[:, :1], a.reshape(1, 5, 6).transpose(0, 2, 1)], axis=1)
        return float(run(tokens)[0, 4])

    check(model, x, 4, score, value[0, 1:].T.reshape(5, 2, 3), grid="2x3+1")


def test_a_segmenter_is_read_in_the_cell_that_is_explained(rng: np.random.Generator) -> None:
    net = nets.Net(seed=7)
    net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 6, 7]), (3, 4)), out="a")
    net.op("Softmax", net.conv(net.op("Relu", net.conv("a", (4, 4))), (4, 3), out="logits"), axis=1, out="y")
    model = net.model({"y": [nets.BATCH, 3, 6, 7]})
    x = rng.standard_normal((1, 3, 6, 7)).astype(np.float32)
    run = changed.runner(model, "a", {"x": x}, "logits")
    with ogc.Explainer(model, "a", providers=["cpu"]) as explainer:
        cell = explainer.explain(x, 2, "ablationcam").cell
    assert cell is not None
    i, j = cell[0]
    check(model, x, 2, lambda a: float(run(a[None])[0, 2, i, j]), changed.value_of(model, "a", {"x": x})[0])


def test_other_targets_than_classes(rng: np.random.Generator) -> None:
    """A difference of two classes, and two kinds of targets of one image."""
    net = nets.Net(seed=8)
    net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 5, 6]), (3, 4)), out="a")
    net.head(net.op("Relu", net.conv("a", (4, 4))), 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    with ogc.Explainer(model, "a", providers=["cpu"]) as explainer:
        both = explainer.explain(x, ogc.Each([ogc.Difference(1, 3), 2]), "reciprocam")
    for n in range(2):
        feeds = {"x": x[n : n + 1]}
        run, a = changed.runner(model, "a", feeds, "logits"), changed.value_of(model, "a", feeds)[0]
        first = changed.recipro_cam(a, lambda a, run=run: float(run(a[None])[0, 1] - run(a[None])[0, 3]))
        second = changed.recipro_cam(a, lambda a, run=run: float(run(a[None])[0, 2]))
        np.testing.assert_allclose(both.cam[2 * n], first, **CLOSE)
        np.testing.assert_allclose(both.cam[2 * n + 1], second, **CLOSE)


def test_a_node_without_a_rule_is_no_obstacle(rng: np.random.Generator) -> None:
    """Behind the layer everything is rounded to halves: no gradient, but a difference for these methods."""
    net = nets.Net(seed=9)
    net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 5, 6]), (3, 4)), out="a")
    half = net.array(np.float32(0.5))
    rounded = net.op("Mul", net.op("Floor", net.op("Div", net.conv("a", (4, 4)), half)), half)
    net.head(rounded, 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 3, 5, 6)).astype(np.float32)
    with (
        ogc.Explainer(model, "a", score="logits", providers=["cpu"]) as explainer,
        pytest.raises(ogc.NoGradientPath) as raised,
    ):
        explainer.explain(x, 1, "gradcam")
    assert "reciprocam" in raised.value.hint
    run = changed.runner(model, "a", {"x": x}, "logits")
    check(model, x, 1, lambda a: float(run(a[None])[0, 1]), changed.value_of(model, "a", {"x": x})[0], score="logits")


def test_several_layers_have_a_tail_each(rng: np.random.Generator) -> None:
    net = nets.Net(seed=10)
    net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 8, 8]), (3, 4)), out="a")
    net.op("Relu", net.conv("a", (4, 6), stride=2), out="b")
    net.head(net.op("Relu", net.conv("b", (6, 6))), 6)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    told: list[tuple[int, int]] = []
    with ogc.Explainer(model, ["a", "b"], providers=["cpu"]) as explainer:
        found = explainer.explain(x, 1, "ablationcam", signed=True, progress=lambda *n: told.append(n))
    for layer in found.layers:
        run, a = changed.runner(model, layer.name, {"x": x}, "logits"), changed.value_of(model, layer.name, {"x": x})[0]
        expected = changed.ablation_cam(a, lambda a, run=run: float(run(a[None])[0, 1]))[1]
        np.testing.assert_allclose(layer.cam[0], expected, **CLOSE)
    assert told[-1] == (4 + 6, 4 + 6)


def test_sixteen_bits(rng: np.random.Generator) -> None:
    net = nets.Net(seed=11)
    half = onnx.TensorProto.FLOAT16
    image = net.op("Cast", net.input("x", [nets.BATCH, 3, 5, 6]), to=half)
    weight = net.array(rng.standard_normal((4, 3, 3, 3)).astype(np.float16))
    net.op("Relu", net.op("Conv", image, weight, pads=[1] * 4), out="a")
    net.head(net.op("Cast", "a", to=onnx.TensorProto.FLOAT), 4)
    model = net.model({"logits": [nets.BATCH, 5]})
    x = rng.standard_normal((1, 3, 5, 6)).astype(np.float32)
    session = ort.InferenceSession(
        changed.with_fed(model, "a", half).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    a = changed.value_of(model, "a", {"x": x})[0]

    def score(a: np.ndarray) -> float:
        return float(session.run(None, {"x": x, "a_fed": a[None].astype(np.float16)})[0][0, 1])

    check(model, x, 1, score, a.astype(np.float32))


def test_a_sequence_is_read_in_the_step_that_is_explained(rng: np.random.Generator) -> None:
    net = nets.Net(seed=12)
    net.op("Relu", net.conv(net.input("x", [nets.BATCH, 3, 4, 9]), (3, 4)), out="a")
    steps = net.op("ReduceMean", net.op("Relu", net.conv("a", (4, 6))), net.ints(2), keepdims=0)
    logits = net.op("MatMul", net.op("Transpose", steps, perm=[0, 2, 1]), net.random(6, 7), out="logits")
    net.op("Softmax", logits, axis=2, out="y")
    model = net.model({"y": [nets.BATCH, 9, 7]})
    x = rng.standard_normal((1, 3, 4, 9)).astype(np.float32)
    run = changed.runner(model, "a", {"x": x}, "logits")
    with ogc.Explainer(model, "a", providers=["cpu"]) as explainer:
        cell = explainer.explain(x, 2, "ablationcam").cell
    assert cell is not None
    check(model, x, 2, lambda a: float(run(a[None])[0, cell[0, 0], 2]), changed.value_of(model, "a", {"x": x})[0])
