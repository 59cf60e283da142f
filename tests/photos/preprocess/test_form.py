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
        assert choice.sources["mean"] == f"{'declared' if where.endswith('.json') else 'chosen'}: {where}"
        assert choice.sources["pad"] == f"default: not in {where}"
        assert choice.warnings == ()


def test_json_form_may_start_from_a_preset() -> None:
    p = pick({"preset": "imagenet", "size": 320, "interpolation": "cubic"}, FREE).preprocess
    assert p == replace(PRESETS["imagenet"], size=(320, 320), shorter=366, interpolation="cubic")
    p = pick({"preset": "imagenet", "size": [320, 320], "shorter": 320}, FREE).preprocess
    assert p.shorter == 320
    p = pick({"preset": "zero-one", "channels": "BGR", "size": None}, FREE).preprocess
    assert (p.channels, p.scale, p.size) == ("BGR", 1 / 255, None)


def test_another_way_to_resize_drops_the_cut_of_the_preset() -> None:
    """Whoever stretches wants the whole photo; whoever says nothing of it keeps the preset's cut."""
    stretched = pick({"preset": "imagenet", "resize": "stretch"})
    assert (stretched.preprocess.resize, stretched.preprocess.shorter) == ("stretch", None)
    assert pick({"preset": "imagenet", "resize": "crop"}).preprocess.shorter == 256
    assert pick({"preset": "imagenet", "resize": "stretch", "shorter": 256}).preprocess.shorter == 256
    assert pick({"preset": "imagenet", "channels": "BGR"}).preprocess.shorter == 256


@pytest.mark.parametrize(("channels", "count"), [("L", 1), ("RGBA", 4), ("BGRA", 4)])
def test_values_that_nobody_wrote_fit_themselves_to_the_channels(channels: str, count: int) -> None:
    for spec in (InputSpec("x", (1, count, 28, 28), "float32"), InputSpec("x", (1, None, 28, 28), "float32")):
        p = pick({"preset": "raw", "channels": channels}, spec).preprocess
        assert (p.channels, p.mean, p.std) == (channels, (0.0,) * count, (1.0,) * count)
    grey = pick({"preset": "imagenet", "channels": "L"}, InputSpec("x", (1, 1, 28, 28), "float32")).preprocess
    assert grey.mean == pytest.approx((0.449,))
    with pytest.raises(PreprocessError, match="mean"):
        pick({"preset": "raw", "channels": channels, "mean": [1, 2]}, InputSpec("x", (1, count, 28, 28), "float32"))


def test_a_preset_with_changes_fits_itself_to_the_input() -> None:
    """What the form does not say is the preset's, and is adapted as the preset alone is."""
    grey = pick({"preset": "imagenet", "interpolation": "cubic"}, InputSpec("x", (1, 1, 28, 28), "float32")).preprocess
    assert (grey.channels, grey.mean, grey.shorter) == ("L", pytest.approx((0.449,)), 32)


@pytest.mark.parametrize(
    ("form", "size"), [({"size": [48, None]}, (48, None)), ({"size": [None, 96]}, (None, 96)), ({"size": None}, None)]
)
def test_a_side_in_proportion(form: dict[str, Any], size: tuple[int | None, ...] | None) -> None:
    assert pick({"preset": "tf", **form}, FREE).preprocess.size == size
    with pytest.raises(PreprocessError, match="wrong value"):
        pick({"preset": "tf", "size": [None, None]}, FREE)


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
