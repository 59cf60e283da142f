"""A class over all levels of a detector: its score, and the sum of the raw cams of all levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dense_kinds
import numpy as np
import pytest
from nets import run

import onnx_gradcam as ogc
from onnx_gradcam.methods.heatmap import upsample

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
CLASS = 1


@pytest.fixture(scope="module")
def detector() -> Any:
    with ogc.Explainer(dense_kinds.model(dense_kinds.KINDS["raw v8"].write), providers=["cpu"]) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """Of the class, in the 64 cells of the finer level and the 16 of the coarser one, from the outputs themselves."""
    out = run(dense_kinds.model(dense_kinds.KINDS["raw v8"].write), {"x": X})
    return np.concatenate([out[f"out{k}"][0, -3 + CLASS].ravel() for k in range(2)]).astype(np.float64)


@pytest.mark.parametrize("method", ["hirescam", "gradcam", "layercam"])
def test_the_sum_of_all_levels(detector: Any, logits: np.ndarray, method: str) -> None:
    """The gradient of the mean over the detected cells is the mean of theirs; raw cams are summed, divided once."""
    p = 1 / (1 + np.exp(-logits))
    least = float(np.sort(p[64:])[-3]) - 1e-4
    cells = np.flatnonzero(p >= least)
    assert min(np.bincount(cells >= 64, minlength=2)) > 2, "cells of both levels"
    found = detector.explain(X, CLASS, method, levels="all", threshold=least)
    assert found.score[0] == pytest.approx(logits[cells].mean(), rel=1e-4)
    assert found.probability[0] == pytest.approx(1 / (1 + np.exp(-logits.max())), rel=1e-4)
    each = detector.explain(X, ogc.Each([ogc.Box(int(k), label=CLASS) for k in cells]), method)
    total = np.zeros((32, 32))
    for layer, of_cells in zip(found.layers, each.layers, strict=True):
        gradient = of_cells.gradient.astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(layer.gradient[0], gradient, rtol=1e-3, atol=1e-6)
        weights = {
            "hirescam": gradient, "layercam": np.maximum(gradient, 0),
            "gradcam": gradient.mean(axis=(1, 2), keepdims=True),
        }[method]  # fmt: skip
        cam = np.maximum((weights * layer.activation[0]).sum(axis=0), 0)
        total += upsample(cam[None], (32, 32))[0]
    np.testing.assert_allclose(found.heatmap[0], total / total.max(), atol=1e-4)
    assert found.scale[0] == pytest.approx(total.max(), rel=1e-3)
    assert found.label(0) == f"class 1, {len(cells)} cells on 2 of 2 levels"
    assert found.provenance.fusion == "the sum of all levels"


def test_where_nothing_is_detected_the_best_cell_of_each_level_counts(detector: Any, logits: np.ndarray) -> None:
    found = detector.explain(X, CLASS, levels="all", threshold=1.0)
    assert found.score[0] == pytest.approx((logits[:64].max() + logits[64:].max()) / 2, rel=1e-4)
    assert found.label(0) == "class 1, 2 cells on 2 of 2 levels"


def test_the_own_level_is_the_default(detector: Any, logits: np.ndarray) -> None:
    found, own = detector.explain(X, CLASS), detector.explain(X, CLASS, levels="own")
    np.testing.assert_array_equal(found.heatmap, own.heatmap)
    assert found.score[0] == pytest.approx(logits.max(), rel=1e-4)
    assert found.provenance.fusion == "the level of the cell"


def test_the_first_classes_over_all_levels(detector: Any) -> None:
    best = detector.explain(X, ogc.TopK(2))
    found = detector.explain(X, ogc.TopK(2), levels="all", threshold=0.0)
    assert found.class_index.tolist() == best.class_index.tolist()
    assert found.label(0).endswith("80 cells on 2 of 2 levels")


def test_models_of_one_level_and_named_layers_have_none() -> None:
    centernet = dense_kinds.model(dense_kinds.KINDS["centernet"].write)
    with ogc.Explainer(centernet, providers=["cpu"]) as explainer:
        with pytest.raises(ogc.MethodError, match="several levels"):
            explainer.explain(X, levels="all")
        with pytest.raises(ogc.MethodError, match="unknown levels 'each'"):
            explainer.explain(X, levels="each")
    named = dense_kinds.model(dense_kinds.KINDS["raw v8"].write)
    several = ogc.Explainer(named, ["level0", "level1"], providers=["cpu"])
    with several as explainer, pytest.raises(ogc.MethodError, match="several levels"):
        explainer.explain(X, levels="all")


def test_a_comparison_over_all_levels() -> None:
    model = dense_kinds.model(dense_kinds.KINDS["raw v8"].write)
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    found = ogc.compare(model, model, [photo], target=CLASS, levels="all", preprocess="zero-one")
    assert found.method == "hirescam all-levels"
    assert found.pairs[0].pearson == pytest.approx(1)


def test_the_manifest_repeats_it(tmp_path: Path) -> None:
    from onnx_gradcam.jobs.explain import run as explain
    from onnx_gradcam.jobs.repeat import repeat
    from onnx_gradcam.jobs.request import Request

    model, photo = tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(dense_kinds.model(dense_kinds.KINDS["raw v8"].write).SerializeToString())
    np.save(photo, X)
    outcome = explain(Request(str(model), (str(photo),), targets=(str(CLASS),), levels="all"), tmp_path / "out")
    content = json.loads(outcome.manifest.read_text("utf-8"))
    assert (content["method"], content["levels"], content["fusion"]) == ("hirescam", "all", "the sum of all levels")
    assert (tmp_path / "out" / "x.hirescam-all-levels.1.npy").is_file()
    assert all(row.same for row in repeat(outcome.manifest))
