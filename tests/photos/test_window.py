"""Window and level: deep grey values keep all their bits on the way to the tensor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from nets import Net
from photos import encoded
from PIL import Image

import onnx_gradcam as ogc
from onnx_gradcam.photos.decode import decode, decode_window
from onnx_gradcam.photos.preprocess.presets import PRESETS, Preprocess
from onnx_gradcam.photos.tensor import to_tensor
from onnx_gradcam.photos.window import windowed

GREY = replace(PRESETS["raw"], size=(2, 3), channels="L", mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1000, 0),
        (-160, 0),
        (-159, 255 / 400),
        (40, 127.5),
        (140, 191.25),
        (239, 255 * 399 / 400),
        (240, 255),
        (3000, 255),
    ],
)
def test_the_formula_by_hand(value: int, expected: float) -> None:
    assert windowed(np.array([value]), (40, 400))[0] == pytest.approx(expected, abs=1e-4)


def tiff(values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".tiff", values)[1])


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_values_of_a_tiff_may_be_negative(dtype: str) -> None:
    values = np.array([[-1024, -160, 0], [40, 240, 1500]]).astype(dtype)
    expected = np.clip((values - -160.0) / 400, 0, 1) * 255
    got = decode_window(tiff(values), (40, 400))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.repeat(expected[:, :, None], 3, axis=2), atol=1e-4)


def test_sixteen_bits_of_a_png_stay_apart() -> None:
    values = np.array([[30000, 30001, 30002], [30003, 65535, 0]], np.uint16)
    assert len(np.unique(decode(encoded(Image.fromarray(values), "PNG")))) == 3  # in 8 bits four of them are one
    for source in (encoded(Image.fromarray(values), "PNG"), Image.fromarray(values), values):
        pixels = decode_window(source, (30002, 8))
        np.testing.assert_allclose(pixels[0, :, 0], [63.75, 95.625, 127.5])
        np.testing.assert_allclose(pixels[1, :, 0], [159.375, 255, 0])
        x, _ = to_tensor(pixels, GREY)
        np.testing.assert_allclose(x[0, 0, 0], [63.75, 95.625, 127.5], rtol=1e-6)


def test_the_photo_is_turned_upright() -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = encoded(Image.fromarray(values), "PNG", orientation=6)
    np.testing.assert_array_equal(decode_window(stored, (127.5, 255))[:, :, 0], decode(stored)[:, :, 0])


def test_colours_are_windowed_one_by_one() -> None:
    values = np.zeros((2, 2, 3), np.uint16)
    values[0, 0] = 1000, 2000, 3000
    png = cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()
    np.testing.assert_allclose(decode_window(png, (2000, 2000))[0, 0], [0, 127.5, 255])


def test_an_array_of_two_channels_is_refused() -> None:
    with pytest.raises(ogc.InputError, match="is not a photo: shape"):
        decode_window(np.zeros((4, 4, 2), np.uint16), (1, 1))


def depth_model() -> Any:
    """A network whose map is its input: the mean of a grey picture."""
    net = Net()
    x = net.input("x", ["N", 1, 4, 4])
    y = net.op("Relu", net.op("Conv", x, net.array(np.full((2, 1, 1, 1), 1, np.float32))), out="relu")
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model({net.op("Gemm", flat, net.array(np.eye(2, 3, dtype=np.float32)), out="y"): ["N", 3]})


@pytest.mark.parametrize("request_of", [lambda: "zero-one,window=30000:1000", lambda: PRESET, lambda: WHOLE])
def test_the_model_reads_the_window(request_of: Any) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(29000, 31000, (4, 4)).astype(np.uint16)
    expected = np.clip((values - 29500.0) / 1000, 0, 1)
    with ogc.Explainer(depth_model()) as explainer:
        found = explainer.explain_image(encoded(Image.fromarray(values), "PNG"), 0, preprocess=request_of())
    assert found.score[0] == pytest.approx(expected.mean(), rel=1e-6)
    np.testing.assert_allclose(found.activation[0, 0], expected, atol=1e-6)
    assert found.frame.photo is not None
    np.testing.assert_array_equal(found.frame.photo[:, :, 0], np.rint(expected * 255))


PRESET = {"preset": "zero-one", "window": [30000, 1000]}
WHOLE = Preprocess((4, 4), "stretch", None, 1 / 255, (0.0,), (1.0,), "L", "NCHW", "float32", window=(30000.0, 1000.0))


def test_a_window_is_declared_by_the_model_too(tmp_path: Path) -> None:
    model = depth_model()
    model.metadata_props.add(key="onnx_gradcam.preprocess", value=json.dumps(PRESET))
    with ogc.Explainer(model) as explainer:
        choice = explainer.preprocessing()
    assert choice.preprocess.window == (30000.0, 1000.0)
    assert choice.sources["window"].startswith("declared: ")


@pytest.mark.parametrize("text", ["window=40", "window=40:0", "window=40:-3", "window=a:b", "window=1:2:3"])
def test_a_wrong_window_is_refused(text: str) -> None:
    with ogc.Explainer(depth_model()) as explainer, pytest.raises(ogc.PreprocessError, match="window"):
        explainer.preprocessing(f"raw,{text}")
