"""Scores of segmenters, detectors and sequences: the cell that is chosen, what is explained, the layers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net, run
from onnx import TensorProto

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.errors import ScoreError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import CLASS_OUTPUT, SCORE_OUTPUT, TARGET_INDEX
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score


def first(explanation: ogc.Explanation) -> tuple[int, list[int], float, float]:
    assert explanation.cell is not None
    cell = [int(k) for k in explanation.cell[0]]
    return int(explanation.class_index[0]), cell, float(explanation.score[0]), float(explanation.probability[0])


def explain(model: onnx.ModelProto, target: ogc.Target = None, seed: int = 0) -> tuple[ogc.Explanation, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)
    return ogc.Explainer(model, providers=["cpu"]).explain(x, target), x


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def trunk(net: Net, batch: int | str = 1) -> str:
    x = net.op("Relu", net.conv(net.input("x", [batch, 3, 16, 16]), (3, 6), stride=2), out="stage1")
    return net.op("Relu", net.conv(x, (6, 6), stride=2), out="stage2")


def with_head(net: Net, x: str) -> str:
    """Two convolutions, so that what lies behind ``x`` is more than the last kernel."""
    for _ in range(2):
        x = net.op("Relu", net.conv(x, (6, 6)))
    return x


# --------------------------------------------------------------------------------------------- maps of classes


def segmenter(classes: int, tail: str, batch: int | str = 1) -> onnx.ModelProto:
    """Logits of half the size; behind them nothing, a Softmax over classes or an ArgMax."""
    net = Net()
    up = net.op(
        "Resize", trunk(net, batch), "", net.array(np.array([1, 1, 2, 2], np.float32)), mode="nearest", out="up"
    )
    net.conv(up, (6, classes), kernel=1, out="logits")
    if tail == "Softmax":
        net.op("Softmax", "logits", axis=1, out="p")
    if tail == "ArgMax":
        net.op("ArgMax", "logits", axis=1, keepdims=0, out="map")
    if tail == "Sigmoid":
        net.op("Sigmoid", "logits", out="p")
    name = {"": "logits", "Softmax": "p", "Sigmoid": "p", "ArgMax": "map"}[tail]
    shape = [batch, 8, 8] if tail == "ArgMax" else [batch, classes, 8, 8]
    return net.model({name: shape}, {"map": TensorProto.INT64} if tail == "ArgMax" else {})


def logits_of(model: onnx.ModelProto, x: np.ndarray, name: str = "logits") -> np.ndarray:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if name not in {o.name for o in copy.graph.output}:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    found: np.ndarray = run(copy, {"x": x}, [name])[name].astype(np.float64)
    return found


@pytest.mark.parametrize("tail", ["", "Softmax", "ArgMax"])
def test_the_most_probable_cell_of_a_map(tail: str) -> None:
    """The class that wins most cells is left out, and asked for by its index it is there."""
    model = segmenter(4, tail)
    explanation, x = explain(model)
    z = logits_of(model, x)[0]
    p = np.exp(z) / np.exp(z).sum(axis=0)
    wins = np.bincount(p.argmax(axis=0).ravel(), minlength=4)
    kept = [c for c in range(4) if wins[c] <= 32]
    best = max(kept, key=lambda c: p[c].max())
    place = np.unravel_index(p[best].argmax(), (8, 8))
    index, cell, score, probability = first(explanation)
    assert (index, cell) == (best, [int(k) for k in place])
    assert score == pytest.approx(z[(best, *place)], rel=1e-4)
    assert probability == pytest.approx(p[(best, *place)], rel=1e-4)
    for c in range(4):
        index, cell, score, _ = first(explain(model, c)[0])
        place = np.unravel_index(p[c].argmax(), (8, 8))
        assert (index, cell) == (c, [int(k) for k in place])
        assert score == pytest.approx(z[(c, *place)], rel=1e-4)


def test_of_two_classes_the_first_is_the_background() -> None:
    explanation, x = explain(segmenter(2, "Softmax"))
    z = logits_of(segmenter(2, "Softmax"), x)[0]
    index, cell, score, _ = first(explanation)
    place = np.unravel_index((z[1] - z[0]).argmax(), (8, 8))
    assert (index, cell) == (1, [int(k) for k in place])
    assert score == pytest.approx(z[(1, *place)], rel=1e-4)


def test_saturated_cells_are_no_tie() -> None:
    """Where probabilities round to 1, the odds still rank them."""
    net = Net()
    net.op("Mul", net.conv(net.input("x", [1, 3, 16, 16]), (3, 3)), net.array(np.array(40, np.float32)), out="logits")
    net.op("Softmax", "logits", axis=1, out="p")
    model = net.model({"p": [1, 3, 16, 16]})
    explanation, x = explain(model, 2)
    z = logits_of(model, x)[0]
    assert (run(model, {"x": x})["p"][0, 2] == 1).sum() > 1
    odds = z[2] - np.logaddexp(z[0], z[1])
    assert first(explanation)[1] == [int(k) for k in np.unravel_index(odds.argmax(), (16, 16))]


def test_top_k_takes_each_class_at_its_own_cell() -> None:
    model = segmenter(5, "Sigmoid")
    explanation, x = explain(model, ogc.TopK(3))
    z = logits_of(model, x)[0].reshape(5, -1)
    order = np.argsort(-z.max(axis=1))[:3]
    assert explanation.class_index.tolist() == order.tolist()
    assert explanation.cell is not None
    assert [r * 8 + c for r, c in explanation.cell] == z.argmax(axis=1)[order].tolist()
    np.testing.assert_allclose(explanation.score, z.max(axis=1)[order], rtol=1e-4)
    np.testing.assert_allclose(explanation.probability, sigmoid(z.max(axis=1)[order]), rtol=1e-4)
    for k, index in enumerate(order):
        alone, _ = explain(model, int(index))
        np.testing.assert_allclose(explanation.heatmap[k], alone.heatmap[0], atol=1e-5)


def test_every_image_of_a_batch_has_its_own_cell() -> None:
    model = segmenter(3, "Sigmoid", BATCH)
    x = np.random.default_rng(3).standard_normal((3, 3, 16, 16)).astype(np.float32)
    together = ogc.Explainer(model, providers=["cpu"]).explain(x)
    z = logits_of(model, x).reshape(3, -1)
    assert together.cell is not None
    flat = together.class_index * 64 + together.cell[:, 0] * 8 + together.cell[:, 1]
    assert flat.tolist() == z.argmax(axis=1).tolist()


def test_the_gradient_is_that_of_the_entry() -> None:
    """Against central differences of the chosen logit alone."""
    model = segmenter(3, "Softmax")
    x = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
    prepared = prepare(load(model).model)
    whole = differentiate(*write_score(prepared, find_score(prepared.graph)), ["x"])
    import onnx_ir as ir

    fed = {"x": x, TARGET_INDEX: np.array([-1])}
    found = run(ir.to_proto(whole.model), fed, ["grad/x", SCORE_OUTPUT, CLASS_OUTPUT, "score/cell"])
    index = int(found[CLASS_OUTPUT][0])
    row, column = (int(k) for k in found["score/cell"][0, index])
    v = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)
    h = np.float32(1e-3)
    ends = [logits_of(model, x + s * h * v)[0, index, row, column] for s in (1, -1)]
    slope = float(np.vdot(found["grad/x"].astype(np.float64), v))
    assert (ends[0] - ends[1]) / (2e-3) == pytest.approx(slope, rel=2e-2, abs=1e-3)
    assert float(found[SCORE_OUTPUT][0]) == pytest.approx(logits_of(model, x)[0, index, row, column], rel=1e-5)


# --------------------------------------------------------------------------------------------------- detectors


def yolo(form: str) -> onnx.ModelProto:
    """Two levels of (box 4, objectness 1, classes 3), or without an objectness where ``form`` is "v8"."""
    net = Net()
    a = trunk(net)
    b = net.op("Relu", net.conv(a, (6, 6), stride=2), out="stage3")
    width, parts = 7 if form == "v8" else 8, []
    for k, (x, side) in enumerate([(with_head(net, a), 4), (with_head(net, b), 2)]):
        if form == "v8":
            y = net.conv(x, (6, width), kernel=1, out=f"head{k}")
            parts.append(net.op("Reshape", y, net.ints(1, width, side * side)))
        elif form == "v5":  # one Sigmoid over everything, boxes decoded behind it
            y = net.op("Transpose", net.conv(x, (6, width), kernel=1, out=f"head{k}"), perm=[0, 2, 3, 1], out=f"l{k}")
            y = net.op("Sigmoid", y)
            box = net.op("Mul", net.op("Slice", y, net.ints(0), net.ints(4), net.ints(3)), net.array(np.float32(8)))
            rest = net.op("Slice", y, net.ints(4), net.ints(8), net.ints(3))
            parts.append(net.op("Reshape", net.op("Concat", box, rest, axis=3), net.ints(1, side * side, width)))
        else:  # yolox
            columns = [net.conv(x, (6, 4), kernel=1)]
            columns += [net.op("Sigmoid", net.conv(x, (6, n), kernel=1, out=f"head{k}_{n}")) for n in (1, 3)]
            parts.append(net.op("Reshape", net.op("Concat", *columns, axis=1), net.ints(1, width, side * side)))
    if form == "v5":
        net.op("Concat", *parts, axis=1, out="y")
        return net.model({"y": [1, 20, 8]})
    joined = net.op("Concat", *parts, axis=2, out="joined")
    if form == "v8":
        box = net.op("Mul", net.op("Slice", joined, net.ints(0), net.ints(4), net.ints(1)), net.array(np.float32(8)))
        rest = net.op("Sigmoid", net.op("Slice", joined, net.ints(4), net.ints(7), net.ints(1)))
        net.op("Concat", box, rest, axis=1, out="y")
        return net.model({"y": [1, 7, 20]})
    net.op("Transpose", joined, perm=[0, 2, 1], out="y")
    return net.model({"y": [1, 20, 8]})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["v5", "v8", "yolox"])
def test_the_most_probable_box(form: str, seed: int) -> None:
    model = yolo(form)
    explanation, x = explain(model, seed=seed)
    y = run(model, {"x": x})["y"][0].astype(np.float64)
    y = y.T if form == "v8" else y
    p = y[:, 4:] if form == "v8" else y[:, 4:5] * y[:, 5:]
    box, best = np.unravel_index(p.argmax(), p.shape)
    index, cell, score, probability = first(explanation)
    assert (index, cell) == (best, [box])
    assert probability == pytest.approx(p.max(), rel=1e-4)
    own = y[box, best + (4 if form == "v8" else 5)]
    assert score == pytest.approx(np.log(own / (1 - own)), rel=1e-3)
    level = int(box >= 16)
    if level == 0:
        np.testing.assert_array_equal(explanation.layers[1].gradient, 0)
    assert np.abs(explanation.layers[level].gradient).max() > 0
    assert [layer.name for layer in explanation.layers] == ["stage2", "stage3"]


def test_a_map_is_that_of_the_level_of_the_box() -> None:
    explanation, _ = explain(yolo("yolox"), ogc.Classes([0, 1, 2]))
    assert explanation.cell is not None
    for row, (box,) in enumerate(explanation.cell):
        cam = explanation.layers[int(box >= 16)].cam[row]
        assert explanation.is_blank[row] == (cam.max() <= 0)


def test_several_outputs_and_anchors() -> None:
    """One output of scores for each level, one of boxes, and one that does not depend on the image."""
    net = Net()
    a = trunk(net)
    b = net.op("Relu", net.conv(a, (6, 6), stride=2), out="stage3")
    for k, (x, side) in enumerate([(a, 4), (b, 2)]):
        z = net.op("Reshape", net.conv(x, (6, 3), kernel=1, out=f"logits{k}"), net.ints(1, 3, side * side))
        net.op("Transpose", net.op("Sigmoid", z), perm=[0, 2, 1], out=f"p{k}")
        net.op("Reshape", net.conv(x, (6, 4), kernel=1), net.ints(1, 4, side * side), out=f"boxes{k}")
    net.op("Identity", net.array(np.zeros((1, 20, 4), np.float32)), out="anchors")
    outputs = {"boxes0": [1, 4, 16], "p0": [1, 16, 3], "boxes1": [1, 4, 4], "p1": [1, 4, 3], "anchors": [1, 20, 4]}
    model = net.model(outputs)
    explanation, x = explain(model)
    found = run(model, {"x": x})
    level = int(found["p1"].max() > found["p0"].max())
    box, best = np.unravel_index(found[f"p{level}"][0].argmax(), found[f"p{level}"][0].shape)
    assert first(explanation)[:2] == (best, [level, box])
    assert first(explanation)[3] == pytest.approx(found[f"p{level}"].max(), rel=1e-4)


def test_scores_before_a_non_maximum_suppression() -> None:
    net = Net()
    x = trunk(net)
    z = net.op("Reshape", net.conv(x, (6, 3), kernel=1, out="logits"), net.ints(1, 3, 16))
    boxes = net.op("Transpose", net.op("Reshape", net.conv(x, (6, 4), kernel=1), net.ints(1, 4, 16)), perm=[0, 2, 1])
    scores = net.op("Sigmoid", z, out="p")
    limits = [net.ints(5), net.array(np.array([0.5], np.float32)), net.array(np.array([0.1], np.float32))]
    net.op("NonMaxSuppression", boxes, scores, *limits, out="kept")
    model = net.model({"kept": [None, 3]}, {"kept": TensorProto.INT64})
    explanation, x_ = explain(model)
    z_ = logits_of(model, x_)[0].reshape(3, -1)
    best, box = np.unravel_index(z_.argmax(), z_.shape)
    assert first(explanation)[:2] == (best, [box])


def test_ssd_leaves_the_background_out() -> None:
    """Anchors × classes in the channels, a Softmax over (background, 2 classes) of all boxes."""
    net = Net()
    x = trunk(net)
    z = net.op("Transpose", net.conv(x, (6, 6), kernel=1, out="head"), perm=[0, 2, 3, 1])
    shifted = net.op(
        "Add",
        net.op("Reshape", z, net.ints(1, 32, 3), out="raw"),
        net.array(np.array([9, 0, 0], np.float32)),
        out="logits",
    )
    net.op("Softmax", shifted, axis=2, out="p")
    model = net.model({"p": [1, 32, 3]})
    explanation, x_ = explain(model)
    p = run(model, {"x": x_})["p"][0]
    assert (p.argmax(axis=1) == 0).sum() > 16
    box, best = np.unravel_index(p[:, 1:].argmax(), (32, 2))
    assert first(explanation)[:2] == (best + 1, [box])
    assert first(explanation)[2] == pytest.approx(logits_of(model, x_)[0, box, best + 1], rel=1e-4)


# --------------------------------------------------------------------------------------- sequences, and what is not


def test_a_sequence_leaves_the_blank_out() -> None:
    """(T, N, K) with a Softmax, as a CTC head has it: class 0 is the blank of nearly all steps."""
    net = Net()
    x = net.op("AveragePool", trunk(net), kernel_shape=[4, 1], out="row")
    x = net.op("Transpose", net.op("Squeeze", x, net.ints(2)), perm=[2, 0, 1])
    bias = net.array(np.array([30, 0, 0, 0, 0], np.float32))
    net.op("Add", net.op("MatMul", x, net.random(6, 5)), bias, out="logits")
    net.op("Softmax", "logits", axis=2, out="p")
    model = net.model({"p": [4, 1, 5]})
    explanation, x_ = explain(model)
    p = run(model, {"x": x_})["p"][:, 0]
    step, best = np.unravel_index(p[:, 1:].argmax(), (4, 4))
    assert first(explanation)[:2] == (best + 1, [step])


def test_a_regression_per_pixel_is_no_guess() -> None:
    net = Net()
    net.conv(trunk(net), (6, 1), out="depth")
    model = net.model({"depth": [1, 1, 4, 4]})
    with pytest.raises(ScoreError) as caught:
        ogc.Explainer(model)
    assert "depth (1, 1, 4, 4)" in caught.value.where
    assert "--score NAME" in caught.value.hint


def test_boxes_without_scores_are_no_guess() -> None:
    """Coarse maps of several resolutions may be anything."""
    net = Net()
    a = trunk(net)
    net.conv(a, (6, 22), kernel=1, out="y0")
    net.conv(a, (6, 22), stride=2, out="y1")
    with pytest.raises(ScoreError):
        ogc.Explainer(net.model({"y0": [1, 22, 4, 4], "y1": [1, 22, 2, 2]}))


def test_a_map_named_by_the_user() -> None:
    net = Net()
    net.conv(trunk(net), (6, 1), out="depth")
    model = net.model({"depth": [1, 1, 4, 4]})
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    explanation = ogc.Explainer(model, score="depth", providers=["cpu"]).explain(x)
    depth = run(model, {"x": x})["depth"][0, 0]
    assert first(explanation)[1] == [int(k) for k in np.unravel_index(depth.argmax(), (4, 4))]
    assert first(explanation)[2] == pytest.approx(float(depth.max()), rel=1e-4)


def test_finding_writes_nothing() -> None:
    """The prepared graph is the same before and after; what is written stands in a copy."""
    prepared = prepare(load(segmenter(4, "Softmax")).model)
    before = ir.to_proto(prepared).SerializeToString()
    uses = {v.name: len(v.uses()) for node in prepared.graph for v in node.outputs}
    score = find_score(prepared.graph)
    assert [layer.name for layer in choose(prepared.graph, score, ["auto"])] == ["stage1"]
    model, written = write_score(prepared, score)
    assert ir.to_proto(prepared).SerializeToString() == before
    assert {v.name: len(v.uses()) for node in prepared.graph for v in node.outputs} == uses
    assert written.value.graph is model.graph is not prepared.graph
    assert [v.name for v in score.sinks] == ["logits"]


def test_the_score_of_a_classifier_stands_there_already() -> None:
    net = Net()
    net.op("Softmax", net.linear(net.op("Flatten", trunk(net)), 96, 5, out="logits"), axis=1, out="p")
    prepared = prepare(load(net.model({"p": [1, 5]})).model)
    score = find_score(prepared.graph)
    model, written = write_score(prepared, score)
    assert model is prepared
    assert written.value is score.value


# ------------------------------------------------------------------------------------------------------- layers
