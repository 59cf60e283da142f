"""Which preprocessing is taken: a preset, or one that is guessed from the shape of the input."""

from __future__ import annotations

import numpy as np
import pytest
from preprocessing import FREE, IMAGENET_MEAN, IMAGENET_STD, guesses, pick

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.photos.preprocess.choice import InputSpec, choose
from onnx_gradcam.photos.preprocess.evidence import Evidence
from onnx_gradcam.photos.tensor import to_tensor

# --- presets


@pytest.mark.parametrize(
    ("name", "value_of_black", "value_of_white", "channels"),
    [
        ("imagenet", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64], "RGB"),
        ("imagenet-caffe", [-103.939, -116.779, -123.68], [151.061, 138.221, 131.32], "BGR"),
        ("tf", [-1, -1, -1], [1, 1, 1], "RGB"),
        ("zero-one", [0, 0, 0], [1, 1, 1], "RGB"),
        ("raw", [0, 0, 0], [255, 255, 255], "RGB"),
        ("yolo", [0, 0, 0], [1, 1, 1], "RGB"),
        ("yolox", [0, 0, 0], [255, 255, 255], "BGR"),
    ],
)
def test_presets(name: str, value_of_black: list[float], value_of_white: list[float], channels: str) -> None:
    """The values that black and white get, as the frameworks give them."""
    choice = pick(name)
    p = choice.preprocess
    for pixel, values in ((0, value_of_black), (255, value_of_white)):
        assert [(pixel * p.scale - m) / s for m, s in zip(p.mean, p.std, strict=True)] == pytest.approx(
            values, abs=1e-6
        )
    assert (p.channels, p.layout, p.dtype, p.size) == (channels, "NCHW", "float32", (224, 224))
    resizes = {"imagenet": "crop", "imagenet-caffe": "crop", "yolo": "letterbox", "yolox": "letterbox-corner"}
    assert p.resize == resizes.get(name, "stretch")
    assert choice.warnings == ()
    assert choice.sources["mean"] == f"chosen: preset {name}"
    assert choice.sources["size"] == "declared: model input 'x'"


@pytest.mark.parametrize(
    ("size", "shorter"), [((224, 224), 256), ((299, 299), 342), ((64, 64), 73), ((240, 320), None)]
)
def test_imagenet_crop_is_in_proportion(size: tuple[int, int], shorter: int | None) -> None:
    """256/224 of the side; an oblong input is just filled."""
    p = pick("imagenet", InputSpec("x", (1, 3, *size), "float32")).preprocess
    assert (p.size, p.shorter) == (size, shorter)


def test_preset_on_other_inputs() -> None:
    nhwc = pick("imagenet", InputSpec("x", (1, 299, 331, 3), "float16")).preprocess
    assert (nhwc.size, nhwc.layout, nhwc.dtype) == ((299, 331), "NHWC", "float16")
    grey = pick("imagenet", InputSpec("x", (1, 1, 28, 28), "float32"))
    assert grey.preprocess.channels == "L"
    assert grey.preprocess.mean == pytest.approx((0.449,))  # the average
    assert grey.preprocess.std == pytest.approx((0.226,))
    assert grey.warnings == ()
    rgba = pick("zero-one", InputSpec("x", (1, 4, 28, 28), "float32"))
    assert (rgba.preprocess.channels, rgba.preprocess.mean, rgba.preprocess.std) == (
        "RGBA",
        (0.0,) * 4,
        (1.0,) * 4,
    )
    assert guesses(rgba) == {"channels"}
    dynamic = pick("tf", FREE)
    assert dynamic.preprocess.size == (224, 224)
    assert guesses(dynamic) == {"size"}


def test_unknown_preset() -> None:
    with pytest.raises(PreprocessError, match="unknown preprocessing 'imagnet'") as caught:
        pick("imagnet")
    assert "'imagenet'" in caught.value.hint
    assert "zero-one" in caught.value.hint


@pytest.mark.parametrize("preset", ["imagenet", "imagenet-caffe", "tf", "zero-one"])
def test_integers_cannot_hold_what_is_normalised(preset: str) -> None:
    with pytest.raises(PreprocessError, match="a uint8 input cannot hold") as caught:
        pick(preset, InputSpec("x", (1, 3, 8, 8), "uint8"))
    assert "raw" in caught.value.hint


