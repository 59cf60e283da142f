"""Which numbers an input takes is told by its file: by networks whose first layers were fed photos in a known form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from localisation import declared
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.explain.preprocessing import find_preprocessing
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.photos.preprocess.presets import PRESETS, Preprocess
from onnx_gradcam.photos.tensor import to_tensor

SIDE, KERNELS = 48, 24
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def photos(count: int = 12) -> list[np.ndarray]:
    """Return pictures with the spectrum of photos, 1/f, and channels that go together, as those of photos do."""
    rng = np.random.default_rng(3)
    y, x = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    power = 1 / np.maximum(np.hypot(y, x), 1 / SIDE)
    pictures = []
    for _ in range(count):
        grey, *colours = (np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * power).real for _ in range(4))
        channels = np.stack([grey + 0.3 * c for c in colours], axis=2)
        pictures.append((115 + 66 * (channels - channels.mean()) / channels.std()).clip(0, 255).astype(np.uint8))
    return pictures


def tensors(form: Preprocess) -> np.ndarray:
    sized = {**form.__dict__, "size": (SIDE, SIDE), "shorter": None, "resize": "stretch"}
    return np.concatenate([to_tensor(p, Preprocess(**sized))[0] for p in photos()])


def convolved(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, weights.shape[2:], axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, weights, optimize=True))


def trained(form: Preprocess, folded: bool) -> onnx.ModelProto:
    """Return a classifier whose first BatchNormalization holds what photos in this form give."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((KERNELS, 3, 3, 3)) * 0.2
    y = convolved(tensors(form), weights)
    mean, variance = y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3))
    gamma, beta = rng.uniform(0.5, 1.5, KERNELS), rng.normal(0, 0.3, KERNELS)
    net = Net()
    net.input("x", ["N", 3, SIDE, SIDE])
    if folded:
        factor = gamma / np.sqrt(variance)
        w, b = weights * factor[:, None, None, None], beta - mean * factor
        cells = net.op("Conv", "x", net.array(np.float32(w)), net.array(np.float32(b)))
    else:
        constants = [net.array(np.float32(a)) for a in (gamma, beta, mean, variance)]
        cells = net.op("BatchNormalization", net.op("Conv", "x", net.array(np.float32(weights))), *constants)
    return ended(net, net.op("Relu", cells))


def ended(net: Net, cells: str, channels: int = KERNELS) -> onnx.ModelProto:
    net.op("Softmax", net.head(cells, channels), axis=1, out="p")
    return net.model({"p": ["N", 5]})


def guess(model: onnx.ModelProto | Path) -> Choice:
    return find_preprocessing(ogc.Network(model))


def numbers(p: Preprocess) -> tuple[Any, ...]:
    """Return what black, middle grey and white become, channel by channel."""
    values = (np.array([[0], [127.5], [255]]) * p.scale - np.array(p.mean)) / np.array(p.std)
    return tuple(np.round(values, 6).ravel()), p.channels


@pytest.mark.parametrize("name", ["zero-one", "tf", "imagenet", "imagenet-caffe", "raw"])
def test_a_batch_normalization_tells_what_it_was_trained_on(name: str) -> None:
    choice = guess(trained(PRESETS[name], folded=False))
    assert numbers(choice.preprocess) == numbers(PRESETS[name])
    assert choice.sources["mean"].startswith(f"guessed: as preset {name}, its first BatchNormalization was trained on")


def test_numbers_of_no_preset_are_set_by_mean_and_deviation() -> None:
    """As where somebody standardised and divided by 255 once more."""
    mean, std = (0.45,) * 3, (0.25 * 255,) * 3
    form = Preprocess((SIDE, SIDE), "stretch", None, 1 / 255, mean, std, "RGB", "NCHW", "float32")
    p = guess(trained(form, folded=False)).preprocess
    want, got = tensors(form), tensors(p)
    assert np.abs(got.std() / want.std() - 1) < 0.3
    assert abs(got.mean() - want.mean()) < 0.3 * want.std()


@pytest.mark.parametrize(
    ("name", "guessed"),
    [("raw", "raw"), ("imagenet-caffe", "imagenet-caffe"), ("tf", "imagenet"), ("zero-one", "imagenet")],
)
def test_folded_weights_tell_pixels_from_standardised_ones(name: str, guessed: str) -> None:
    """They are as small as 0..255 needs; between standardised forms they tell nothing, and the usual one is taken."""
    choice = guess(trained(PRESETS[name], folded=True))
    assert numbers(choice.preprocess) == numbers(PRESETS[guessed])
    assert ("its first convolution expects" in choice.sources["scale"]) == (name in ("raw", "imagenet-caffe"))


