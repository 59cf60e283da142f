"""Inputs to verify on."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.verify.sample import SIDES_TRIED, noise, one_batch


def test_one_image_of_many() -> None:
    x, scale = np.arange(6.0).reshape(3, 2), np.ones(2)
    found = one_batch({"x": x, "scale": scale}, "x", None)
    np.testing.assert_array_equal(found["x"], x[:1])
    np.testing.assert_array_equal(found["scale"], scale)


def test_a_fixed_batch_is_cut_or_filled_with_the_last() -> None:
    x = np.arange(3.0)[:, None]
    np.testing.assert_array_equal(one_batch({"x": x}, "x", 2)["x"].ravel(), [0, 1])
    np.testing.assert_array_equal(one_batch({"x": x}, "x", 5)["x"].ravel(), [0, 1, 2, 2, 2])


def test_noise_of_declared_shapes() -> None:
    specs = {
        "x": InputSpec("x", (None, 3, 8, 9), "float32"),
        "bytes": InputSpec("bytes", (2, 4, 4, 3), "uint8"),
        "size": InputSpec("size", (None, 2), "int64"),
    }
    (found,) = noise(specs, None, 0)
    assert {k: (v.shape, v.dtype.name) for k, v in found.items()} == {
        "x": ((1, 3, 8, 9), "float32"),
        "bytes": ((2, 4, 4, 3), "uint8"),
        "size": ((1, 2), "int64"),
    }
    assert abs(found["x"].std() - 1) < 0.2
    assert found["bytes"].max() > 127
    assert (found["size"] == 1).all()
    (again,) = noise(specs, None, 0)
    np.testing.assert_array_equal(again["x"], found["x"])


def test_open_sizes_are_tried_in_turn() -> None:
    first = noise({"x": InputSpec("x", (None, 3, None, None), "float32")}, 4, 0)
    assert [f["x"].shape for f in first] == [(4, 3, side, side) for side in SIDES_TRIED]
    last = noise({"x": InputSpec("x", (None, None, None, 3), "float32")}, None, 0)
    assert [f["x"].shape for f in last] == [(1, side, side, 3) for side in SIDES_TRIED]


def test_an_open_channel_count_is_three() -> None:
    (found, *_) = noise({"x": InputSpec("x", (None, None, None, None), "float32")}, None, 0)
    assert found["x"].shape == (1, 3, 224, 224)