# --- the input's own shape


@pytest.mark.parametrize(
    ("shape", "layout", "size", "channels", "guessed"),
    [
        ((1, 3, 224, 224), "NCHW", (224, 224), "RGB", set()),
        ((None, 224, 192, 3), "NHWC", (224, 192), "RGB", set()),
        ((1, 1, 28, 28), "NCHW", (28, 28), "L", {"channels declared"}),
        ((1, 28, 28, 1), "NHWC", (28, 28), "L", {"channels declared"}),
        ((1, 4, 32, 32), "NCHW", (32, 32), "RGBA", set()),
        ((1, 3, 64, 3), "NCHW", (64, 3), "RGB", set()),
        ((None, 3, None, None), "NCHW", (224, 224), "RGB", {"size"}),
        ((None, None, None, 3), "NHWC", (224, 224), "RGB", {"size"}),
        ((None, 3, 48, None), "NCHW", (48, None), "RGB", {"size"}),
        ((-1, 3, -1, 320), "NCHW", (None, 320), "RGB", {"size"}),
        ((None, None, None, None), "NCHW", (224, 224), "RGB", {"size", "layout"}),
        ((None, None, 96, 160), "NCHW", (96, 160), "RGB", {"layout"}),
        ((None, 96, 160, None), "NHWC", (96, 160), "RGB", {"layout"}),
    ],
)
def test_guess_from_shape(
    shape: tuple[int | None, ...], layout: str, size: tuple[int | None, ...], channels: str, guessed: set[str]
) -> None:
    choice = pick(spec=InputSpec("pixels", shape, "float32"))
    p = choice.preprocess
    assert (p.layout, p.size, p.channels) == (layout, size, channels)
    usual = {"resize", "shorter", "scale", "mean", "std", "channels", "interpolation"}
    assert guesses(choice) == (usual | guessed) - ({"channels", "channels declared"} if "L" in channels else set())
    (warning,) = choice.warnings
    assert "'pixels'" in warning
    assert "--preprocess NAME" in warning
    assert "FILE.json" in warning
    if channels == "RGB" and layout == "NHWC":
        assert (p.mean, p.std, p.scale) == ((1.0,) * 3, (1.0,) * 3, 1 / 127.5)
        assert "its input is NHWC, as TensorFlow's are" in choice.sources["mean"]
    elif channels == "RGB":
        assert (p.mean, p.std, p.scale) == (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)
    else:
        assert (set(p.mean), set(p.std), p.scale) == ({0.0}, {1.0}, 1 / 255)


@pytest.mark.parametrize(
    ("family", "sides", "resize", "size", "scale", "mean", "pad"),
    [
        ("detector", (416, 416), "letterbox", (416, 416), 1 / 255, 0.0, 114.0),
        ("detector", (None, None), "letterbox", None, 1 / 255, 0.0, 114.0),
        ("detector", (384, 1280), "letterbox", (384, 1280), 1 / 255, 0.0, 114.0),
        ("undecoded", (416, 416), "letterbox-corner", (416, 416), 1.0, 0.0, 114.0),
        ("map", (513, 513), "stretch", (513, 513), 1 / 255, 0.485, 114.0),
        ("map", (None, None), "stretch", None, 1 / 255, 0.485, 114.0),
        ("sequence", (48, 320), "stretch", (48, 320), 1 / 127.5, 1.0, 114.0),
        ("sequence", (None, None), "stretch", (48, None), 1 / 127.5, 1.0, 114.0),
        ("classes", (48, 192), "stretch", (48, 192), 1 / 255, 0.485, 114.0),
        ("classes", (32, None), "stretch", (32, None), 1 / 255, 0.485, 114.0),
        ("classes", (240, 320), "crop", (240, 320), 1 / 255, 0.485, 114.0),
        ("", (224, 224), "crop", (224, 224), 1 / 255, 0.485, 114.0),
    ],
)
def test_guess_from_what_the_model_gives(
    family: str,
    sides: tuple[int | None, ...],
    resize: str,
    size: tuple[int | None, ...] | None,
    scale: float,
    mean: float,
    pad: float,
) -> None:
    """The centre is cut out for classifiers alone, and not for strips: a line of text, a person."""
    choice = pick(spec=InputSpec("x", (1, 3, *sides), "float32"), family=family)
    p = choice.preprocess
    assert (p.resize, p.size, p.scale, p.mean[0], p.pad) == (resize, size, scale, mean, pad)
    if resize != "crop":
        assert p.shorter is None
        assert choice.sources["resize"].startswith("guessed: the whole photo, for a ")


