"""Layers with axes that the input lacks: a spectrogram made of a waveform, an image made of a row of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import BATCH, Net

import onnx_gradcam as ogc

CLASSES = 5


def of_waveform() -> onnx.ModelProto:
    """Eight filters over time, whose outputs are the rows of a picture."""
    net = Net()
    x = net.op("Conv", net.input("x", [BATCH, 1, 66]), net.random(8, 1, 3), strides=[2], out="filtered")
    x = net.op("Unsqueeze", x, net.ints(1), out="spectrogram")
    x = net.op("Relu", net.conv(x, (1, 6)), out="layer")
    net.head(x, 6, CLASSES)
    return net.model({"logits": [BATCH, CLASSES]})


def of_numbers() -> onnx.ModelProto:
    net = Net()
    x = net.op("Reshape", net.input("x", [BATCH, 256]), net.ints(-1, 1, 8, 32))
    net.head(net.op("Relu", net.conv(x, (1, 6)), out="layer"), 6, CLASSES)
    return net.model({"logits": [BATCH, CLASSES]})


NETWORKS = {"waveform": (of_waveform, (1, 66)), "numbers": (of_numbers, (256,))}


@pytest.fixture(params=NETWORKS)
def explained(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, np.ndarray]:
    write, shape = NETWORKS[request.param]
    return write(), np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)


def test_the_map_stays_on_the_grid_of_the_layer(explained: tuple[onnx.ModelProto, np.ndarray]) -> None:
    model, x = explained
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        result = explainer.explain(x, method="gradcam")
    assert result.target_layer == "layer"
    assert result.cam.shape == (2, 8, 32)
    expected = result.cam / result.cam.reshape(2, -1).max(1)[:, None, None]
    np.testing.assert_allclose(result.heatmap, expected, rtol=1e-6)
    np.testing.assert_array_equal(result.seen, [[0, 0, 32, 8]] * 2)
    assert any(w.startswith("the map stays on the 8×32 positions of the layer: the input 'x'") for w in result.warnings)


def test_it_is_drawn_over_black(explained: tuple[onnx.ModelProto, np.ndarray], tmp_path: Path) -> None:
    model, x = explained
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        result = explainer.explain(x, method="gradcam")
    np.testing.assert_array_equal(result.picture(0), np.zeros((8, 32, 3), np.uint8))
    result.save(tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.parametrize(("method", "smooth"), [("guided-gradcam", None), ("gradcam", "aug")])
def test_what_compares_places_in_the_input_with_the_map_is_refused(
    explained: tuple[onnx.ModelProto, np.ndarray], method: str, smooth: str | None
) -> None:
    model, x = explained
    with (
        ogc.Explainer(model, providers=["cpu"]) as explainer,
        pytest.raises(ogc.MethodError, match="has no axes for the map of 'layer'"),
    ):
        explainer.explain(x, method=method, smooth=smooth or ())
