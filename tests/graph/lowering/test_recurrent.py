"""An LSTM of onnxruntime's dynamic quantizer: its gradient is that of an LSTM with the weights that it stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import BATCH, Net, run
from onnxruntime.quantization import quantize_dynamic

import onnx_gradcam as ogc

T, H, CLASSES = 6, 8, 4


def recogniser(direction: str) -> onnx.ModelProto:
    """Convolution → columns → LSTM → the last states of all directions → scores."""
    ways = 2 if direction == "bidirectional" else 1
    net = Net()
    conv = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 1, T]), (3, 16), kernel=1), out="h")
    columns = net.op("Transpose", net.op("Squeeze", conv, net.ints(2)), perm=[2, 0, 1])
    weights = [net.random(ways, 4 * H, 16), net.random(ways, 4 * H, H), net.random(ways, 8 * H)]
    _, last, _ = net.ops("LSTM", columns, *weights, out=["y", "last", "cell"], hidden_size=H, direction=direction)
    rows = net.op("Flatten", net.op("Transpose", last, perm=[1, 0, 2]))
    net.op("MatMul", rows, net.random(ways * H, CLASSES), out="logits")
    return net.model({"logits": [BATCH, CLASSES]})


def dequantized(model: onnx.ModelProto, deployed: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the weights that ``deployed`` stores."""
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in deployed.graph.initializer}
    (node,) = [n for n in deployed.graph.node if n.op_type == "DynamicQuantizeLSTM"]
    (plain,) = [n for n in model.graph.node if n.op_type == "LSTM"]
    for k, place in ((1, 8), (2, 10)):
        q, scale, zero = (stored[node.input[i]].astype(np.float32) for i in (k, place, place + 1))
        if scale.ndim == 1:
            scale, zero = scale[:, None], zero[:, None]
        array = ((q - zero[:, None]) * scale[:, None]).transpose(0, 2, 1)
        target = next(t for t in model.graph.initializer if t.name == plain.input[k])
        target.CopyFrom(onnx.numpy_helper.from_array(array, target.name))
    return model


def quantized(folder: Path, direction: str, per_channel: bool, *op_types: str) -> onnx.ModelProto:
    onnx.save(recogniser(direction), folder / "plain.onnx")
    quantize_dynamic(
        folder / "plain.onnx", folder / "int8.onnx", per_channel=per_channel, op_types_to_quantize=[*op_types]
    )
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_the_gradient_of_a_quantized_lstm(direction: str, per_channel: bool, tmp_path: Path) -> None:
    deployed = quantized(tmp_path, direction, per_channel, "LSTM")
    twin = dequantized(recogniser(direction), deployed)
    feeds = {
        "x": np.random.default_rng(0).standard_normal((3, 3, 1, T)).astype(np.float32),
        "target_index": np.array([0, 3, 1]),
    }
    found = run(ogc.gradient_model(deployed, ["h"]), feeds, ["logits", "grad/h"])
    exact = run(ogc.gradient_model(twin, ["h"]), feeds, ["logits", "grad/h"])
    before = run(deployed, {"x": feeds["x"]}, ["logits"])
    np.testing.assert_allclose(found["logits"], before["logits"], atol=1e-6)
    for name in exact:  # what is left is the rounding of x and h to 8 bits
        scale = np.abs(exact[name]).max()
        np.testing.assert_allclose(found[name] / scale, exact[name] / scale, atol=2e-2)


@pytest.mark.parametrize("per_channel", [False, True])
def test_verify_passes(per_channel: bool, tmp_path: Path) -> None:
    """Also behind a product with quantized weights, which onnxruntime would round again."""
    deployed = quantized(tmp_path, "forward", per_channel, "LSTM", "MatMul")
    x = np.random.default_rng(0).standard_normal((1, 3, 1, T)).astype(np.float32)
    report = ogc.verify(deployed, target_layer=["h"], x=x)
    assert [check.status for check in report.nodes if "LSTM" in check.op_type] == ["pass"]
    assert {check.name: check.status for check in report.checks if "'x'" not in check.name} == {
        "forward pass": "pass",
        "node by node": "pass",
        "gradient at 'h', without rounding": "pass",
    }


def test_coarse_hidden_states_are_no_wrong_rule(tmp_path: Path) -> None:
    """Eight bits round hidden states, which rules read, by some percent where large recurrent weights magnify it."""
    plain = recogniser("forward")
    (lstm,) = [n for n in plain.graph.node if n.op_type == "LSTM"]
    weights = next(t for t in plain.graph.initializer if t.name == lstm.input[2])
    weights.CopyFrom(onnx.numpy_helper.from_array(60 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(plain, tmp_path / "plain.onnx")
    quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["LSTM"])
    x = np.random.default_rng(0).standard_normal((1, 3, 1, T)).astype(np.float32)
    report = ogc.verify(tmp_path / "int8.onnx", target_layer=["h"], x=x)
    assert [check.status for check in report.nodes if "LSTM" in check.op_type] == ["pass"]
