"""The tool behind the method of dense scores: what it explains, which maps it measures, and its table."""

from __future__ import annotations

import dense_kinds
import numpy as np
import pytest
from dense_evidence import METHODS, Line, maps, read_by_the_last, scene_of, table
from nets import run

import onnx_gradcam as ogc
from onnx_gradcam.copies.baselines import mean_colour
from onnx_gradcam.copies.covering import occlude

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> ogc.Network:
    return ogc.Network(dense_kinds.model(dense_kinds.KINDS["raw v8"].write), options=ogc.Options(providers=["cpu"]))


def test_the_score_is_the_logit_of_one_cell(network: ogc.Network) -> None:
    """In copies, too: read from the outputs of the untouched network."""
    scene, proto = scene_of(network, X), dense_kinds.model(dense_kinds.KINDS["raw v8"].write)
    copies = np.concatenate([X, X[:, :, ::-1], 0 * X])
    each = [run(proto, {"x": copy[None]}) for copy in copies]
    all_logits = [np.concatenate([out[f"out{k}"][0, -3:].reshape(3, -1) for k in range(2)], axis=1) for out in each]
    index, cell = np.unravel_index(all_logits[0].argmax(), all_logits[0].shape)
    np.testing.assert_allclose(scene.logit(copies), [z[index, cell] for z in all_logits], rtol=1e-4, atol=1e-5)
    assert scene.level == int(cell >= 64)
    assert scene.probability(X)[0] == pytest.approx(1 / (1 + np.exp(-all_logits[0].max())), rel=1e-4)


def test_each_map_stands_beside_random_weights_and_a_bump(network: ogc.Network) -> None:
    scene = scene_of(network, X)
    found = dict(maps(network, scene, occlude(X[0], scene.logit, mean_colour(X[0]))))
    own = {(layer, w, m) for layer in ("last", "default") for w in ("trained", "random") for m in METHODS}
    assert found.keys() == own | {("-", "-", name) for name in ("a bump", "flat (chance)", "occlusion itself")}
    assert all(heatmap.shape == (32, 32) for heatmap in found.values())
    y, x = np.unravel_index(found["-", "-", "a bump"].argmax(), (32, 32))
    assert abs((y + 0.5) / 32 - scene.centre[0]) <= 1 / 32
    assert abs((x + 0.5) / 32 - scene.centre[1]) <= 1 / 32
    trained, random = (found["default", w, "hirescam"] for w in ("trained", "random"))
    assert not np.allclose(trained, random)


def test_the_last_layer_is_what_the_last_convolution_reads(network: ogc.Network) -> None:
    assert [read_by_the_last(network, level) for level in range(2)] == ["top0", "top1"]
    assert network.layer_names == ("level0", "level1")


def test_the_table_holds_means() -> None:
    of = [Line("a", "p", "last", "trained", "gradcam", d, 0.5, 0.25, 0.1) for d in (0.2, 0.4)]
    assert table(of).splitlines()[2:] == ["| last | trained | gradcam | 0.300 | 0.500 | 0.250 | 0.100 |"]
