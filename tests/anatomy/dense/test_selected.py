"""Detectors that select their boxes themselves, queries whose classes meet arithmetic, similarities of two towers."""

from __future__ import annotations

import dense_kinds
import numpy as np
import onnx
import pytest
from dense_kinds import CLASSES, SIZES, pyramid
from nets import Net, run
from onnx import TensorProto, helper

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.dense.tensors import dims_of
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import Score, find_heads
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
PLACES = sum(side**2 for side in SIZES)
BINS = 8
KEPT = 10


def part(net: Net, y: str, start: int, end: int) -> str:
    return net.op("Slice", y, net.ints(start), net.ints(end), net.ints(2))


def distances(net: Net, x: str) -> str:
    """Return (1, 4, P) distances: each is the mean of a distribution over bins."""
    apart = net.op("Transpose", net.op("Reshape", x, net.ints(1, 4, BINS, PLACES)), perm=[0, 2, 1, 3])
    shares = net.op("Softmax", apart, axis=1)
    bins = net.array(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    return net.op("Reshape", net.op("Conv", shares, bins), net.ints(1, 4, PLACES))


def suppressed(net: Net) -> dict[str, list[int | str] | None]:
    """(1, 10, 6): a threshold, a mask, a suppression, and zeros up to a fixed number of boxes."""
    levels = pyramid(net)
    scores, boxes = (
        net.op(
            "Concat",
            *(net.op("Reshape", net.conv(x, (8, n), kernel=1), net.ints(1, n, -1)) for x in levels),
            axis=2,
            out=name,
        )
        for n, name in ((CLASSES, "logits"), (4 * BINS, "bins"))
    )
    decoded = net.op("Mul", distances(net, boxes), net.array(np.full((1, 1, PLACES), 4, np.float32)))
    y = net.op("Transpose", net.op("Concat", decoded, net.op("Sigmoid", scores), axis=1), perm=[0, 2, 1])
    corners, p = part(net, y, 0, 4), part(net, y, 4, 4 + CLASSES)
    first = net.array(np.array(0))
    values = [
        net.op("Gather", corners, first),
        net.op("Gather", net.op("ReduceMax", p, net.ints(2), keepdims=0), first),
        net.op("Gather", net.op("ArgMax", p, axis=2, keepdims=0), first),
    ]
    index = net.op(
        "Transpose", net.op("NonZero", net.op("Greater", values[1], net.array(np.float32(0.1)))), perm=[1, 0]
    )
    box, best, label = (net.op("GatherND", v, index) for v in values)
    wide = [net.op("Unsqueeze", box, net.ints(0)), net.op("Unsqueeze", best, net.ints(0, 1))]
    kept = net.op("NonMaxSuppression", *wide, net.ints(KEPT), net.array(np.float32(0.7)))
    kept = net.op("Gather", kept, net.array(np.array(2)), axis=1)
    picked = [net.op("Gather", v, kept) for v in (box, best, net.op("Cast", label, to=TensorProto.FLOAT))]
    columns = [net.op("Reshape", v, net.ints(-1, n)) for v, n in zip(picked, (4, 1, 1), strict=True)]
    rows = net.op("Concat", *columns, axis=1)
    missing = net.op("Sub", net.ints(KEPT), net.op("Shape", rows, start=0, end=1))
    filled = net.op("Pad", rows, net.op("Concat", net.ints(0, 0), missing, net.ints(0), axis=0))
    empty = net.array(np.zeros((1, KEPT, 6), np.float32))
    net.op("ScatterND", empty, net.array(np.array([[0]])), net.op("Unsqueeze", filled, net.ints(0)), out="dets")
    return {"dets": [1, KEPT, 6]}


def heads_of(proto: onnx.ModelProto) -> tuple[list[Score], list[str]]:
    graph = prepare(load(proto).model).graph
    heads = list(find_heads(graph))
    return heads, [layer.name for layer in choose(graph, heads[0], ["auto"])]


def test_the_scores_before_a_threshold_a_suppression_and_a_filling() -> None:
    proto = dense_kinds.model(suppressed)
    (score,), layers = heads_of(proto)
    assert score.dense is not None
    assert score.dense.boxes is not None
    assert (score.count, len(score.dense.levels), layers) == (CLASSES, 2, ["level0", "level1"])
    assert dims_of(score.dense.boxes) == [1, 4, PLACES]
    proto.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))
    logits = run(proto, {"x": X})["logits"][0]
    with ogc.Explainer(dense_kinds.model(suppressed), providers=["cpu"]) as explainer:
        explanation = explainer.explain(X)
    assert int(explanation.class_index[0]) == np.unravel_index(logits.argmax(), logits.shape)[0]
    assert explanation.score[0] == pytest.approx(logits.max(), rel=1e-5)


