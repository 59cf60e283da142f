from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.photos.preprocess.choice import PRESETS, Choice, InputSpec, Preprocess, choose, labels_from

FLOAT = InputSpec("x", (None, 3, 224, 224), "float32")
FREE = InputSpec("x", (None, 3, None, None), "float32")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pick(
    request: Any = "auto",
    spec: InputSpec = FLOAT,
    metadata: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Choice:
    choice = choose(request, spec, metadata=metadata or {}, model_path=path)
    assert set(choice.sources) == {f.name for f in fields(Preprocess)}
    assert all(s.startswith(("declared: ", "guessed: ")) for s in choice.sources.values())
    guessed = guesses(choice)
    assert bool(guessed) == any("is guessed" in w and "--preprocess" in w for w in choice.warnings)
    assert all(f"{name} " in " ".join(choice.warnings) for name in guessed)
    return choice


def guesses(choice: Choice) -> set[str]:
    return {name for name, source in choice.sources.items() if source.startswith("guessed")}


# --- presets


@pytest.mark.parametrize(
    ("name", "value_of_black", "value_of_white", "channels"),
    [
        ("imagenet", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64], "RGB"),
        ("imagenet-caffe", [-103.939, -116.779, -123.68], [151.061, 138.221, 131.32], "BGR"),
        ("tf", [-1, -1, -1], [1, 1, 1], "RGB"),
        ("zero-one", [0, 0, 0], [1, 1, 1], "RGB"),
        ("raw", [0, 0, 0], [255, 255, 255], "RGB"),
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
    assert p.resize == ("crop" if "imagenet" in name else "stretch")
    assert choice.warnings == ()
    assert choice.sources["mean"] == f"declared: preset {name}"
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
        ((None, 3, 48, None), "NCHW", (48, 48), "RGB", {"size"}),
        ((-1, 3, -1, 320), "NCHW", (320, 320), "RGB", {"size"}),
        ((None, None, None, None), "NCHW", (224, 224), "RGB", {"size", "layout"}),
        ((None, None, 96, 160), "NCHW", (96, 160), "RGB", {"layout"}),
        ((None, 96, 160, None), "NHWC", (96, 160), "RGB", {"layout"}),
    ],
)
def test_guess_from_shape(
    shape: tuple[int | None, ...], layout: str, size: tuple[int, int], channels: str, guessed: set[str]
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
    if channels == "RGB":
        assert (p.mean, p.std, p.scale) == (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)
    else:
        assert (set(p.mean), set(p.std), p.scale) == ({0.0}, {1.0}, 1 / 255)


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


# --- the JSON form


FORM = {"resize": "letterbox", "scale": 1, "mean": [1, 2, 3], "std": 2, "channels": "BGR"}


def test_json_form(tmp_path: Path) -> None:
    path = tmp_path / "prep.json"
    path.write_text(json.dumps(FORM), "utf-8")
    for request in (path, str(path), FORM):
        choice = pick(request)
        assert choice.preprocess == Preprocess(
            (224, 224),
            "letterbox",
            None,
            1.0,
            (1.0, 2.0, 3.0),
            (2.0,) * 3,
            "BGR",
            "NCHW",
            "float32",
            114.0,
            "linear",
        )
        where = str(path) if request is not FORM else "the preprocess argument"
        assert choice.sources["mean"] == f"declared: {where}"
        assert choice.sources["pad"] == f"declared: default of {where}"
        assert choice.warnings == ()


def test_json_form_may_start_from_a_preset() -> None:
    p = pick({"preset": "imagenet", "size": 320, "interpolation": "cubic"}, FREE).preprocess
    assert p == replace(PRESETS["imagenet"], size=(320, 320), shorter=366, interpolation="cubic")
    p = pick({"preset": "imagenet", "size": [320, 320], "shorter": 320}, FREE).preprocess
    assert p.shorter == 320
    p = pick({"preset": "zero-one", "channels": "BGR", "size": None}, FREE).preprocess
    assert (p.channels, p.scale, p.size) == ("BGR", 1 / 255, None)


@pytest.mark.parametrize("name", PRESETS)
def test_json_form_round_trips(name: str) -> None:
    """The manifest and the demo models carry ``asdict`` of a Preprocess."""
    first = pick(name, InputSpec("x", (1, 3, 320, 320), "float16")).preprocess
    again = InputSpec("x", (1, 3, None, None), "float16")
    assert pick(first, again).preprocess == first
    assert pick(json.loads(json.dumps(asdict(first))), again).preprocess == first
    metadata = {"onnx_gradcam.preprocess": json.dumps(asdict(first))}
    assert pick("auto", again, metadata).preprocess == first


@pytest.mark.parametrize(
    ("change", "what", "hint"),
    [
        ({"men": 1}, "unknown key 'men'", "'mean'"),
        ({"resize": "fit"}, "wrong value 'fit' for 'resize'", "crop, stretch, letterbox"),
        ({"scale": 0}, "wrong value 0 for 'scale'", "above 0"),
        ({"scale": "1/255"}, "wrong value '1/255' for 'scale'", "number"),
        ({"scale": True}, "wrong value True for 'scale'", "number"),
        ({"mean": [1, "a"]}, r"wrong value \[1, 'a'\] for 'mean'", "each channel"),
        ({"mean": []}, r"wrong value \[\] for 'mean'", "each channel"),
        ({"std": [1, 0, 1]}, r"wrong value \[1, 0, 1\] for 'std'", "above 0"),
        ({"channels": "GBR"}, "wrong value 'GBR' for 'channels'", "RGB, BGR"),
        ({"channels": ["R"]}, "for 'channels'", "RGB, BGR"),
        ({"layout": "CHW"}, "wrong value 'CHW' for 'layout'", "NCHW, NHWC"),
        ({"dtype": "float23"}, "wrong value 'float23' for 'dtype'", "float32"),
        ({"size": [224]}, r"wrong value \[224\] for 'size'", r"[H, W]"),
        ({"size": [0, 5]}, "for 'size'", "null"),
        ({"shorter": 256.5}, "wrong value 256.5 for 'shorter'", "whole number"),
        ({"pad": float("nan")}, "for 'pad'", "0..255"),
        ({"interpolation": "bilinear"}, "wrong value 'bilinear' for 'interpolation'", "linear, cubic"),
        ({"preset": "image"}, "wrong value 'image' for 'preset'", "imagenet"),
        (
            {"size": [256, 256]},
            r"size \[256, 256\] .* does not fit model input 'x' \(\?, 3, 224, 224\)",
            "size",
        ),
        ({"layout": "NHWC"}, "layout NHWC .* does not fit", "layout"),
        ({"dtype": "float16"}, "dtype float16 .* does not fit", "dtype"),
        ({"channels": "L"}, "channels L .* does not fit", "channels"),
        ({"mean": [1, 2]}, r"mean \[1.0, 2.0\] .* does not fit", "mean"),
    ],
)
def test_wrong_forms(tmp_path: Path, change: dict[str, Any], what: str, hint: str) -> None:
    path = tmp_path / "prep.json"
    path.write_text(json.dumps({**FORM, **change}), "utf-8")
    with pytest.raises(PreprocessError, match=what) as caught:
        pick(path)
    assert "prep.json" in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "has no resize, scale, mean, std, channels"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "prep.json"
    path.write_text(text, "utf-8")
    with pytest.raises(PreprocessError, match=what) as caught:
        pick(str(path))
    assert "prep.json" in str(caught.value)
    with pytest.raises(PreprocessError, match="cannot read"):
        pick(str(tmp_path / "gone.json"))


# --- Hugging Face


RESNET = {  # ConvNextImageProcessor, as microsoft/resnet-50 has it
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 3,
    "size": 224,
}
MOBILENET = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
EFFICIENTNET = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": False,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": [0.47853944, 0.4732864, 0.47434163],
    "include_top": True,
    "resample": 0,
    "rescale_factor": 0.00392156862745098,
    "rescale_offset": False,
    "size": {"height": 300, "width": 300},
}
BGR = {**MOBILENET, "do_flip_channel_order": True, "do_normalize": False, "resample": 5}
DEIT = {**MOBILENET, "size": {"height": 256, "width": 256}}
VIT = {"size": 224, "image_mean": 0.5, "image_std": 0.5, "resample": 2}
LARGE = {**RESNET, "size": {"shortest_edge": 384}}
ALIGN = {
    **EFFICIENTNET,
    "do_normalize": False,
    "do_center_crop": True,
    "include_top": False,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "size": {"height": 346, "width": 346},
}


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (RESNET, 224, {"resize": "crop", "shorter": 256, "interpolation": "cubic", "mean": IMAGENET_MEAN}),
        (LARGE, 384, {"resize": "stretch", "shorter": None, "std": IMAGENET_STD}),
        (
            MOBILENET,
            224,
            {"resize": "crop", "shorter": 256, "interpolation": "linear", "mean": (0.5,) * 3, "pad": 0.0},
        ),
        (EFFICIENTNET, 300, {"resize": "stretch", "shorter": None, "interpolation": "nearest"}),
        (
            EFFICIENTNET,
            300,
            {"std": pytest.approx((0.229, 0.224, 0.225), abs=1e-7)},
        ),  # divided by twice; 7 digits in the file
        (
            BGR,
            224,
            {"channels": "BGR", "mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": pytest.approx(1 / 255)},
        ),
        (DEIT, 224, {"resize": "stretch", "shorter": 256}),
        (VIT, 224, {"resize": "stretch", "shorter": None, "mean": (0.5,) * 3, "scale": 1 / 255}),
        (ALIGN, 289, {"resize": "stretch", "shorter": 346, "mean": (1.0,) * 3, "std": (1.0,) * 3}),
        ({**ALIGN, "do_normalize": True, "image_mean": 0.5}, 289, {"mean": (1.5,) * 3}),  # (v − 1 − ½) / std
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_hugging_face(
    tmp_path: Path, config: dict[str, Any], size: int, expected: dict[str, Any], dynamic: bool
) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(config), "utf-8")
    spec = FREE if dynamic else InputSpec("x", (None, 3, size, size), "float32")
    choice = pick("auto", spec, path=tmp_path / "model.onnx")
    assert choice.preprocess.size == (size, size)
    assert {k: getattr(choice.preprocess, k) for k in expected} == expected
    assert choice.sources["mean"] == f"declared: {file}"
    assert guesses(choice) == ({"interpolation"} if config is BGR else set())


