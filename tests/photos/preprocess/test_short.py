"""The short form: a preset and what differs from it, in one word of the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preprocessing import FLOAT, FREE, guesses, pick

from onnx_gradcam.errors import PreprocessError
from onnx_gradcam.photos.preprocess.choice import PRESETS, InputSpec

GREY = InputSpec("x", (1, 1, 28, 28), "float32")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("raw,BGR,letterbox", {"preset": "raw", "channels": "BGR", "resize": "letterbox"}),
        ("imagenet,stretch", {"preset": "imagenet", "resize": "stretch"}),
        ("imagenet,bgr", {"preset": "imagenet", "channels": "BGR"}),
        ("yolo, pad=0", {"preset": "yolo", "pad": 0}),
        ("tf,cubic,NCHW", {"preset": "tf", "interpolation": "cubic", "layout": "NCHW"}),
        ("letterbox-corner,raw", {"preset": "raw", "resize": "letterbox-corner"}),
        (
            "raw,mean=103.53:116.28:123.675,std=58.4,scale=1/2",
            {"preset": "raw", "mean": [103.53, 116.28, 123.675], "std": 58.4, "scale": 0.5},
        ),
        ("imagenet,shorter=300", {"preset": "imagenet", "shorter": 300}),
    ],
)
def test_it_is_the_json_form_in_short(text: str, form: dict[str, Any]) -> None:
    assert pick(text).preprocess == pick(form).preprocess


@pytest.mark.parametrize(
    ("text", "size"),
    [("tf,320", (320, 320)), ("tf,240x320", (240, 320)), ("tf,48xfree", (48, None)), ("tf,freeX96", (None, 96))],
)
def test_sizes(text: str, size: tuple[int | None, ...]) -> None:
    choice = pick(text, FREE)
    assert choice.preprocess == replace(PRESETS["tf"], size=size)
    assert choice.sources["size"] == f"chosen: {text!r}"
    assert choice.warnings == ()


def test_sources_say_what_was_written_and_what_the_preset_says() -> None:
    choice = pick("raw,BGR,letterbox")
    declared = "chosen: 'raw,BGR,letterbox'"
    assert choice.sources["channels"] == choice.sources["resize"] == choice.sources["shorter"] == declared
    assert choice.sources["scale"] == choice.sources["mean"] == "chosen: preset raw"
    assert guesses(choice) == set()


def test_without_a_preset_the_rest_is_what_the_model_declares_or_a_guess() -> None:
    choice = pick("BGR,stretch")
    assert (choice.preprocess.channels, choice.preprocess.resize, choice.preprocess.shorter) == ("BGR", "stretch", None)
    assert guesses(choice) == {"scale", "mean", "std", "interpolation"}
    own = {"onnx_gradcam.preprocess": json.dumps({"preset": "tf", "size": 224})}
    of_model = pick("auto,BGR", metadata=own)
    assert of_model.preprocess == replace(PRESETS["tf"], channels="BGR")
    assert of_model.warnings == ()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("raw,letterbx", "unknown word 'letterbx' in 'raw,letterbx'", "'letterbox'"),
        ("raw,imagenet", "says preset twice: 'imagenet'", "raw,BGR,letterbox"),
        ("raw,mean=a", "wrong value 'a' for 'mean'", "colons"),
        ("raw,std=0", "wrong value '0' for 'std'", "std=0.5"),
        ("raw,scale=1/0", "wrong value '1/0' for 'scale'", "1/255"),
        ("raw,window=40:0", "wrong value '40:0' for 'window'", "window=40:400"),
        ("raw,pad=1:2", "wrong value '1:2' for 'pad'", "pad="),
        ("raw,gamma=2", "unknown word 'gamma=2'", "scale, mean, std, pad, shorter"),
        ("raw,0x48", "unknown word '0x48'", "48xfree"),
        ("raw,freexfree", "unknown word 'freexfree'", "48xfree"),
        ("raw,", "unknown word ''", "letterbox"),
        ("rawr", "unknown preprocessing 'rawr'", "raw,BGR,letterbox"),
        ("raw,320", r"size \[320, 320\] .* does not fit", "size"),
        ("raw,RGBA", "channels RGBA .* does not fit", "channels"),
    ],
)
def test_wrong_short_forms(text: str, what: str, hint: str) -> None:
    with pytest.raises(PreprocessError, match=what) as caught:
        pick(text, FLOAT)
    assert hint in caught.value.hint


def test_a_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "raw,BGR.json"
    path.write_text('{"preset": "tf"}', "utf-8")
    assert pick(str(path)).preprocess.scale == 1 / 127.5


def test_grey() -> None:
    assert pick("raw,L", GREY).preprocess.mean == (0.0,)
