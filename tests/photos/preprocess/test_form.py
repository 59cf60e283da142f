"""Preprocessing as JSON: read, completed from presets, refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from preprocessing import FREE, pick

from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.photos.preprocess.choice import PRESETS, InputSpec, Preprocess

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
