"""An explanation is plain data: it travels between processes, and holds no model."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc

MODELS = Path(__file__).parents[2] / "models"
PHOTO = MODELS / "images" / "star-and-heart.png"
METHODS = ["gradcam", "guided-gradcam", "saliency"]


def explain(method: str) -> ogc.Explanation:
    with ogc.Explainer(MODELS / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        return explainer.explain_image(PHOTO, target=ogc.TopK(2), method=method)


def arrays(value: Any, path: str = "") -> dict[str, np.ndarray]:
    """Every array in a result, by where it stands."""
    if isinstance(value, np.ndarray):
        return {path: value}
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, tuple | list):
        parts = ((str(k), part) for k, part in enumerate(value))
    elif hasattr(value, "__dataclass_fields__"):
        parts = ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        return {}
    return {name: array for key, part in parts for name, array in arrays(part, f"{path}.{key}").items()}


def check_equal(a: ogc.Explanation, b: ogc.Explanation) -> None:
    one, two = arrays(a), arrays(b)
    assert one.keys() == two.keys()
    assert len(one) > 8
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert a.account() == b.account()
    assert [a.record(row) for row in range(len(a))] == [b.record(row) for row in range(len(b))]
    np.testing.assert_array_equal(a.figure(row=1), b.figure(row=1))
    assert a.warnings == b.warnings


@pytest.mark.parametrize("method", METHODS)
def test_it_pickles_and_copies(method: str) -> None:
    explanation = explain(method)
    data = pickle.dumps(explanation)
    assert b"onnx_ir" not in data, "no model travels with it"
    check_equal(explanation, pickle.loads(data))
    check_equal(explanation, copy.deepcopy(explanation))


def test_a_process_pool_returns_it() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        check_equal(explain("gradcam"), pool.submit(explain, "gradcam").result(timeout=120))


def test_two_are_equal_only_if_they_are_the_same() -> None:
    explanation = explain("gradcam")
    twin = copy.deepcopy(explanation)
    assert explanation == explanation
    assert explanation != twin
    assert len({explanation, twin}) == 2


def test_it_shows_itself_in_one_line() -> None:
    assert repr(explain("gradcam")) == "<Explanation by gradcam of star (3), heart (5)>"


def test_both_sides_pickle(tmp_path: Path) -> None:
    sides = ogc.both(explain("gradcam"))
    again = pickle.loads(pickle.dumps(sides))
    for name, part in sides.parts.items():
        check_equal(part, again.parts[name])
    np.testing.assert_array_equal(sides.figure(), again.figure())


def test_what_it_is_made_of_is_named_in_its_provenance() -> None:
    explanation = explain("gradcam")
    of = explanation.provenance
    assert of.model == str(MODELS / "shapes-resnet.onnx")
    assert len(of.sha256) == 64
    assert of.layers == tuple(layer.name for layer in explanation.layers)
    assert of.providers == ("CPUExecutionProvider",)
    assert of.preprocess is not None
    assert of.preprocess.sources["mean"] == "declared: model metadata 'onnx_gradcam.preprocess'"
    assert of.preprocess.preprocess.mean == (0.5, 0.5, 0.5)
