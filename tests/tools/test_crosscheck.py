"""The comparison of roads, and who is upheld where two disagree."""

from __future__ import annotations

import builders
import crosscheck
import numpy as np
import pytest
from crosscheck import OURS, TRAINING, Row, compare, distance, judge
from crosscheck_page import coverage, distances, number, silent, table
from crosscheck_training import read
from nets import feeds

from onnx_gradcam.graph.names import TARGET_INDEX
from onnx_gradcam.roads.engines import gradient_model

PAIR = (OURS, TRAINING)


def case(scale: float) -> tuple[object, dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], dict[str, object]]:
    """A net, its feeds and classes, and its own gradient beside one that is scaled in one half."""
    from nets import run

    proto = builders.plain("N")
    graph = gradient_model(proto, ["relu"])
    fed = {"0": {**feeds(proto, 1), TARGET_INDEX: np.array([2])}}
    right = run(graph, fed["0"], ["grad/relu"])["grad/relu"]
    other = right.copy()
    other[:, :2] *= scale
    return graph, fed, {"0": np.array([2])}, {OURS: {"0": {"layer": right}}, TRAINING: {"0": {"layer": other}}}


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.01])
def test_differences_uphold_the_right_one(scale: float) -> None:
    graph, fed, classes, found = case(scale)
    assert judge(graph, "relu", fed, classes, found, PAIR).startswith("rules: off by")
    swapped = {OURS: found[TRAINING], TRAINING: found[OURS]}
    assert judge(graph, "relu", fed, classes, swapped, PAIR).startswith("ort-training: off by")


def test_a_gradient_of_another_shape_is_wrong_by_that() -> None:
    graph, fed, classes, found = case(1.0)
    found[TRAINING] = {"0": {"layer": np.zeros((0, 4, 8, 8), np.float32)}}  # type: ignore[index]
    said = judge(graph, "relu", fed, classes, found, PAIR)
    assert said == "rules: ort-training gives shape [0, 4, 8, 8] for [1, 4, 8, 8]"


def test_distances_of_pairs() -> None:
    a, b = np.array([3.0, 4.0]), np.array([3.0, 4.5])
    assert distance(b, a) == pytest.approx(0.1)
    assert distance(a, np.zeros(3)) == float("inf")
    row = Row("net", "relu")
    compare({OURS: {"0": {"layer": b, "image": a}}, TRAINING: {"0": {"layer": a, "image": -a}}}, row)
    assert row.layer == {PAIR: pytest.approx(0.1)}
    assert row.image == {PAIR: (2.0, pytest.approx(-1.0))}


def test_the_rows_of_the_page() -> None:
    row = Row("net", "relu", layer={PAIR: 3e-8}, image={PAIR: (2e-7, 0.9999)}, times={OURS: 1.2})
    row.refused[TRAINING] = "no | gradient"
    assert distances(row) == ["net", "`relu`", "3e-08", "", "", "", "", "", "2e-07", "0.999900"]
    assert coverage(row) == ["net", "1.20 ×", "no | gradient", "", ""]
    assert "no &#124; gradient" in table(["model"], [coverage(row)])
    wrong = Row("Conv", "relu", layer={PAIR: float("inf")}, judged={PAIR: "rules"}, verified="fail")
    assert silent(wrong, row) == ["Conv", "another shape", "rules", "fail", "3e-08"]
    assert number(0.0) == "0"


def test_feeds_by_seed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "f.npz", **{"0/a/b": np.ones(2), "1/a/b": np.zeros(2)})
    assert {seed: list(fed) for seed, fed in read(str(tmp_path / "f.npz")).items()} == {"0": ["a/b"], "1": ["a/b"]}


def test_the_silent_errors_are_tried(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = crosscheck.silent(tmp_path)
    assert {"Conv, auto_pad=SAME_UPPER", "AveragePool, symbolic batch"} <= {s.name for s in found}
    assert all(s.as_it_is and s.layer == "relu" for s in found)
