"""What does not depend on the image is settled once for a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, brightness_model

import onnx_gradcam as ogc
from onnx_gradcam.explain import preprocessing
from onnx_gradcam.jobs import arguments, checks, plan
from onnx_gradcam.jobs.explain import run
from onnx_gradcam.jobs.request import Request

FORM = {**PREPROCESS, "resize": "stretch"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(brightness_model(), "model.onnx")
    Path("form.json").write_text(json.dumps(FORM))
    Path("photos").mkdir()
    for k in range(3):
        photo = np.full((120, 160, 3), 30, np.uint8)
        photo[50:70, 20 + 40 * k : 40 + 40 * k] = 255
        cv2.imwrite(f"photos/{k}.png", photo)
    np.save("baseline.npy", np.zeros((1, 3, 96, 112), np.float32))
    return tmp_path


def test_three_images_ask_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def call(*given: Any, **keywords: Any) -> Any:
            calls[name] += 1
            return original(*given, **keywords)

        monkeypatch.setattr(module, name, call)

    for module, name in [
        (preprocessing, "choose"),
        (arguments, "load_tensor"),
        (plan, "parse"),
        (checks, "read_options"),
    ]:
        counted(module, name)
    request = Request(
        "model.onnx",
        ("photos",),
        method="integrated-gradients",
        preprocess="form.json",
        targets=("0",),
        options=("baseline=baseline.npy", "steps=2"),
    )
    manifest = json.loads(run(request, folder / "out").manifest.read_text("utf-8"))
    assert len(manifest["results"]) == 3
    assert calls == {"choose": 1, "load_tensor": 1, "parse": 1, "read_options": 1}
    with ogc.Explainer("model.onnx") as one:
        for entry in manifest["results"]:
            expected = one.explain_image(
                entry["image"], 0, "integrated-gradients", preprocess=FORM, baseline=np.load("baseline.npy"), steps=2
            )
            np.testing.assert_array_equal(np.load(folder / "out" / entry["rows"][0]["npy"]), expected.heatmap[0])


def test_a_settled_choice_is_taken_as_it_is(folder: Path) -> None:
    with ogc.Explainer("model.onnx") as one:
        choice = one.preprocessing(FORM)
        first, second = (one.explain_image("photos/0.png", preprocess=each) for each in (FORM, choice))
    np.testing.assert_array_equal(first.heatmap, second.heatmap)
    assert first.warnings == second.warnings


def test_arrays_are_explained_where_photos_cannot_be(folder: Path) -> None:
    """Of a model that takes five channels no photo can be explained, and each of them is named."""
    model = brightness_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    weight = np.full((1, 5, 16, 16), 1 / 1280, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, "five.onnx")
    np.save("x.npy", np.ones((1, 5, 96, 112), np.float32))
    outcome = run(Request("five.onnx", ("x.npy", "photos")), folder / "out")
    assert [Path(name).name for name, _ in outcome.errors] == ["0.png", "1.png", "2.png"]
    assert all("does not fit input" in error.what for _, error in outcome.errors)
    assert len(json.loads(outcome.manifest.read_text("utf-8"))["results"]) == 1
    with pytest.raises(ogc.InputError, match="does not fit input"):
        run(Request("five.onnx", ("photos/0.png",)), folder / "other")
