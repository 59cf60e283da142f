"""The form of a detector's boxes, found from the boxes themselves; a box and its overlap against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lights import RED, lights, scene

import onnx_gradcam as ogc
from onnx_gradcam.targets import detections
from onnx_gradcam.targets.detections import BOX_FORMS, CENTRE, BoxForm, Cells

SIZE = (96, 128)
GRIDS = np.array([[12 * 16, 12, 16], [6 * 8, 6, 8]])
OBJECTS = np.array([[10, 12, 70, 60], [60, 20, 120, 90], [20, 50, 50, 80]], float)


def truth(where: Cells) -> tuple[np.ndarray, np.ndarray]:
    """(P, 4) boxes as a detector gives them, and (P,) how sure it is: near the middle of an object that object's box,
    elsewhere small boxes about the cell."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([where.centre - where.stride, where.centre + where.stride], axis=1)
    probability = rng.random(len(boxes)) * 0.01
    for k, box in enumerate(OBJECTS):
        middle = (box[:2] + box[2:]) / 2
        off = np.abs(where.centre - middle).max(axis=1)
        near = off < 1.2 * where.stride.max(axis=1)
        boxes[near] = box + rng.normal(0, 0.5, (near.sum(), 4))
        probability[near] = 0.9 - off[near] / 100 - k / 50
    return boxes, probability


def encoded(form: BoxForm, boxes: np.ndarray, where: Cells) -> np.ndarray:
    """The numbers (C, P) that ``decoded_boxes`` makes these boxes of: its inverse."""
    matrix, origin = detections.affine(form, where, SIZE)
    acted = np.stack([np.linalg.solve(m, b - o) for m, b, o in zip(matrix, boxes, origin, strict=True)]).T
    inverse = {
        "Identity": lambda v: v,
        "Exp": lambda v: np.log(v),
        "Tanh": lambda v: np.arctanh(np.clip(v, -0.99, 0.99)),
        "Sigmoid": lambda v: np.log(v / (1 - v)),
    }
    if form.functions[0] != "Expected":
        return np.concatenate([inverse[form.functions[0]](acted[:2]), inverse[form.functions[1]](acted[2:])])
    logits = np.full((4, 16, len(boxes)), -40.0)
    low = np.clip(np.floor(acted), 0, 14).astype(int)
    for side in range(4):
        for p in range(len(boxes)):
            share = np.clip(acted[side, p] - low[side, p], 1e-9, 1 - 1e-9)
            logits[side, low[side, p] : low[side, p] + 2, p] = np.log([1 - share, share])
    return logits.reshape(64, -1)


@pytest.mark.parametrize("name", BOX_FORMS)
def test_every_form_is_found(name: str) -> None:
    form = BOX_FORMS[name]
    grids = GRIDS[1:] if form.levels == 1 else GRIDS
    where = detections.cells(grids, SIZE, False)
    boxes, probability = truth(where)
    raw = encoded(form, boxes, where)
    found = detections.box_layout(raw, grids, SIZE, probability)
    assert found is not None
    assert found.name == name
    sure = probability > 0.5
    np.testing.assert_allclose(
        detections.decoded_boxes(form, raw, where, SIZE)[sure],
        boxes[sure],
        atol=12 if "Tanh" in form.functions else 1e-3,
    )


@pytest.mark.parametrize("anchors_first", [False, True])
def test_the_order_of_anchors_is_found(anchors_first: bool) -> None:
    grids = GRIDS * [2, 1, 1]
    where = detections.cells(grids, SIZE, anchors_first)
    boxes, probability = truth(where)
    found = detections.box_layout(encoded(BOX_FORMS["corners"], boxes, where), grids, SIZE, probability)
    assert found is not None
    np.testing.assert_array_equal(found.where.centre, where.centre)


def test_numbers_that_are_no_boxes() -> None:
    raw = np.random.default_rng(0).uniform(-500, 500, (4, 240))
    assert detections.box_layout(raw, GRIDS, SIZE, np.linspace(0, 1, 240)) is None


def test_cells() -> None:
    found = detections.cells(np.array([[4, 1, 2], [1, 1, 1]]), (10, 40), False)
    np.testing.assert_array_equal(found.centre, [[10, 5], [10, 5], [30, 5], [30, 5], [20, 5]])
    np.testing.assert_array_equal(found.stride, [[20, 10]] * 4 + [[40, 10]])
    np.testing.assert_array_equal(found.level, [0, 0, 0, 0, 1])
    first = detections.cells(np.array([[4, 1, 2]]), (10, 40), True)
    np.testing.assert_array_equal(first.centre[:, 0], [10, 30, 10, 30])


def test_overlap_and_contain() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 4, 4]], float)
    np.testing.assert_allclose(detections.overlap(boxes, np.array([0, 0, 2, 2])), [1, 1 / 7, 0, 1 / 4])
    np.testing.assert_array_equal(detections.contain(boxes, (1.5, 1.5)), [True, True, False, True])


def test_patterns() -> None:
    np.testing.assert_array_equal(CENTRE @ [5, 6, 4, 2], [3, 5, 7, 7])


# --- against torch ----------------------------------------------------------------------------------------------


def module_and_explainer(name: str) -> tuple[Any, Any, Any]:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    from dense_nets import NETS
    from exports import EXPORTERS, export

    import onnx_gradcam as ogc

    torch.manual_seed(0)
    module = NETS[name]().eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return module, x, ogc.Explainer(export(module, x, EXPORTERS[0], dynamic_batch=False), providers=["cpu"])