def test_hugging_face_gives_way_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**MOBILENET, "do_pad": True}), "utf-8")
    choice = pick("auto", InputSpec("x", (1, 3, 112, 112), "float32"), path=tmp_path / "m.onnx")
    assert (choice.preprocess.size, choice.preprocess.shorter) == ((112, 112), 128)
    assert any("[224, 224]" in w and "is replaced by that of model input" in w for w in choice.warnings)
    assert any("do_pad" in w and "not applied" in w for w in choice.warnings)


def test_hugging_face_files_of_other_kinds(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"feature_size": 80, "sampling_rate": 16000, "do_normalize": True}), "utf-8")
    assert "resize" in guesses(pick("auto", path=tmp_path / "m.onnx"))  # of an audio model
    file.write_text(json.dumps({**MOBILENET, "size": {"width": 3}}), "utf-8")
    with pytest.raises(PreprocessError, match=r"cannot use .*preprocessor_config\.json") as caught:
        pick("auto", path=tmp_path / "m.onnx")
    assert "--preprocess NAME" in caught.value.hint
    file.write_text("{", "utf-8")
    with pytest.raises(PreprocessError, match="is not JSON"):
        pick("auto", path=tmp_path / "m.onnx")
    assert pick("imagenet", path=tmp_path / "m.onnx").preprocess == PRESETS["imagenet"]
    file.write_text(json.dumps({"size": {"shortest_edge": 800, "longest_edge": 1333}}), "utf-8")
    assert "resize" in guesses(pick("auto", path=tmp_path / "m.onnx"))


