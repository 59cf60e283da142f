"""A detector that suppresses boxes itself is explained before it does."""

from __future__ import annotations

import numpy as np
import onnx
from lights import BLUE, CELL, COLUMNS, HEIGHT, RED, ROWS, SCENE, WIDTH
from nets import Net

import onnx_gradcam as ogc


def suppressing() -> onnx.ModelProto:
    """The lights again, for one image: boxes as corners, y first, and scores go into a NonMaxSuppression.

    Its outputs are what that keeps: boxes (D, 4), scores (D,) and the indices (D, 3).
    """
    net = Net()
    net.input("x", [1, 3, HEIGHT, WIDTH])
    pick = np.zeros((2, 3, CELL, CELL), np.float32)
    pick[0, RED] = pick[1, BLUE] = 1 / CELL**2
    cells = net.op("Relu", net.op("Conv", "x", net.array(pick), strides=[CELL, CELL]), out="cells")
    weights = net.array(6 * np.eye(2, dtype=np.float32)[:, :, None, None])
    p = net.op("Sigmoid", net.op("Conv", cells, weights, net.array(np.full(2, -3, np.float32))))
    zero = net.op("Conv", cells, net.array(np.zeros((4, 2, 1, 1), np.float32)))
    y, x = (np.mgrid[:ROWS, :COLUMNS] + 0.5) * CELL
    corners = np.stack([y - 6, x - 6, y + 6, x + 6]).astype(np.float32)[None]
    maps = net.op("Reshape", net.op("Add", zero, net.array(corners)), net.ints(1, 4, -1))
    boxes = net.op("Transpose", maps, perm=[0, 2, 1], out="boxes")
    scores = net.op("Reshape", p, net.ints(1, 2, -1), out="scores")
    limits = [net.array(np.array([v], d)) for v, d in ((10, np.int64), (0.5, np.float32), (0.3, np.float32))]
    kept = net.op("NonMaxSuppression", boxes, scores, *limits, out="kept")
    of_class, cell = (net.op("Gather", kept, net.ints(k), axis=1) for k in (1, 2))
    flat = net.op("Squeeze", cell, net.ints(1))
    net.op("Gather", net.op("Squeeze", boxes, net.ints(0)), flat, axis=0, out="kept_boxes")
    both = net.op("Concat", of_class, cell, axis=1)
    net.op("GatherND", net.op("Squeeze", scores, net.ints(0)), both, out="kept_scores")
    outputs = {"kept_boxes": ["D", 4], "kept_scores": ["D"], "kept": ["D", 3]}
    return net.model(outputs, {"kept": onnx.TensorProto.INT64})


def test_a_model_that_suppresses_boxes_itself_is_explained_before_it_does() -> None:
    """Neither are its four numbers of a box taken for four classes, nor the scores that it picks for others."""
    with ogc.Explainer(suppressing(), labels=["red", "blue"], providers=["cpu"]) as explainer:
        found = explainer.explain(SCENE, ogc.Boxes())
        top = explainer.explain(SCENE)
        assert explainer.preprocessing().preprocess.resize == "letterbox"
    assert [found.target(row) for row in range(len(found))] == ["cell:0@9", "cell:0@34", "cell:0@10", "cell:1@38"]
    np.testing.assert_allclose(found.box[0], [6, 6, 18, 18], atol=1e-4)
    np.testing.assert_allclose(found.probability, [1 / (1 + np.exp(3 - 6 * b)) for b in (1, 0.95, 0.9, 0.8)], rtol=1e-5)
    np.testing.assert_allclose(top.outputs["kept_boxes"][0], [6, 6, 18, 18], atol=1e-4)
    assert top.label(0) == "red"
