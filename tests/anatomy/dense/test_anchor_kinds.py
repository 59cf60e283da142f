"""Detectors with anchors, and with maps for boxes and classes: the score, in each form in which they are deployed."""

from __future__ import annotations

from pathlib import Path

import dense_kinds
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from anchor_kinds import ANCHORED, maps
from dense_kinds import FORMS
from nets import run
from onnx import numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import Score, find_heads
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def graph_of(proto: onnx.ModelProto) -> ir.Graph:
    return prepare(load(proto).model).graph


def check(name: str, graph: ir.Graph) -> Score:
    expected = ANCHORED[name]
    (score,) = find_heads(graph)
    assert score.dense is not None, score.kind
    assert (score.count, len(score.dense.levels)) == (expected.classes, expected.levels)
    assert (score.dense.objectness is not None) == (expected.gate is not None)
    assert score.dense.detector
    assert all(layer.dims[1] == 8 for layer in choose(graph, score, ["auto"])), "features, and not the logits"
    return score


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


@pytest.mark.parametrize("name", ANCHORED)
def test_the_most_probable_anchor_and_its_score(name: str) -> None:
    """Against what the outputs of the untouched model say, computed here; the class of most cells is the background."""
    expected, proto = ANCHORED[name], dense_kinds.model(ANCHORED[name].write)
    score = check(name, graph_of(proto))
    assert score.dense is not None
    out = run(proto, {"x": X})
    z = expected.logits(out)
    p = sigmoid(z) * (1 if expected.gate is None else sigmoid(expected.gate(out)))
    if score.dense.may_have_background:
        p = np.where((z > 0).mean(axis=0) > 0.5, -1, p)
    cell, best = np.unravel_index(p.argmax(), p.shape)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    assert int(found.class_index[0]) == best
    assert found.score[0] == pytest.approx(z[cell, best], rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in ANCHORED if name not in ("ssd, equal columns", "joined")])
def test_the_same_in_the_form_that_is_deployed(name: str, form: str, tmp_path: Path) -> None:
    check(name, graph_of(dense_kinds.in_form(dense_kinds.model(ANCHORED[name].write), form, tmp_path)))


@pytest.mark.parametrize("name", [name for name in ANCHORED if not name.endswith("channels last")])
def test_the_same_with_channels_last(name: str) -> None:
    check(name, graph_of(dense_kinds.channels_last(dense_kinds.model(ANCHORED[name].write))))


@pytest.mark.parametrize("name", ["ssd", "retinanet", "retinanet, squashed", "fcos", "rtmdet"])
def test_the_same_for_images_of_any_size(name: str) -> None:
    check(name, graph_of(dense_kinds.open_sizes(dense_kinds.model(ANCHORED[name].write))))


def test_the_background_of_a_softmax_is_not_explained() -> None:
    """Class 0 is likely in all cells: what is most probable is the best of the others."""
    proto = dense_kinds.model(lambda net: maps(net, {"a": 3, "b": 4}, (4, 6)))
    for k, anchors in enumerate((4, 6)):
        (node,) = (n for n in proto.graph.node if n.output[0] == f"a{k}")
        (bias,) = (t for t in proto.graph.initializer if t.name == node.input[2])
        raised = np.tile(np.float32([20, -3, -3]), anchors)
        bias.CopyFrom(numpy_helper.from_array(raised, bias.name))
    z = ANCHORED["ssd"].logits(run(proto, {"x": X}))
    cell, best = np.unravel_index(z[:, 1:].argmax(), z[:, 1:].shape)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    assert int(found.class_index[0]) == best + 1
    assert found.score[0] == pytest.approx(z[cell, best + 1], rel=1e-4, abs=1e-4)
