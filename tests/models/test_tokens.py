"""Networks of tokens through both exporters: the automatic layer, its grid, and parity with torch autograd."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import numpy as np
import pytest
from deployed import Calibration
from measures import cosine, relative
from nets import one_thread, session
from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static
from reference import evaluator

import onnx_gradcam as ogc

torch = pytest.importorskip("torch", reason="torch: not installed")
exports = importlib.import_module("exports")  # imports torch
token_nets = importlib.import_module("token_nets")
token_truth = importlib.import_module("token_truth")

every_net = pytest.mark.parametrize("name", token_nets.NETS)
both_exporters = pytest.mark.parametrize("exporter", exports.EXPORTERS)


net, model = token_nets.net, token_nets.model
COUNT, images, truth, check = token_truth.COUNT, token_truth.images, token_truth.truth, token_truth.check


@every_net
@both_exporters
def test_parity_at_the_automatic_layer(name: str, exporter: str) -> None:
    with ogc.Explainer(model(name, exporter), session_options=one_thread()) as explainer:
        found = explainer.explain(images(name))
    check(found, truth(name))
    assert found.heatmap.shape == (COUNT, *net(name).size)
    assert np.abs(truth(name)["gradient"]).max((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", ["vit", "swin", "mixer"])
def test_shapleycam(name: str) -> None:
    """Attention, GELU and normalisation bend the score: mean (G − ½ H·A) by torch in float64, differentiated twice."""
    network = copy.deepcopy(net(name)).to(torch.float64)
    kept: list[torch.Tensor] = []
    network.get_submodule(network.stream).register_forward_pre_hook(lambda _m, x: kept.append(x[0]))
    x = torch.tensor(images(name), dtype=torch.float64, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # the others have no second derivative
        score = network(x).max(1).values.sum()
    (gradient,) = torch.autograd.grad(score, kept, create_graph=True)
    (product,) = torch.autograd.grad(gradient, kept, grad_outputs=kept[0].detach())
    weights = network.to_grid((gradient - product / 2).detach().numpy()).mean((2, 3), keepdims=True)
    with ogc.Explainer(model(name, "torchscript"), session_options=one_thread()) as explainer:
        found = explainer.explain(images(name), method="shapleycam")
        assert relative(found.weights, explainer.explain(images(name)).weights).min() > 0.1
    assert relative(found.weights, weights).max() <= 1e-5


@pytest.mark.parametrize("name", ["vit", "swin", "swin_flat", "mixer"])
@both_exporters
def test_parity_with_a_fixed_batch_of_one(name: str, exporter: str) -> None:
    with ogc.Explainer(model(name, exporter, dynamic_batch=False), session_options=one_thread()) as explainer:
        check(explainer.explain(images(name)[:2]), truth(name))


@every_net
@both_exporters
def test_input_gradient_in_float64(name: str, exporter: str) -> None:
    written = ogc.gradient_model(model(name, exporter, torch.float64), ["x"])
    feeds = {"x": images(name).astype(np.float64), "target_index": np.full(COUNT, -1)}
    (found,) = evaluator(written).run(["grad/x"], feeds)
    assert relative(found, truth(name)["input_gradient"]).max() <= 1e-9


@every_net
@both_exporters
def test_input_gradient_in_float32(name: str, exporter: str) -> None:
    written = ogc.gradient_model(model(name, exporter), ["x"])
    feeds = {"x": images(name), "target_index": np.full(COUNT, -1)}
    (found,) = session(written).run(["grad/x"], feeds)
    expected = truth(name)["input_gradient"]
    assert np.median(relative(found, expected)) <= 1e-5
    assert cosine(found, expected).min() >= 0.999


@every_net
@both_exporters
def test_verify(name: str, exporter: str) -> None:
    report = ogc.verify(model(name, exporter), x=images(name)[:1])
    assert report.ok, str(report)


# ------------------------------------------------------------------------------------- the map is where it belongs

SPOTTERS = {
    "class token": lambda: token_nets.ViT(width=4),
    "registers before": lambda: token_nets.ViT(leading=3, width=4),
    "registers behind": lambda: token_nets.ViT(trailing=2, width=4),
    "down the columns": lambda: token_nets.ColumnOrder(width=4),
}


def spots() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """For each place of the grid an image in which this patch alone is bright."""
    rows, columns = token_nets.GRID
    places = [(r, c) for r in range(rows) for c in range(columns)]
    images = np.zeros((len(places), 3, rows, token_nets.PATCH, columns, token_nets.PATCH), np.float32)
    for k, (r, c) in enumerate(places):
        images[k, :, r, :, c] = 1
    return images.reshape(len(places), 3, *token_nets.ViT.size), places


@pytest.mark.parametrize("kind", SPOTTERS)
@both_exporters
def test_the_patch_that_decides_is_the_maximum(kind: str, exporter: str) -> None:
    x, places = spots()
    exported = exports.export(token_nets.spotter(SPOTTERS[kind]()), torch.zeros(2, *x.shape[1:]), exporter)
    with ogc.Explainer(exported, session_options=one_thread()) as explainer:
        found = explainer.explain(x, target=0)
    at = [np.unravel_index(cam.argmax(), cam.shape) for cam in found.cam]
    assert [(int(r), int(c)) for r, c in at] == places
    pixels = [np.unravel_index(row.argmax(), row.shape) for row in found.heatmap]
    assert [(int(y) // token_nets.PATCH, int(v) // token_nets.PATCH) for y, v in pixels] == places


# -------------------------------------------------------------------------------------------- grids by the user


def layers_of(explainer: ogc.Explainer) -> tuple[str, tuple[int | str, ...]]:
    (layer,) = explainer.network.layers
    return layer.name, layer.dims[1:]


@both_exporters
def test_a_grid_by_the_user(exporter: str) -> None:
    """The same as the one found; with other tokens before it, another part of the stream."""
    exported, x = model("deit_distilled", exporter), images("deit_distilled")
    with ogc.Explainer(exported) as explainer:
        name, dims = layers_of(explainer)
        expected = explainer.explain(x)
    assert dims == (12, 3, 5)
    for grid in ("3x5", "3x5+2"):
        with ogc.Explainer(exported, name, grid=grid) as explainer:
            np.testing.assert_array_equal(explainer.explain(x).activation, expected.activation)
    with ogc.Explainer(exported, name, grid="3x5+0") as explainer:
        shifted = explainer.explain(x).activation.reshape(COUNT, 12, 15)
    np.testing.assert_array_equal(shifted[:, :, 2:], expected.activation.reshape(COUNT, 12, 15)[:, :, :-2])
    with pytest.raises(ogc.LayerError, match="3x6 does not fit"):
        ogc.Explainer(exported, name, grid="3x6")


def test_tokens_that_are_no_grid_are_refused_with_the_way_out() -> None:
    exported = exports.export(token_nets.Cropped(), torch.zeros(2, 3, *token_nets.ViT.size), "dynamo")
    with pytest.raises(ogc.LayerError, match="not a grid that could be found") as error:
        _ = ogc.Explainer(exported).target_layers
    assert "--grid HxW" in error.value.hint
    with pytest.raises(ogc.LayerError, match="could not be found by following the graph"):
        ogc.Explainer(exported, error.value.name)
    assert not any(layer.chosen for layer in ogc.layers(exported))
    assert [layer.shape[2:] for layer in ogc.layers(exported, grid="1x13") if layer.chosen] == [(1, 13)]
    with ogc.Explainer(exported, grid="1x13") as explainer:
        assert layers_of(explainer) == (error.value.name, (12, 1, 13))
    assert ogc.verify(exported, grid="1x13", x=np.zeros((1, 3, *token_nets.ViT.size), np.float32)).ok


# ------------------------------------------------------------------------------------------------- quantized


def quantized(name: str, form: str, folder: Path) -> bytes:
    before, after = folder / "float.onnx", folder / "quantized.onnx"
    before.write_bytes(model(name, "torchscript"))
    if form == "dynamic":
        quantize_dynamic(before, after)
    else:
        quantize_static(before, after, Calibration("x", images(name)), quant_format=QuantFormat[form])
    return after.read_bytes()


@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize("name", ["vit", "swin", "mixer"])
def test_the_same_layer_of_a_quantized_model(name: str, form: str, tmp_path: Path) -> None:
    with ogc.Explainer(quantized(name, form, tmp_path), session_options=one_thread()) as explainer:
        found = explainer.explain(images(name)[:1])
    with ogc.Explainer(model(name, "torchscript"), session_options=one_thread()) as explainer:
        expected = explainer.explain(images(name)[:1], target=found.class_index.tolist())
    assert found.target_layer.startswith(expected.target_layer)
    assert cosine(found.activation, expected.activation).min() >= 0.98
    assert cosine(found.gradient, expected.gradient).min() >= 0.9
