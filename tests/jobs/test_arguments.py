"""Texts of ``--option`` become numbers, words, and one number for each axis."""

from __future__ import annotations

import pytest

from onnx_gradcam.errors import MethodError
from onnx_gradcam.jobs.arguments import read_options
from onnx_gradcam.methods.table import options_for_json, recipe_of


def test_one_number_for_each_axis() -> None:
    options = read_options(["window=32,16", "stride=8", "baseline=blur"])
    assert options == {"window": (32, 16), "stride": 8, "baseline": "blur"}
    recipe = recipe_of("occlusion", options=options)
    assert options_for_json(recipe) == {"window": [32, 16], "stride": 8, "baseline": "blur"}


def test_other_options_are_one_number() -> None:
    assert read_options(["samples=1,2", "noise=0.5"]) == {"samples": "1,2", "noise": 0.5}
    with pytest.raises(MethodError, match="option 'samples' is '1,2'"):
        recipe_of("rise", options=read_options(["samples=1,2"]))
