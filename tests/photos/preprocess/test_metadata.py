"""Preprocessing that a model brings along: Hugging Face, Ultralytics, WinML, our own key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preprocessing import FLOAT, FREE, IMAGENET_MEAN, IMAGENET_STD, guesses, pick

from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.photos.preprocess.choice import PRESETS, InputSpec, Preprocess, labels_from

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
    said = {"scale": {"rescale_factor", "do_rescale"}, "channels": {"do_flip_channel_order"}, "pad": set()}
    for field, keys in said.items():  # what the file does not say is no declaration of it
        assert choice.sources[field].startswith("declared" if keys & config.keys() else "default"), field
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