def queries(net: Net, similar: bool) -> dict[str, list[int | str] | None]:
    """Logits of queries to which their quality is added, or similarities that are shifted and scaled, beside boxes."""
    x = pyramid(net)[1]
    tokens = net.op("Transpose", net.op("Reshape", x, net.ints(1, 8, 16)), perm=[0, 2, 1], out="memory")
    logits = net.op("MatMul", tokens, net.random(8, CLASSES))
    quality = net.op("MatMul", tokens, net.random(8, 1))
    box = net.op("Sigmoid", net.op("MatMul", tokens, net.random(8, 4)), out="boxes" if similar else "")
    if similar:
        names = net.random(CLASSES, 8)
        logits = net.op("Einsum", tokens, names, equation="bpd,qd->bpq")
        net.op("Mul", net.op("Add", logits, quality), net.op("Elu", quality), out="classes")
    else:
        net.op("Add", logits, quality, out="classes")
        net.op("Mul", box, net.array(np.float32(2)), out="boxes")
    return {"classes": [1, 16, CLASSES], "boxes": [1, 16, 4]}


@pytest.mark.parametrize("similar", [False, True], ids=["with their quality", "similarities"])
def test_classes_of_queries_meet_arithmetic_and_boxes_pass_through_a_sigmoid(similar: bool) -> None:
    proto = dense_kinds.model(lambda net: queries(net, similar))
    (score, *_), layers = heads_of(proto)
    assert (score.name, score.count) == ("classes", CLASSES)
    assert set(layers) <= {"level1", "top1"}
    assert "'boxes'" in score.reason
    logits = run(proto, {"x": X})["classes"][0]
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        explanation = explainer.explain(X)
    assert np.isclose(logits[:, explanation.class_index[0]], explanation.score[0], rtol=1e-5).any()


def towers() -> onnx.ModelProto:
    """The similarities of images and texts, one row for each text, and transposed."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("pixel_values", [1, 3, 16, 16]), (3, 8), stride=2), out="stage")
    image = net.op("Flatten", net.op("GlobalAveragePool", x))
    words = net.op("Gather", net.random(9, 8), net.input("input_ids", [3, 4], np.int64))
    text = net.op("ReduceMean", words, net.ints(1), keepdims=0)
    image, text = (net.op("Div", v, net.op("ReduceL2", v, net.ints(1))) for v in (image, text))
    product = net.op("MatMul", text, net.op("Transpose", image, perm=[1, 0]))
    net.op("Mul", product, net.array(np.float32(20)), out="logits_per_text")
    net.op("Transpose", "logits_per_text", perm=[1, 0], out="logits_per_image")
    return net.model({"logits_per_image": [1, 3], "logits_per_text": [3, 1]})


def test_the_similarities_of_an_image_and_texts_are_classes() -> None:
    proto = towers()
    heads, layers = heads_of(proto)
    assert (heads[0].output, heads[0].kind, heads[0].count, layers) == ("logits_per_image", "classes", 3, ["stage"])
    rng = np.random.default_rng(0)
    x = {"pixel_values": rng.random((1, 3, 16, 16), np.float32), "input_ids": rng.integers(0, 9, (3, 4))}
    logits = run(proto, x)["logits_per_image"][0]
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        explanation = explainer.explain(x)
    assert int(explanation.class_index[0]) == int(logits.argmax())
    assert explanation.score[0] == pytest.approx(logits.max(), rel=1e-5)
