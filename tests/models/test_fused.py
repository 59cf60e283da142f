"""Models as onnxruntime's optimisers save them: the layer and the map are those of the original file."""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from deployed import Calibration, of_microsoft, saved
from nets import one_thread
from onnxruntime.quantization import QuantType, quantize_static

import onnx_gradcam as ogc
from onnx_gradcam.jobs.inspect import overview

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")
tokens = importlib.import_module("token_truth")

# What the optimiser makes of them, by network.
FUSED = {
    "alexnet": {"FusedConv", "FusedGemm"},
    "resnet18": {"FusedConv"},
    "mobilenet_v2": {"FusedConv"},
    "mobilenet_v3": {"FusedConv"},
    "efficientnet_b0": {"FusedConv", "QuickGelu"},
    "inception_v3": {"FusedConv"},
    "shufflenet_v2": {"FusedConv"},
    "convnext_tiny": {"BiasGelu"},
    "vit": {"BiasGelu"},
    "swin": {"BiasGelu"},
    "swin_flat": {"BiasGelu"},
    "mobilevit": {"BiasGelu", "QuickGelu"},
}
DYNAMO = {  # and what it finds in the newer exporter's graphs only
    "vit": {"FusedMatMul", "SkipLayerNormalization"},
    "swin": {"FusedMatMul"},
    "swin_flat": {"FusedMatMul"},
    "mobilevit": {"FusedMatMul", "SkipLayerNormalization"},
}


def check(model: onnx.ModelProto, name: str, exporter: str) -> None:
    data, x = tokens.small_network(name, exporter)
    with ogc.Explainer(data, session_options=one_thread()) as explainer:
        expected = explainer.explain(x)
    with ogc.Explainer(model, session_options=one_thread()) as explainer:
        found = explainer.explain(x)
    assert found.target_layer == expected.target_layer
    assert not any("reading inner values" in warning for warning in found.warnings)
    assert np.abs(found.cam - expected.cam).max() <= 1e-4 * np.abs(expected.cam).max()
    assert np.abs(expected.cam).max() > 0
    statuses = {operator.status for operator in overview(model).operators if operator.domain}
    assert statuses <= {"lowered", "off the path"}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("exporter", exports.EXPORTERS)
def test_extended_optimisations(name: str, exporter: str, tmp_path: Path) -> None:
    model = saved(tokens.small_network(name, exporter)[0], tmp_path / "saved.onnx")
    assert of_microsoft(model) == FUSED[name] | (DYNAMO.get(name, set()) if exporter == "dynamo" else set())
    check(model, name, exporter)


@pytest.mark.parametrize("name", ["vit", "deit_distilled", "mobilevit"])
def test_the_optimiser_of_transformers(name: str, tmp_path: Path) -> None:
    """Every addition of a block is part of a SkipLayerNormalization."""
    optimizer = importlib.import_module("onnxruntime.transformers.optimizer")
    path = tmp_path / "model.onnx"
    path.write_bytes(tokens.small_network(name, "dynamo")[0])
    logging.disable(logging.WARNING)
    try:
        model = optimizer.optimize_model(str(path), model_type="vit", num_heads=2, hidden_size=32, opt_level=0).model
    finally:
        logging.disable(logging.NOTSET)
    assert of_microsoft(model) >= {"BiasGelu", "SkipLayerNormalization"}
    check(model, name, "dynamo")


@pytest.mark.parametrize("name", ["vit", "deit_distilled", "swin"])
@pytest.mark.parametrize("opset", [23, 24])
def test_attention_of_new_opsets(name: str, opset: int) -> None:
    """Parity with torch: the newer exporter writes one operator for all of attention."""
    network = token_nets.net(name)
    x = torch.zeros(2, 3, *network.size)
    model = exports.export(network, x, "dynamo", dynamic_batch=True, opset=opset)
    assert ("Attention" in {node.op_type for node in onnx.load_from_string(model).graph.node}) == (name != "swin")
    with ogc.Explainer(model, session_options=one_thread()) as explainer:
        tokens.check(explainer.explain(tokens.images(name)), tokens.truth(name))


def test_quantized_with_channels_last(tmp_path: Path) -> None:
    """All optimisations together turn the quantized convolutions of a CPU's model around."""
    data, x = tokens.small_network("resnet18", "torchscript")
    (tmp_path / "float.onnx").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            tmp_path / "float.onnx",
            tmp_path / "quantized.onnx",
            Calibration("x", x),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    quantized = (tmp_path / "quantized.onnx").read_bytes()
    model = saved(quantized, tmp_path / "saved.onnx", "ALL")
    if not of_microsoft(model) & {"NhwcMaxPool"}:
        pytest.skip("hardware: onnxruntime does not turn convolutions around on this processor")
    with ogc.Explainer(quantized, session_options=one_thread()) as explainer:
        expected = explainer.explain(x)
    with ogc.Explainer(model, session_options=one_thread()) as explainer:
        found = explainer.explain(x)
    assert not any("reading inner values" in warning for warning in found.warnings)
    assert found.cam.shape == expected.cam.shape
    assert np.abs(found.cam - expected.cam).max() <= 1e-4 * np.abs(expected.cam).max()
    assert np.abs(expected.cam).max() > 0