# --- metadata


YOLO = {"stride": "32", "names": "{0: 'person', 1: 'bicycle'}", "task": "detect", "imgsz": "[640, 480]"}


def test_ultralytics() -> None:
    detect = pick("auto", FREE, YOLO)
    assert detect.preprocess == Preprocess(
        (640, 480),
        "letterbox",
        None,
        1 / 255,
        (0.0,) * 3,
        (1.0,) * 3,
        "RGB",
        "NCHW",
        "float32",
        114.0,
        "linear-aliased",
    )
    assert detect.warnings == ()
    assert "imgsz" in detect.sources["size"]
    classify = pick("auto", FLOAT, {**YOLO, "task": "classify", "imgsz": "[224, 224]"}).preprocess
    assert (classify.resize, classify.shorter, classify.interpolation) == ("crop", None, "linear")
    old = pick("auto", FLOAT, {k: YOLO[k] for k in ("stride", "names")})
    assert old.preprocess.resize == "letterbox"
    assert guesses(old) == {"resize", "shorter", "interpolation"}


@pytest.mark.parametrize(
    ("given", "black", "white"),
    [
        ("NominalRange_0_255", 0, 255),
        ("Normalized_0_1", 0, 1),
        ("normalized_1_1", -1, 1),
        ("NominalRange_16_235", 16, 235),
    ],
)
def test_winml(given: str, black: float, white: float) -> None:
    choice = pick("auto", FLOAT, {"Image.BitmapPixelFormat": "Bgr8", "IMAGE.NominalPixelRange": given})
    p = choice.preprocess
    assert [(v * p.scale - p.mean[0]) / p.std[0] for v in (0, 255)] == pytest.approx([black, white])
    assert p.channels == "BGR"
    assert guesses(choice) == {"resize", "shorter", "interpolation"}