@pytest.mark.parametrize(
    ("family", "photo", "stride", "drawn", "model"),
    [
        ("map", (300, 451), 32, (288, 448), (288, 448)),
        ("map", (300, 451), 8, (304, 448), (304, 448)),  # 37.5 and 56.4 eights
        ("map", (20, 3000), 32, (32, 1024), (32, 1024)),
        ("map", (3000, 2000), 32, (1024, 672), (1024, 672)),  # 1024 × 682.67
        ("detector", (300, 451), 32, (300, 451), (320, 480)),
        ("detector", (960, 1280), 64, (480, 640), (512, 640)),
        ("undecoded", (960, 1280), 32, (480, 640), (480, 640)),
    ],
)
def test_an_open_size_is_the_photos_own_in_multiples_of_the_stride(
    family: str, photo: tuple[int, int], stride: int, drawn: tuple[int, int], model: tuple[int, int]
) -> None:
    """Stretched to the nearest multiple, or padded to the next; a large photo is shrunk first."""
    spec = InputSpec("x", (1, 3, None, None), "float32")
    choice = choose("auto", spec, metadata={}, model_path=None, family=family, evidence=Evidence(stride=stride))
    assert choice.sources["size"] == "guessed: the size of the model input is dynamic: the photo's own"
    assert choice.sources["multiple"].startswith("guessed: the photo's own size, in multiples of the stride")
    tensor, geometry = to_tensor(np.zeros((*photo, 3), np.uint8), choice.preprocess)
    assert tensor.shape == (1, 3, *model)
    assert geometry.scale == tuple(n / m for n, m in zip(drawn, photo, strict=True))


def test_a_size_that_is_set_has_no_multiples() -> None:
    """Of the user, or of the model; and a centre that is cut out has the usual size."""
    open_sides = InputSpec("x", (1, 3, None, None), "float32")
    for request, spec, size in [
        ("yolo,320x640", open_sides, (320, 640)),
        ("auto", InputSpec("x", (1, 3, 96, 96), "float32"), (96, 96)),
        ("imagenet", open_sides, (512, 512)),
    ]:
        p = pick(request, spec=spec, family="map").preprocess
        assert (p.size, p.longest, p.multiple) == (size, None, 1)
    assert pick("raw,stretch,longest=500,multiple=10", spec=open_sides, family="map").preprocess.longest == 500


@pytest.mark.parametrize(("family", "resize"), [("detector", "letterbox"), ("map", "stretch"), ("classes", "stretch")])
def test_guess_for_integers_keeps_the_whole_photo(family: str, resize: str) -> None:
    p = pick(spec=InputSpec("x", (1, 3, 64, 64), "uint8"), family=family).preprocess
    assert (p.resize, p.scale) == (resize, 1.0)


@pytest.mark.parametrize(("dtype", "black"), [("uint8", 0.0), ("int8", -128.0), ("int32", 0.0), ("int64", 0.0)])
def test_guess_for_integers_is_raw(dtype: str, black: float) -> None:
    p = pick(spec=InputSpec("x", (1, 224, 224, 3), dtype)).preprocess
    assert (p.scale, p.std, p.dtype, p.resize) == (1.0, (1.0,) * 3, dtype, "stretch")
    assert -p.mean[0] == black


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1000), "float32"),
        ((1, 3, 224), "float32"),
        ((1, 7, 224, 224), "float32"),
        ((1, 224, 224, 2), "float32"),
        ((1, 1, 64, 64, 64), "float32"),
        ((), "float32"),
        ((1, 3, 224, 224), "bool"),
        ((1, 3, 224, 224), "str"),
        ((1, 3, 224, 224), "bfloat16"),
    ],
)
@pytest.mark.parametrize("request_", ["auto", "imagenet"])
def test_inputs_that_are_no_images(shape: tuple[int | None, ...], dtype: str, request_: str) -> None:
    with pytest.raises(InputError, match="'state'") as caught:
        pick(request_, InputSpec("state", shape, dtype))
    assert ".npy" in caught.value.hint
