"""A layer has the same relevance however its nodes are written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from measures import close
from nets import BATCH, Net

import onnx_gradcam as ogc
from onnx_gradcam.autodiff.relevance.layers import find_layers
from onnx_gradcam.graph.prepare.prepare import prepare

RNG = np.random.default_rng(7)
W = RNG.standard_normal((4, 2, 3, 3)).astype(np.float32)  # two groups, of a convolution and of a transposed one
B, SCALE, SHIFT, MEAN = RNG.standard_normal((4, 4)).astype(np.float32)
VARIANCE = RNG.uniform(0.5, 2, 4).astype(np.float32)
SLOPE = SCALE / np.sqrt(VARIANCE + np.float32(1e-5))
X = RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)


def model(write: Callable[[Net, str], str]) -> onnx.ModelProto:
    net = Net(seed=1)
    net.input("x", [BATCH, 4, 6, 6])
    net.head(net.op("Relu", write(net, net.op("Relu", net.conv("x", (4, 4))))), 4)
    return net.model({"logits": [BATCH, 5]})


def per_channel(array: np.ndarray) -> np.ndarray:
    return array.reshape(1, 4, 1, 1)


def convolution(net: Net, x: str, w: np.ndarray, b: np.ndarray | None, op_type: str) -> str:
    weights = [net.array(array) for array in (w, b) if array is not None]
    return net.op(op_type, x, *weights, pads=[1] * 4, group=2)


def scaled(op_type: str) -> np.ndarray:
    """The weights, times the slope of each channel that they make: of a transposed one (inputs, outputs of a group)."""
    if op_type == "Conv":
        return W * SLOPE.reshape(4, 1, 1, 1)
    return (W.reshape(2, 2, 2, 3, 3) * SLOPE.reshape(2, 1, 2, 1, 1)).reshape(W.shape)


def whole(op_type: str) -> onnx.ModelProto:
    return model(lambda net, x: convolution(net, x, scaled(op_type), SLOPE * (B - MEAN) + SHIFT, op_type))


def with_normalisation(op_type: str) -> onnx.ModelProto:
    def write(net: Net, x: str) -> str:
        statistics = [net.array(array) for array in (SCALE, SHIFT, MEAN, VARIANCE)]
        return net.op("BatchNormalization", convolution(net, x, W, B, op_type), *statistics)

    return model(write)


def with_arithmetic(op_type: str) -> onnx.ModelProto:
    def write(net: Net, x: str) -> str:
        y = net.op("Add", net.array(per_channel(B)), convolution(net, x, W, None, op_type))
        y = net.op("Sub", y, net.array(per_channel(MEAN)))
        y = net.op("Div", y, net.array(per_channel(1 / SLOPE)))
        return net.op(
            "Add",
            net.op("Mul", net.op("Mul", y, net.array(np.float32(2))), net.array(np.float32(0.5))),
            net.array(per_channel(SHIFT)),
        )

    return model(write)


@pytest.mark.parametrize("form", [with_normalisation, with_arithmetic])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("rule", ["z-plus", "gamma", "alpha-beta"])
def test_what_scales_and_shifts_channels_is_a_part_of_the_layer(
    form: Callable[[str], onnx.ModelProto], op_type: str, rule: str
) -> None:
    found = [
        ogc.Explainer(each, providers=["cpu"]).explain(X, [0, 3], "lrp", rule=rule).attribution
        for each in (form(op_type), whole(op_type))
    ]
    np.testing.assert_allclose(*found, atol=1e-5 * np.abs(found[1]).max())


def test_what_another_node_reads_stays_apart() -> None:
    """A sum that a skip path reads, too, is no part of the layer before it."""

    def write(net: Net, x: str) -> str:
        y = convolution(net, x, W, B, "Conv")
        return net.op("Add", net.op("Mul", y, net.array(per_channel(SLOPE))), y)

    layers = find_layers(list(prepare(ir.from_proto(model(write))).graph))
    assert not layers.followers
    assert len(layers.by_node) == 3


def test_a_fused_convolution_has_the_relevance_of_its_parts() -> None:
    def write(net: Net, x: str) -> str:
        net.domains["com.microsoft"] = 1
        weights = [net.array(array) for array in (W, B)]
        return net.op("FusedConv", x, *weights, domain="com.microsoft", pads=[1] * 4, group=2, activation="Relu")

    fused, plain = model(write), model(lambda net, x: convolution(net, x, W, B, "Conv"))
    close(*(ogc.Explainer(each, providers=["cpu"]).explain(X, [0, 3], "lrp").attribution for each in (fused, plain)))


def test_a_quantized_network_has_about_the_relevance_of_its_real_one() -> None:
    """Weights and activations in 8 bits, with a Relu folded into the number format."""

    def write(net: Net, x: str) -> str:
        s, z = net.array(np.float32(0.01)), net.array(np.uint8(0))
        stored = net.op("DequantizeLinear", net.op("QuantizeLinear", x, s, z), s, z)
        y = convolution(net, stored, W, B, "Conv")
        s = net.array(np.float32(0.03))
        return net.op("DequantizeLinear", net.op("QuantizeLinear", y, s, z), s, z)

    quantized, plain = model(write), model(lambda net, x: convolution(net, x, W, B, "Conv"))
    for rule in ("epsilon-plus", "epsilon"):
        a, b = (
            ogc.Explainer(each, providers=["cpu"]).explain(X, [0, 3], "lrp", rule=rule).attribution.ravel()
            for each in (quantized, plain)
        )
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=0.05)
