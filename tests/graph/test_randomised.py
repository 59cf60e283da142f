"""Weights in a random order: which layers, in which order, and what stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net, one_node, run
from repository import MODELS

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.load import Source, load
from onnx_gradcam.graph.randomised import weighted_layers, with_random_weights

DEMO = MODELS / "shapes-resnet.onnx"


def weights(source: Source, name: str) -> np.ndarray:
    return source.model.graph.initializers[name].const_value.numpy()


def test_the_last_layer_comes_first_and_every_float_weight_belongs_to_one() -> None:
    source = load(DEMO)
    layers = weighted_layers(source)
    nodes = [node for node in onnx.load(DEMO).graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert [layer.name for layer in layers] == [node.output[0] for node in reversed(nodes)]
    names = [name for layer in layers for name in layer.weights]
    assert len(names) == len(set(names))
    large = {t.name for t in onnx.load(DEMO).graph.initializer if t.data_type == 1 and np.prod(t.dims) > 1}
    assert set(names) == large


def test_values_stay_and_change_their_places() -> None:
    source = load(DEMO)
    layers = weighted_layers(source)
    random = with_random_weights(source, layers)
    for name in (name for layer in layers for name in layer.weights):
        before, after = weights(source, name), weights(random, name)
        assert after.shape == before.shape
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(np.sort(before, None), np.sort(after, None))
        if before.size > 100:
            assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.35


def test_other_layers_keep_theirs_and_a_layer_gets_the_same_whichever_are_random() -> None:
    source = load(DEMO)
    layers = weighted_layers(source)
    top, all_of_them = with_random_weights(source, layers[:2]), with_random_weights(source, layers)
    other = with_random_weights(source, layers[:2], seed=1)
    for name in layers[0].weights + layers[1].weights:
        np.testing.assert_array_equal(weights(top, name), weights(all_of_them, name))
    for name in layers[-1].weights:
        np.testing.assert_array_equal(weights(top, name), weights(source, name))
    name = layers[0].weights[0]
    assert not np.array_equal(weights(top, name), weights(other, name))
    x = {"image": np.random.default_rng(0).random((1, 3, 96, 96)).astype(np.float32)}
    before, after = (next(iter(run(each.model, x).values())) for each in (source, top))
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()


def test_of_an_eight_bit_layer_only_the_integers_are_moved() -> None:
    """The scale of each channel, and the bias that is counted in it, stay with each other."""
    rng = np.random.default_rng(0)
    net = Net()
    x = net.input("x", (1, 2, 5, 5))
    w = net.array(rng.integers(-128, 127, (3, 2, 3, 3)).astype(np.int8), "w")
    scale, zero = net.array(np.array([0.1, 0.2, 0.3], np.float32), "s"), net.array(np.zeros(3, np.int8), "z")
    y = net.op("Conv", x, net.op("DequantizeLinear", w, scale, zero, axis=0), net.random(3))
    model = net.model({y: (1, 3, 3, 3)})
    (layer,) = weighted_layers(load(model))
    assert layer.weights == ("w",)


def test_a_model_without_weights_is_refused() -> None:
    model = one_node("Relu", [np.zeros((1, 2), np.float32)])
    with pytest.raises(ModelError, match="no layer whose weights stand in the file"):
        weighted_layers(load(model))