def test_winml_leaves_out() -> None:
    choice = pick("auto", FLOAT, {"Image.BitmapPixelFormat": "Rgb8", "Image.ColorSpaceGamma": "Linear"})
    assert (choice.preprocess.scale, choice.preprocess.mean) == (1.0, (0.0,) * 3)
    assert {"scale", "mean", "std"} < guesses(choice)
    assert any("Linear is not applied" in w for w in choice.warnings)
    grey = pick("auto", InputSpec("x", (1, 1, 8, 8), "float32"), {"Image.BitmapPixelFormat": "Gray8"})
    assert grey.preprocess.channels == "L"
    assert "channels" not in guesses(grey)


def test_order_of_the_sources(tmp_path: Path) -> None:
    """Our own key, then Hugging Face, Ultralytics, WinML, the guess."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(MOBILENET), "utf-8")
    winml = {"Image.BitmapPixelFormat": "Bgr8"}
    own = {"onnx_gradcam.preprocess": json.dumps({"preset": "tf"})}
    beside, alone = tmp_path / "m.onnx", tmp_path / "sub" / "m.onnx"
    for metadata, path, scale, source in (
        ({**winml, **YOLO, **own}, beside, 1 / 127.5, "onnx_gradcam.preprocess"),
        ({**winml, **YOLO}, beside, MOBILENET["rescale_factor"], "preprocessor_config.json"),
        ({**winml, **YOLO}, alone, 1 / 255, "Ultralytics"),
        (winml, None, 1.0, "WinML"),
        ({"author": "someone"}, None, 1 / 255, "preset imagenet"),
    ):
        choice = pick("auto", FLOAT, metadata, path)
        assert choice.preprocess.scale == scale
        assert source in choice.sources["scale"]


def test_own_metadata_that_is_wrong() -> None:
    with pytest.raises(PreprocessError, match=r"model metadata 'onnx_gradcam\.preprocess' has no"):
        pick("auto", FLOAT, {"onnx_gradcam.preprocess": "{}"})


def test_labels() -> None:
    assert labels_from({"onnx_gradcam.labels": '["cat", "dog"]', **YOLO}) == ("cat", "dog")
    assert labels_from(YOLO) == ("person", "bicycle")
    assert labels_from({"names": "['a', 'b']"}) == ("a", "b")
    assert labels_from({"names": "{0: 'a', 3: 'd'}"}) == ("a", "1", "2", "d")
    for other in (
        {},
        {"names": "tensor names"},
        {"names": "{'a': 1}"},
        {"names": "{}"},
        {"names": "{-1: 'a'}"},
    ):
        assert labels_from(other) is None
    for wrong in ("{", '{"0": "a"}', "[1, 2]"):
        with pytest.raises(PreprocessError, match=r"onnx_gradcam\.labels"):
            labels_from({"onnx_gradcam.labels": wrong})