def by_channel(values: Any) -> np.ndarray:
    return np.float32(values).reshape(1, 3, 1, 1)


def rescaling(net: Net) -> str:
    return net.op("Sub", net.op("Mul", "x", net.array(np.float32(1 / 127.5))), net.array(np.float32(1)))


def standardised(net: Net, reverse: bool = False) -> str:
    mean, std = (by_channel(v[::-1] if reverse else v) for v in IMAGENET)
    x = net.op("Div", "x", net.array(np.float32(255)))
    return net.op("Div", net.op("Sub", x, net.array(mean)), net.array(std))


def of_zero_one(net: Net) -> str:
    return net.op("Div", net.op("Sub", "x", net.array(by_channel(IMAGENET[0]))), net.array(by_channel(IMAGENET[1])))


def mean_image(net: Net) -> str:
    """It subtracts a mean for each pixel, as Caffe's models do."""
    image = by_channel([103.939, 116.779, 123.68]) + np.random.default_rng(0).normal(0, 3, (1, 3, SIDE, SIDE))
    return net.op("Sub", "x", net.array(np.float32(image)))


def turned(net: Net) -> str:
    """It turns RGB into BGR and subtracts the means of B, G and R."""
    x = net.op("Gather", "x", net.ints(2, 1, 0), axis=1)
    return net.op("Sub", x, net.array(by_channel([103.939, 116.779, 123.68])))


def sliced_backwards(net: Net) -> str:
    x = net.op("Slice", "x", net.ints(-1), net.ints(-(2**31)), net.ints(1), net.ints(-1))
    return net.op("Sub", x, net.array(by_channel([103.939, 116.779, 123.68])))


def split_and_joined(net: Net) -> str:
    parts = net.ops("Split", "x", out=["r", "g", "b"], axis=1, num_outputs=3)
    x = net.op("Concat", *parts[::-1], axis=1)
    return net.op("Sub", x, net.array(by_channel([103.939, 116.779, 123.68])))


def normalised_input(net: Net) -> str:
    """A BatchNormalization on the input itself, trained on 0..255."""
    stats = [np.ones(3), np.zeros(3), np.array([122.0, 115, 105]), np.array([66.0, 65, 67]) ** 2]
    return net.op("BatchNormalization", "x", *(net.array(np.float32(a)) for a in stats))


def doubled(net: Net) -> str:
    return net.op("Sub", net.op("Mul", "x", net.array(np.float32(2))), net.array(np.float32(1)))