@pytest.mark.parametrize("name", ["yolov5", "yolov8"])
def test_scores_of_a_box_by_number(name: str) -> None:
    import onnx_gradcam as ogc

    module, x, explainer = module_and_explainer(name)
    raw = module.raw(x)
    z = (
        np.concatenate([y[0].reshape(-1, 9).detach().numpy() for y in raw])
        if name == "yolov5"
        else raw[0].detach().numpy().T
    )
    first = 5 if name == "yolov5" else 4
    for place in (0, 70, 79 if name == "yolov8" else 159):
        found = explainer.explain(x.numpy(), target=ogc.Box(place, label=2))
        assert float(found.score[0]) == pytest.approx(float(z[place, first + 2]), rel=1e-4, abs=1e-5)
        assert list(found.cell[0]) == [place]
        assert found.target(0) == f"cell:2@{place}"
        best = explainer.explain(x.numpy(), target=ogc.Box(place))
        assert int(best.class_index[0]) == int(z[place, first:].argmax())
    if name == "yolov5":
        found = explainer.explain(x.numpy(), target=ogc.Box(70, what="objectness"))
        assert float(found.score[0]) == pytest.approx(float(z[70, 4]), rel=1e-4, abs=1e-5)


def test_a_branch_has_layers_and_sessions_of_its_own_that_are_kept() -> None:
    """YOLOv8's boxes and classes come from convolutions of their own."""
    import onnx_gradcam as ogc

    _, x, explainer = module_and_explainer("yolov8")
    classes, boxes = explainer.network, explainer.network.on_branch("boxes")
    assert explainer.network.on_branch("boxes") is boxes
    assert explainer.network.on_branch("logits") is classes
    assert boxes.layer_names != classes.layer_names
    found = explainer.explain(x.numpy(), target=ogc.Box(3), method="hirescam")
    assert [layer.name for layer in found.layers] == list(classes.layer_names)


@pytest.mark.parametrize("place", [3, 40, 100, 130])
def test_the_overlap_and_its_gradient(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of YOLOv5's decoded boxes, centres and sizes in pixels; untrained, they do not lie about their cells."""
    torch = pytest.importorskip("torch", reason="torch: not installed")

    import onnx_gradcam as ogc

    module, x, explainer = module_and_explainer("yolov5")
    cx, cy, w, h = module(x)[0, place, :4].tolist()
    given = (cx - 0.3 * w, cy - 0.6 * h, cx + 0.6 * w, cy + 0.45 * h)
    kept: list[Any] = []
    for part in module.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _m, _x, y: kept.append(y))
    cx, cy, w, h = module(x)[0, place, :4]
    inner = (torch.minimum(cx + w / 2, torch.tensor(given[2])) - torch.maximum(cx - w / 2, torch.tensor(given[0]))) * (
        torch.minimum(cy + h / 2, torch.tensor(given[3])) - torch.maximum(cy - h / 2, torch.tensor(given[1]))
    )
    iou = inner / (w * h + (given[2] - given[0]) * (given[3] - given[1]) - inner)
    where = detections.cells(np.array([[128, 8, 8], [32, 4, 4]]), (32, 32), True)
    monkeypatch.setattr(detections, "box_layout", lambda *_: detections.BoxLayout("centre", where))
    found = explainer.explain(x.numpy(), target=ogc.Box(place, what="iou", box=given))
    assert float(found.score[0]) == pytest.approx(iou.item(), rel=1e-4)
    for layer in found.layers:
        nearest = min(
            (a for a in kept if a.shape == layer.activation.shape),
            key=lambda a: float((a.detach() - torch.tensor(layer.activation)).abs().max()),
        )
        (gradient,) = torch.autograd.grad(iou, nearest, retain_graph=True, allow_unused=True)
        expected = np.zeros_like(layer.activation) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(layer.gradient, expected, rtol=1e-3, atol=1e-5 * max(1, np.abs(expected).max()))


def test_what_an_image_has_shown_is_kept_until_a_surer_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is detected on the first two; the second is the surer one; on the third something is, and that settles
    it."""
    calls: list[int] = []
    original = detections.box_layout
    monkeypatch.setattr(detections, "box_layout", lambda *given: calls.append(1) or original(*given))
    counted = []
    with ogc.Explainer(lights(), providers=["cpu"]) as explainer:
        for brightness in (0.1, 0.2, 0.15, 1.0, 0.3, 0.9):
            found = explainer.explain(scene((1, 1, RED, brightness)))
            np.testing.assert_allclose(found.box, [[6, 6, 18, 18]], atol=1e-4)
            counted.append(len(calls))
    assert counted == [1, 2, 2, 3, 3, 3]


QUERIES = np.array([[10, 12, 70, 60], [60, 20, 120, 90], [20, 50, 50, 80]], float)  # corners, in pixels of SIZE


@pytest.mark.parametrize("name", ["corners", "corners, of the input", "centre", "centre, of the input"])
def test_boxes_of_queries_lie_on_no_grid(name: str) -> None:
    x1, y1, x2, y2 = QUERIES.T
    raw = QUERIES.T if name.startswith("corners") else np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    if name.endswith("input"):
        raw = raw / np.array([SIZE[1], SIZE[0]] * 2)[:, None]
    layout = detections.query_layout(raw)
    assert layout is not None
    assert layout.name == name
    np.testing.assert_allclose(detections.decoded_boxes(layout.form, raw, layout.where, SIZE), QUERIES)


def test_numbers_that_are_no_boxes_of_queries() -> None:
    rng = np.random.default_rng(0)
    assert detections.query_layout(rng.normal(size=(4, 50))) is None
    assert detections.query_layout(np.ones((5, 50))) is None
    assert detections.query_layout(np.ones((4, 0))) is None
