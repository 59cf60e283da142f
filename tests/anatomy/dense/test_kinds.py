"""Every kind of head, in every form in which it is deployed: the scores and layers that an expert would choose."""

from __future__ import annotations

from pathlib import Path

import dense_kinds
import numpy as np
import onnx
import pytest
from dense_kinds import FORMS, KINDS, deployed
from nets import Net, run

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_heads, find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

UNTOLD = ("mask",)  # nothing in the file says what it is
QUANTIZABLE = [name for name in KINDS if name not in (*UNTOLD, "ctc") and "detr" not in name]
X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p.astype(np.float64) / (1 - p.astype(np.float64)))


def cells_of(y: np.ndarray, columns: int) -> np.ndarray:
    """(1, A·columns, H, W) → (A·H·W, columns)."""
    anchors = y.shape[1] // columns
    return y.reshape(anchors, columns, -1).transpose(0, 2, 1).reshape(-1, columns)


def truth(name: str, out: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities (P, K) that the outputs stand for, and the logits (P, K) of the classes, level by level."""
    if name.startswith("yolov5"):
        y = out["y"][0]
        return y[:, 4:5] * y[:, -3:], logit(y[:, -3:])
    if name == "yunet":
        cls, obj = (np.concatenate([out[f"{n}{k}"][0] for k in range(2)]) for n in ("cls", "obj"))
        return cls * obj, logit(cls)
    if name.startswith("scrfd"):
        p = np.concatenate([out[f"score{k}"].reshape(-1, 1) for k in range(2)])
        return p, logit(p)
    if name.startswith("centernet"):
        hm = out["hm"][0].reshape(out["hm"].shape[1], -1).T
        return (sigmoid(hm), hm) if name.endswith("raw") else (hm, logit(hm))
    if name.startswith("raw v5"):
        parts = [out[f"out{k}"] for k in range(2)]
        y = np.concatenate([p.reshape(-1, 8) if p.ndim == 5 else cells_of(p, 8) for p in parts])
        return sigmoid(y[:, 4:5]) * sigmoid(y[:, 5:]), y[:, 5:]
    if name == "squashed v5":
        p = np.concatenate([cells_of(out[f"p{k}"], 8) for k in range(2)])
        return p[:, 4:5] * p[:, 5:], logit(p[:, 5:])
    if name in ("raw yolox", "raw v8"):
        y = np.concatenate([cells_of(out[f"out{k}"], out[f"out{k}"].shape[1]) for k in range(2)])
        gate = sigmoid(y[:, 4:5]) if name == "raw yolox" else 1.0
        return gate * sigmoid(y[:, -3:]), y[:, -3:]
    if name.startswith("raw, apart"):
        z = np.concatenate([cells_of(out[f"cls{k}"], 3) for k in range(2)])
        gates = [sigmoid(cells_of(out[f"obj{k}"], 1)) for k in range(2) if f"obj{k}" in out]
        return sigmoid(z) * (np.concatenate(gates) if gates else 1.0), z
    if name.startswith("detr with"):
        return out["pred_logits"][0], logit(out["pred_logits"][0])
    z = out["pred_logits"][0] if name == "detr" else out["steps"][0]
    e = np.exp(z.astype(np.float64) - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True), z


@pytest.mark.parametrize("name", [name for name in KINDS if name not in UNTOLD])
def test_the_scores_and_layers_of_an_expert(name: str) -> None:
    kind = KINDS[name]
    graph = prepare(load(dense_kinds.model(kind.write)).model).graph
    (score,) = find_heads(graph)
    assert score.dense is not None
    assert (score.count, len(score.dense.levels)) == (kind.classes, kind.levels)
    assert (score.dense.objectness is not None) == kind.objectness
    assert [layer.name for layer in choose(graph, score, ["auto"])] == list(kind.layers)
    assert score.reason


@pytest.mark.parametrize("name", [name for name in KINDS if name not in (*UNTOLD, "end to end", "ctc")])
def test_the_most_probable_cell_and_its_score(name: str) -> None:
    """Against what the outputs of the untouched model say, computed here."""
    proto = dense_kinds.model(KINDS[name].write)
    p, z = truth(name, run(proto, {"x": X}))
    if name in ("detr", "detr with a Softmax"):
        background = np.bincount(p.argmax(1), minlength=p.shape[1]) * 2 > len(p)
        p = np.where(background, 0, p)
    cell, best = np.unravel_index(p.argmax(), p.shape)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X)
        assert int(found.class_index[0]) == best
        if name != "detr with a Softmax":  # its logits are known but for what they have in common
            assert found.score[0] == pytest.approx(z[cell, best], rel=2e-3, abs=1e-4)
        assert found.probability[0] == pytest.approx(p[cell, best], rel=1e-4)
        if KINDS[name].levels == 2 and name != "detr":
            level = int(cell >= len(p) * 4 // 5)
            assert found.layers[level].gradient.any()
            assert level or not found.layers[1].gradient.any(), "the coarser level holds nothing of a cell of the finer"


def test_the_slope_of_a_raw_score_with_anchors() -> None:
    """The gradient at the input, against central differences of the entry of the output itself."""
    proto = dense_kinds.model(KINDS["raw v5"].write)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X, method="saliency")
    p, _ = truth("raw v5", run(proto, {"x": X}))
    cell, best = np.unravel_index(p.argmax(), p.shape)
    v = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    ends = [truth("raw v5", run(proto, {"x": X + s * np.float32(1e-3) * v}))[1][cell, best] for s in (1, -1)]
    assert found.attribution is not None
    assert float(np.vdot(found.attribution, v)) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=3e-2, abs=1e-3)


OPEN = [name for name in KINDS if name.startswith(("raw", "centernet"))]


@pytest.mark.parametrize("name", [name for name in OPEN if not name.endswith(("permuted", "class, raw", "of 3, raw"))])
def test_the_same_for_images_of_any_size(name: str) -> None:
    kind, x = KINDS[name], np.random.default_rng(5).standard_normal((2, 3, 64, 32)).astype(np.float32)
    proto = dense_kinds.open_sizes(dense_kinds.model(kind.write))
    graph = prepare(load(proto).model).graph
    (score,) = find_heads(graph)
    assert score.dense is not None
    assert (score.count, len(score.dense.levels)) == (kind.classes, kind.levels)
    assert [layer.name for layer in choose(graph, score, ["auto"])] == list(kind.layers)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(x)
    for image in range(2):
        p, z = truth(name, run(proto, {"x": x[image : image + 1]}))
        cell, best = np.unravel_index(p.argmax(), p.shape)
        assert int(found.class_index[image]) == best
        assert found.score[image] == pytest.approx(z[cell, best], rel=2e-3, abs=1e-4)


def two_maps(width: int) -> onnx.ModelProto:
    """Two levels of a form that nothing in the file tells, and a third output."""
    net = Net()
    levels = dense_kinds.pyramid(net)
    for k, x in enumerate(levels):
        net.conv(x, (8, width), kernel=1, out=f"y{k}")
    net.conv(levels[0], (8, 7), kernel=1, out="z")
    return net.model({"y0": [1, width, 8, 8], "y1": [1, width, 4, 4], "z": [1, 7, 8, 8]})


def test_levels_by_name_are_one_score() -> None:
    """Every column is a class, where the number of columns is that of no detector."""
    proto = two_maps(5)
    out = run(proto, {"x": X})
    z = np.concatenate([cells_of(out[f"y{k}"], 5) for k in range(2)])
    with pytest.raises(ogc.ScoreError):
        ogc.Explainer(proto)
    with ogc.Explainer(proto, score=["y0", "y1"], providers=["cpu"]) as explainer:
        found = explainer.explain(X, 2)
        assert explainer.target_layers == ("level0", "level1")
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert found.score[0] == pytest.approx(z[p[:, 2].argmax(), 2], rel=1e-4)
    with pytest.raises(ogc.ScoreError, match="2 values are not the levels of one score"):
        ogc.Explainer(proto, score=["y0", "z"])
    with pytest.raises(ogc.ScoreError, match="no value 'y7'"):
        ogc.Explainer(proto, score=["y0", "y7"])


def test_levels_by_name_of_anchors() -> None:
    """24 columns are three anchors of a box, an objectness and three classes, as where they are all outputs."""
    proto = two_maps(24)
    with ogc.Explainer(proto, score=["y0", "y1"], providers=["cpu"]) as explainer:
        score = explainer.network.score
        assert score.dense is not None
        assert (score.count, len(score.dense.levels), score.dense.objectness is not None) == (3, 2, True)


def test_the_steps_of_a_reader_follow_the_width() -> None:
    proto = dense_kinds.model(KINDS["ctc"].write)
    for width in (32, 48):
        x = np.random.default_rng(0).standard_normal((1, 3, 32, width)).astype(np.float32)
        p, z = truth("ctc", run(proto, {"x": x}))
        kept = np.where(np.bincount(p.argmax(1), minlength=7) * 2 > len(p), 0, p)
        step, best = np.unravel_index(kept.argmax(), p.shape)
        with ogc.Explainer(proto, providers=["cpu"]) as explainer:
            found = explainer.explain(x)
        assert found.cell is not None
        assert (int(found.class_index[0]), found.cell[0].tolist()) == (best, [step])
        assert found.score[0] == pytest.approx(z[step, best], rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_steps_of_a_reader_of_one_width(form: str, tmp_path: Path) -> None:
    """Of lines of text, which are wider than high; what an image as wide as high holds, nothing tells."""
    proto = dense_kinds.in_form(dense_kinds.of_width(dense_kinds.model(KINDS["ctc"].write), 64), form, tmp_path)
    graph = prepare(load(proto).model).graph
    (score,) = find_heads(graph)
    assert score.dense is not None
    assert (score.count, score.dense.cell_axes) == (KINDS["ctc"].classes, 1)
    (layer,) = choose(graph, score, ["auto"])
    assert list(layer.dims) == [1, 8, 16, 32]
    square = dense_kinds.of_width(dense_kinds.model(KINDS["ctc"].write), 32)
    with pytest.raises(ogc.ScoreError) as error:
        find_score(prepare(load(square).model).graph)
    assert "--score steps" in error.value.hint


def test_a_map_of_one_channel_may_be_anything_and_the_error_shows_the_line() -> None:
    graph = prepare(load(dense_kinds.model(KINDS["mask"].write)).model).graph
    with pytest.raises(ogc.ScoreError) as error:
        find_score(graph)
    assert "--score mask" in error.value.hint
    named = find_score(graph, "mask")
    assert named.dense is not None
    assert (named.count, named.dense.cell_axes) == (1, 2)
    assert [layer.name for layer in choose(graph, named, ["auto"])] == list(KINDS["mask"].layers)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in (*UNTOLD, "ctc")])
def test_the_same_with_channels_last(name: str) -> None:
    """The same cell for the same image, though the outputs lie in another order."""
    kind = KINDS[name]
    proto = dense_kinds.channels_last(dense_kinds.model(kind.write))
    graph = prepare(load(proto).model).graph
    (score,) = find_heads(graph)
    assert score.dense is not None
    assert (score.count, len(score.dense.levels)) == (kind.classes, kind.levels)
    assert [layer.name for layer in choose(graph, score, ["auto"])] == list(kind.layers)
    with ogc.Explainer(proto, providers=["cpu"]) as explainer:
        found = explainer.explain(X.transpose(0, 2, 3, 1))
    with ogc.Explainer(dense_kinds.model(kind.write), providers=["cpu"]) as explainer:
        expected = explainer.explain(X)
    assert found.class_index.tolist() == expected.class_index.tolist()
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", QUANTIZABLE)
def test_the_same_in_the_form_that_is_deployed(name: str, form: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    graph = prepare(load(deployed(name, form, tmp_path)).model).graph
    (score,) = find_heads(graph)
    assert score.dense is not None, score.kind
    assert (score.count, len(score.dense.levels)) == (kind.classes, kind.levels)
    assert (score.dense.objectness is not None) == kind.objectness
    layers = choose(graph, score, ["auto"])
    assert [layer.name.split("_")[0] for layer in layers] == list(kind.layers) or len(layers) == len(kind.layers)
    assert all(layer.dims[1] == 8 for layer in layers), "what the heads read, and not what they make"