@pytest.mark.parametrize(
    ("first", "name", "channels"),
    [
        (rescaling, "raw", "RGB"),
        (standardised, "raw", "RGB"),
        (lambda net: standardised(net, reverse=True), "raw", "BGR"),
        (of_zero_one, "zero-one", "RGB"),
        (doubled, "zero-one", "RGB"),
        (mean_image, "raw", "BGR"),
        (turned, "raw", "RGB"),
        (sliced_backwards, "raw", "RGB"),
        (split_and_joined, "raw", "RGB"),
        (normalised_input, "raw", "RGB"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_the_graph_does_itself_is_not_done_twice(first: Callable[[Net], str], name: str, channels: str) -> None:
    net = Net()
    net.input("x", ["N", 3, SIDE, SIDE])
    choice = guess(ended(net, net.op("Relu", net.conv(first(net), (3, KERNELS)))))
    assert numbers(choice.preprocess) == (numbers(PRESETS[name])[0], channels)
    assert choice.sources["scale"].startswith(f"guessed: as preset {name}, ")


@pytest.mark.parametrize(
    ("scale", "zero", "name"),
    [
        (1 / 255, 0, "zero-one"), (2 / 255, 128, "tf"), (4.7579 / 255, 114, "imagenet"),
        (274.8 / 255, 115, "imagenet-caffe"), (1.0, 0, "raw"),
    ],
)  # fmt: skip
def test_the_integers_of_a_quantized_input_tell_its_range(scale: float, zero: int, name: str) -> None:
    net = Net()
    net.input("x", ["N", 3, SIDE, SIDE])
    constants = net.array(np.float32(scale)), net.array(np.uint8(zero))
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", *constants), *constants)
    choice = guess(ended(net, net.op("Relu", net.conv(x, (3, KERNELS)))))
    assert numbers(choice.preprocess) == numbers(PRESETS[name])
    assert "the model stores its input as integers for" in choice.sources["scale"]


def of_tensorflow(producer: str = "tf2onnx", architecture: str = "model", nhwc: bool = True) -> onnx.ModelProto:
    net = Net()
    net.input("x", ["N", SIDE, SIDE, 3] if nhwc else ["N", 3, SIDE, SIDE])
    x = net.op("Transpose", "x", perm=[0, 3, 1, 2]) if nhwc else "x"
    cells = net.conv(x, (3, KERNELS), out=f"{architecture}/conv1/Conv2D")
    model = ended(net, net.op("Relu", cells))
    model.producer_name = producer
    return model


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (of_tensorflow(), "tf", "written by tf2onnx"),
        (of_tensorflow("keras2onnx", nhwc=False), "tf", "written by keras2onnx"),
        (of_tensorflow("onnx.quantize", nhwc=False), "tf", "its nodes are called as in TensorFlow: "),
        (of_tensorflow("", "m"), "tf", "its nodes are called as in TensorFlow: "),
        (of_tensorflow(architecture="resnet50"), "imagenet-caffe", "as keras.applications prepares resnet50"),
        (of_tensorflow(architecture="resnet50v2"), "tf", "written by tf2onnx"),
        (of_tensorflow(architecture="vgg16"), "imagenet-caffe", "as keras.applications prepares vgg16"),
        (of_tensorflow(architecture="densenet121"), "imagenet", "as keras.applications prepares densenet121"),
    ],
)
def test_tensorflow_takes_minus_one_to_one_and_the_whole_photo(model: onnx.ModelProto, name: str, reason: str) -> None:
    choice = guess(model)
    assert numbers(choice.preprocess) == numbers(PRESETS[name])
    assert reason in choice.sources["scale"]
    assert (choice.preprocess.resize, choice.preprocess.shorter) == ("stretch", None)


@pytest.mark.parametrize(("producer", "layer"), [("onnx-caffe2", "a"), ("", "conv1_1"), ("", "fire2/squeeze1x1")])
def test_caffe_takes_bgr_minus_its_mean(producer: str, layer: str) -> None:
    net = Net()
    net.input("data", [1, 3, SIDE, SIDE])
    model = ended(net, net.op("Relu", net.conv("data", (3, KERNELS), out=layer)))
    model.producer_name = producer
    choice = guess(model)
    assert numbers(choice.preprocess) == numbers(PRESETS["imagenet-caffe"])
    assert "as Caffe's models take it" in choice.sources["channels"]
    assert "(as preset imagenet-caffe, as Caffe's models take it" in choice.warnings[0]


@pytest.mark.parametrize(("strides", "expected"), [((2, 2), 4), ((2, 2, 2, 2), 16), ((2, 3), 6)])
def test_the_stride_of_an_open_segmenter_is_that_of_its_coarsest_grid(strides: tuple[int, ...], expected: int) -> None:
    net = Net()
    x, channels = net.input("x", ["N", 3, "H", "W"]), 3
    for stride in strides:
        x, channels = net.op("Relu", net.conv(x, (channels, 4), stride=stride)), 4
    up = net.op("Resize", x, "", net.array(np.float32([1, 1, 2, 2])))
    net.op("Sigmoid", net.conv(up, (4, 2)), out="p")
    choice = guess(net.model({"p": ["N", 2, None, None]}))  # type: ignore[list-item]
    assert (choice.preprocess.size, choice.preprocess.longest, choice.preprocess.multiple) == (None, 1024, expected)


KNOWN = {
    "squeezenet-fp16": "BGR", "squeezenet-fp32-from-fp16": "BGR", "shufflenetv2-int8": "RGB", "deeplab-dm05": "RGB",
    "ppocr-cls-v3": "RGB", "yolox-nano": "BGR", "ultraface-320": "RGB", "fastestdet": "RGB",
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_deployed_models_tell_the_numbers_that_they_take(name: str, zoo: Path, zoo_index: dict[str, Any]) -> None:
    """Within 1 in 100 of the range; the order of the channels is known where a preset has one."""
    entry = zoo_index[name]
    p, right = guess(zoo / entry["file"]).preprocess, declared(entry)
    (got, channels), (want, _) = numbers(p), numbers(right)
    assert np.abs(np.subtract(got, want)).max() < 0.01 * (max(want) - min(want))
    assert channels == KNOWN[name]
