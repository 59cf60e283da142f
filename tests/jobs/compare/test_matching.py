"""Rows of two models that are about the same: boxes, views, and outputs that are no classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from lights import BLUE, RED, SCENE, lights, scene
from nets import Net
from repository import DOCS

import onnx_gradcam as ogc

SCHEMA = json.loads((DOCS / "comparison.schema.json").read_text("utf-8"))
VIEWS, SIDE = 3, 6


def saved(folder: Path, *arrays: np.ndarray) -> list[Path]:
    paths = [folder / f"{k}.npy" for k in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths


def dimmed(factor: float) -> onnx.ModelProto:
    """The detector of lights, which sees them weaker: the boxes of B, in another order of probability."""
    model = lights()
    blue = next(w for w in model.graph.initializer if w.dims == [2, 3, 1, 1] and onnx.numpy_helper.to_array(w).any())
    array = onnx.numpy_helper.to_array(blue).copy()
    array[0] *= factor
    blue.CopyFrom(onnx.numpy_helper.from_array(array, blue.name))
    return model


def test_every_box_of_a_is_compared_with_that_of_b_in_the_same_place(tmp_path: Path) -> None:
    """B finds red lights less probable than blue ones: in its own order the pairs would be of different objects."""
    found = ogc.compare(lights(), dimmed(0.75), saved(tmp_path, SCENE), target="boxes", method="hirescam")
    assert [pair.label for pair in found.pairs] == [
        "class 0, box 9",
        "class 0, box 34",
        "class 0, box 10",
        "class 1, box 38",
    ]
    for pair in found.pairs:
        assert pair.pearson == pytest.approx(1, abs=1e-5)
        assert pair.distance == 0
        assert pair.note == ""
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found.as_dict(), allow_nan=False)))


def test_images_with_different_numbers_of_boxes(tmp_path: Path) -> None:
    both = np.concatenate([SCENE, scene((2, 3, BLUE, 0.9)), scene((0, 0, RED, 1.0), (5, 7, RED, 0.9))])
    found = ogc.compare(lights(), lights(), saved(tmp_path, both), target=ogc.Boxes(), method="hirescam")
    assert [pair.image_index for pair in found.pairs] == [0, 0, 0, 0, 1, 2, 2]
    assert all(pair.pearson == pytest.approx(1) for pair in found.pairs)


def test_boxes_among_other_targets(tmp_path: Path) -> None:
    with pytest.raises(ogc.TargetError, match="together with other targets"):
        ogc.compare(lights(), lights(), saved(tmp_path, SCENE), target=["boxes", "0"])


def several_views(seed: int) -> onnx.ModelProto:
    """(N, V, 3, H, W): a convolution of each view, its mean, the largest of all views, a linear layer."""
    net = Net(seed=seed)
    flat = net.op("Reshape", net.input("x", ["N", VIEWS, 3, SIDE, SIDE]), net.ints(-1, 3, SIDE, SIDE))
    relu = net.op("Relu", net.conv(flat, (3, 4)), out="relu")
    features = net.op("Reshape", net.op("GlobalAveragePool", relu), net.ints(-1, VIEWS, 4))
    net.linear(net.op("ReduceMax", features, net.ints(1), keepdims=0), 4, 5, out="logits")
    return net.model({"logits": ["N", 5]})


def test_views_are_compared_one_by_one(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    a, b = several_views(0), several_views(1)
    found = ogc.compare(a, b, saved(tmp_path, x), target=["logprob:1", "logprob:4"], signed=True)
    places = [(pair.image_index, pair.target, pair.view_index) for pair in found.pairs]
    assert places == [(i, f"logprob:{c}", v) for i in range(2) for c in (1, 4) for v in range(VIEWS)]
    with ogc.Explainer(a) as first, ogc.Explainer(b) as second:
        maps = [{c: e.explain(x, ogc.LogProbability(c), signed=True).heatmap for c in (1, 4)} for e in (first, second)]
    for pair in found.pairs:
        row = pair.image_index * VIEWS + pair.view_index
        one, other = (of[int(pair.target.split(":")[1])][row] for of in maps)
        if pair.pearson is not None and not pair.note:
            assert pair.pearson == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1], abs=1e-6)
    assert any(pair.pearson is not None for pair in found.pairs)


def test_outputs_that_are_no_classes_have_no_agreement(tmp_path: Path, rng: np.random.Generator) -> None:
    """Four numbers behind a ReLU: a target of another form is compared, and no top-1 is counted."""
    model = numbers()
    x = rng.random((2, 3, SIDE, SIDE)).astype(np.float32)
    found = ogc.compare(model, model, saved(tmp_path, x), target=ogc.Output(2), require=["agreement>=0.9"])
    assert [(pair.top1_a, pair.top1_b) for pair in found.pairs] == [(-1, -1)] * 2
    assert found.agreement is None
    assert not found.ok
    assert "no classes" in str(found)
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    with pytest.raises(ogc.TargetError):
        ogc.compare(model, model, saved(tmp_path, x))


def numbers() -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, SIDE, SIDE]), (3, 4)), out="relu")
    net.op("Relu", net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 4), out="y")
    return net.model({"y": ["N", 4]})
