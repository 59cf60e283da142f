"""Networks of maps: which heads they have, which is explained first, and at which layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dense_kinds
import numpy as np
import onnx_ir as ir
import pytest
from dense_kinds import FORMS, number
from map_kinds import MAPS, enlarged
from nets import Net, run
from onnx import numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_heads, find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def graph_of(name: str) -> ir.Graph:
    return prepare(load(dense_kinds.model(MAPS[name].write)).model).graph


@pytest.mark.parametrize("name", MAPS)
def test_the_heads_and_layers_of_an_expert(name: str) -> None:
    expected, graph = MAPS[name], graph_of(name)
    heads = find_heads(graph)
    dense = [head.dense for head in heads if head.dense is not None]
    told = [(",".join(d.outputs), d.count, len(d.levels), d.objectness is not None) for d in dense]
    assert told == list(expected.heads)
    layers = choose(graph, heads[0], ["auto"], image=expected.image)
    assert [layer.name for layer in layers] == list(expected.layers)
    assert all(layer.dims[1] == 8 for layer in layers), "the features, and not the logits"


@pytest.mark.parametrize("form", [*FORMS, "channels last"])
@pytest.mark.parametrize("name", ["masks of queries", "gate of places", "picked peaks"])
def test_the_same_in_the_form_that_is_deployed(name: str, form: str, tmp_path: Path) -> None:
    expected, proto = MAPS[name], dense_kinds.model(MAPS[name].write)
    is_last = form == "channels last"
    deployed = dense_kinds.channels_last(proto) if is_last else dense_kinds.in_form(proto, form, tmp_path)
    graph = prepare(load(deployed).model).graph
    (head, *_) = find_heads(graph)
    assert head.dense is not None
    assert (",".join(head.dense.outputs), head.count) == (expected.heads[0].outputs, expected.heads[0].classes)
    layers = choose(graph, head, ["auto"])
    dims = {v.name: list(v.shape or ()) for node in graph_of(name) for v in node.outputs}
    assert [list(layer.dims) for layer in layers] == [dims[layer] for layer in expected.layers]


def test_the_parts_of_two_streams_are_the_whole_score() -> None:
    """Behind the two layers all is linear: Σ A · G of both, and the biases, are the logit of the output."""
    proto = dense_kinds.model(MAPS["two streams"].write)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X, 2)
        assert explainer.network.is_summed
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    biases = [node.input[2] for node in convolutions if len(weights[node.input[1]]) == 5]
    assert len(biases) == 2
    parts = [float((layer.activation.astype(np.float64) * layer.gradient).sum()) for layer in found.layers]
    assert min(map(abs, parts)) > 1e-3, "both hold a part of it"
    expected = sum(parts) + sum(float(weights[name][2]) for name in biases)
    assert found.score[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["coarse detector", "coarse segmenter"])
def test_a_coarse_map_names_the_next_finer_layer(name: str) -> None:
    with ogc.Explainer(dense_kinds.model(MAPS[name].write), providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    (sentence,) = (w for w in found.warnings if "coarse" in w)
    assert sentence == (
        "the map of 'coarse' has 2×2 positions only, so that it is coarse; the next finer layer: --layer top1"
    )
    assert any("coarse map: 2 × 2" in line for line in found.cautions(0))
    with ogc.Explainer(dense_kinds.model(MAPS[name].write), target_layer="level1", providers=["cpu"]) as explainer:
        assert explainer.explain(X).cam.shape == (1, 4, 4)


def test_the_most_probable_peak() -> None:
    """Of several classes, the cell is one that the maximum of its neighbours leaves."""
    proto = dense_kinds.model(MAPS["peaks"].write)
    p = run(proto, {"x": X})["hm"][0]
    best, *cell = np.unravel_index(p.argmax(), p.shape)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    assert found.cell is not None
    assert (int(found.class_index[0]), found.cell[0].tolist()) == (best, cell)
    assert found.probability[0] == pytest.approx(p.max(), rel=1e-5)


@pytest.mark.parametrize("form", [*FORMS, "channels last"])
@pytest.mark.parametrize(("name", "largest"), [("peaks", 1), ("mask in bytes", 255)])
def test_what_picks_or_scales_scores_does_so_in_every_form(name: str, largest: int, form: str, tmp_path: Path) -> None:
    """The cell is the largest of what the deployed model returns itself, and its probability that number."""
    proto = dense_kinds.model(MAPS[name].write)
    is_last = form == "channels last"
    proto = dense_kinds.channels_last(proto) if is_last else dense_kinds.in_form(proto, form, tmp_path)
    x = X.transpose(0, 2, 3, 1) if is_last else X
    (head,) = MAPS[name].heads
    p = run(proto, {"x": x})[head.outputs][0] / largest
    p = p.transpose(2, 0, 1) if is_last else p
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(x)
        assert explainer.network.score.count == head.classes
    assert found.cell is not None
    column = int(found.class_index[0]) if head.classes > 1 else 0
    assert p[(column, *found.cell[0])] == pytest.approx(
        p.max(), abs=1e-6 if form in ("channels last", "float16") else 2 / 255
    )
    assert found.probability[0] == pytest.approx(p.max(), abs=2 / 255)


SCALED = {
    "the factor first": lambda net, p: net.op("Mul", net.array(number(255)), p),
    "divided": lambda net, p: net.op("Div", p, net.array(number(1 / 255))),
    "rounded": lambda net, p: net.op("Round", net.op("Mul", p, net.array(number(255)))),
    "without its channel": lambda net, p: net.op("Squeeze", net.op("Mul", p, net.array(number(255))), net.ints(1)),
    "enlarged": lambda net, p: enlarged(net, net.op("Mul", p, net.array(number(255))), 2),
}
REVERSED = {
    "a negative factor": lambda net, p: net.op("Mul", p, net.array(number(-255))),
    "the divisor": lambda net, p: net.op("Div", net.array(number(255)), p),
}


def scaled_mask(scale: Callable[[Net, str], str]) -> ir.Graph:
    """Return a network whose mask stands behind a scale; its probabilities are named p."""
    net = Net()
    p = net.op("Sigmoid", net.conv(enlarged(net, dense_kinds.pyramid(net)[0], 4), (8, 1), out="logits"), out="p")
    net.op("Identity", scale(net, p), out="y")
    return prepare(load(net.model({"y": None})).model).graph


@pytest.mark.parametrize("scale", SCALED.values(), ids=SCALED)
def test_a_scaled_mask_is_the_score_before_its_scale(scale: Callable[[Net, str], str]) -> None:
    (score,) = find_heads(scaled_mask(scale))
    assert score.dense is not None
    assert (score.count, score.dense.names, score.dense.outputs) == (1, ("logits",), ("y",))
    assert score.dense.heads[0].output.name == "p"


@pytest.mark.parametrize("scale", REVERSED.values(), ids=REVERSED)
def test_what_is_larger_for_less_is_no_mask(scale: Callable[[Net, str], str]) -> None:
    with pytest.raises(ogc.ScoreError, match="no output holds one score"):
        find_score(scaled_mask(scale))


@pytest.mark.parametrize("head", ["d1", "d2"])
def test_each_side_output_is_explained_by_its_name(head: str) -> None:
    proto = dense_kinds.model(MAPS["side outputs"].write)
    p = run(proto, {"x": X})[head]
    with ogc.Explainer(proto, head=head, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
    assert found.probability[0] == pytest.approx(p.max(), rel=1e-5)
    assert found.layers[0].gradient.shape[1] == 8


def landmarks(classes: bool) -> Net:
    """Coordinates of 21 points, whether there is a hand, and in some models which."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 4)))
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.linear(flat, 4, 63, out="points")
    net.op("Sigmoid", net.linear(flat, 4, 1), out="is_there")
    if classes:
        net.op("Softmax", net.linear(flat, 4, 3), axis=1, out="which")
    return net


@pytest.mark.parametrize("classes", [False, True])
def test_a_model_that_squashes_its_classes_leaves_none_as_they_are(classes: bool) -> None:
    outputs = {"points": [1, 63], "is_there": [1, 1], **({"which": [1, 3]} if classes else {})}
    heads = find_heads(prepare(load(landmarks(classes).model(outputs)).model).graph)
    names = ["which", "is_there", "points"] if classes else ["is_there", "points"]
    assert [head.output for head in heads] == names
