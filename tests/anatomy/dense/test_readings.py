"""Where nothing in a file tells what an output holds, the lines that are shown settle it."""

from __future__ import annotations

import re
from collections.abc import Callable

import dense_kinds
import numpy as np
import onnx
import pytest
from anchor_kinds import one_level, rows
from dense_kinds import pyramid
from map_kinds import enlarged
from nets import Net, run

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.score import find_heads, find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets.text import parse

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
Outputs = dict[str, list[int | str] | None]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def lines_for(proto: onnx.ModelProto) -> str:
    """Return what the user is shown: the error, or the reason of the head that is explained."""
    graph = prepare(load(proto).model).graph
    if heads := find_heads(graph):
        return heads[0].reason
    with pytest.raises(ogc.ScoreError) as error:
        find_score(graph)
    return error.value.hint


def scores_in(text: str) -> list[list[str]]:
    """Return the options ``--score`` of each line: those that stand side by side belong together."""
    together = re.findall(r"--score \S+(?: --score \S+)*", text)
    return [
        [name.rstrip(";.),") for name in re.findall(r"--score (\S+)", line)] for line in together if "NAME" not in line
    ]


def levels_of_one_convolution(net: Net) -> Outputs:
    """52 columns on two grids, of which no file says how many are of boxes."""
    for k, x in enumerate(pyramid(net)):
        net.conv(x, (8, 52), kernel=1, out=f"o{k}")
    return {"o0": [1, 52, 8, 8], "o1": [1, 52, 4, 4]}


def heat_maps(net: Net) -> Outputs:
    net.conv(pyramid(net)[0], (8, 17), kernel=1, out="heat")
    return {"heat": [1, 17, 8, 8]}


def lanes(net: Net) -> Outputs:
    """(1, 11, 6, 4) from a linear layer: 10 places and none, for each of 6 rows of 4 lanes."""
    x = net.op("Reshape", net.conv(pyramid(net)[1], (8, 2), kernel=1), net.ints(1, 32))
    net.op("Reshape", net.linear(x, 32, 11 * 6 * 4), net.ints(1, 11, 6, 4), out="y")
    return {"y": [1, 11, 6, 4]}


def letters(net: Net) -> Outputs:
    """(1, 6, 10) from a linear layer: ten digits at six places."""
    x = net.op("Reshape", net.conv(pyramid(net)[1], (8, 2), kernel=1), net.ints(1, 32))
    net.op("Reshape", net.linear(x, 32, 60), net.ints(1, 6, 10), out="y")
    return {"y": [1, 6, 10]}


def depth(net: Net) -> Outputs:
    net.op("Relu", net.conv(enlarged(net, pyramid(net)[0], 4), (8, 1)), out="y")
    return {"y": [1, 1, 32, 32]}


def squeezed_depth(net: Net) -> Outputs:
    """A depth without an axis of columns."""
    depth(net)
    net.op("Squeeze", "y", net.ints(1), out="flat")
    return {"flat": [1, 32, 32]}


def anomaly(net: Net) -> Outputs:
    """The mean squared distance of features from stored ones, in the size of the image."""
    apart = net.op("Sub", pyramid(net)[0], net.random(1, 8, 8, 8))
    distance = net.op("ReduceMean", net.op("Mul", apart, apart), net.ints(1), keepdims=1)
    enlarged(net, distance, 4, out="y")
    return {"y": [1, 1, 32, 32]}


def explained(proto: onnx.ModelProto, names: list[str]) -> ogc.Explanation:
    with ogc.Explainer(proto, score=names if len(names) > 1 else names[0], providers=["cpu"]) as explainer:
        return explainer.explain(X)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def by_softmax(z: np.ndarray) -> tuple[int, float]:
    """The most probable class of all cells (P, K) but for one that wins most cells, and its logit."""
    p = softmax(z)
    p = np.where(np.bincount(p.argmax(1), minlength=p.shape[1]) * 2 > len(p), 0, p)
    cell, best = np.unravel_index(p.argmax(), p.shape)
    return int(best), float(z[cell, best])


def by_sigmoid(z: np.ndarray, gate: np.ndarray | float = np.inf) -> tuple[int, float]:
    p = sigmoid(z) * sigmoid(np.asarray(gate))
    cell, best = np.unravel_index(p.argmax(), p.shape)
    return int(best), float(z[cell, best])


def two_levels(first: int, end: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return lambda out: np.concatenate([rows(out[f"o{k}"])[:, first:end] for k in range(2)])


# a network, the line that is shown, and the class and the logit that it then explains
LINES: dict[str, tuple[Callable[[Net], Outputs], list[str], Callable[[dict[str, np.ndarray]], tuple[int, float]]]] = {
    "levels, each column a class": (
        levels_of_one_convolution, ["o0", "o1"], lambda out: by_softmax(two_levels(0, 52)(out)),
    ),
    "levels, boxes before the classes": (
        levels_of_one_convolution,
        ["o0:columns=4-51", "o1:columns=4-51"],
        lambda out: by_sigmoid(two_levels(4, 52)(out)),
    ),
    "heat maps": (heat_maps, ["heat:squash=sigmoid"], lambda out: by_sigmoid(rows(out["heat"]))),
    "one level, each column a class": (
        lambda net: one_level(net, 75), ["y"], lambda out: by_softmax(rows(out["y"])),
    ),
    "one level of anchors": (
        lambda net: one_level(net, 24),
        ["y:anchors=3"],
        lambda out: by_sigmoid(rows(out["y"], 3)[:, 5:], rows(out["y"], 3)[:, 4:5]),
    ),
    "one level, boxes before the classes": (
        lambda net: one_level(net, 24), ["y:columns=4-23"], lambda out: by_sigmoid(rows(out["y"])[:, 4:]),
    ),
    "lanes": (lanes, ["y"], lambda out: by_softmax(rows(out["y"]))),
    "letters": (letters, ["y"], lambda out: by_softmax(out["y"][0])),
    "depth": (depth, ["y"], lambda out: (0, float(out["y"].max()))),
    "squeezed depth": (squeezed_depth, ["flat"], lambda out: (0, float(out["flat"].max()))),
    "anomaly": (anomaly, ["y"], lambda out: (0, float(out["y"].max()))),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_the_line_that_is_shown_settles_it(name: str) -> None:
    write, line, truth = LINES[name]
    proto = dense_kinds.model(write)
    assert line in scores_in(lines_for(proto))
    best, score = truth(run(proto, {"x": X}))
    found = explained(proto, line)
    assert int(found.class_index[0]) == best
    assert found.score[0] == pytest.approx(score, rel=1e-4, abs=1e-4)


# the same with what no line can know: which columns are the classes, along which axis they lie
SAID: dict[str, tuple[Callable[[Net], Outputs], list[str], Callable[[dict[str, np.ndarray]], tuple[int, float]]]] = {
    "classes before the boxes": (
        levels_of_one_convolution,
        ["o0:columns=0-19", "o1:columns=0-19"],
        lambda out: by_sigmoid(two_levels(0, 20)(out)),
    ),
    "classes of anchors": (
        lambda net: one_level(net, 24),
        ["y:anchors=3,columns=4-7,squash=softmax"],
        lambda out: by_softmax(rows(out["y"], 3)[:, 4:]),
    ),
    "letters along the other axis": (letters, ["y:axis=1"], lambda out: by_softmax(out["y"][0].T)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_the_user_says_of_a_value(name: str) -> None:
    write, line, truth = SAID[name]
    proto = dense_kinds.model(write)
    best, score = truth(run(proto, {"x": X}))
    found = explained(proto, line)
    assert int(found.class_index[0]) == best
    assert found.score[0] == pytest.approx(score, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("write", "name"), [(depth, "y"), (squeezed_depth, "flat"), (anomaly, "y")])
def test_a_part_of_a_map_of_values(write: Callable[[Net], Outputs], name: str) -> None:
    """The line with a target: the mean of the values in a region of the image."""
    proto = dense_kinds.model(write)
    assert f"--score {name} --target box:0@X1,Y1,X2,Y2" in lines_for(proto)
    with ogc.Explainer(proto, score=name, providers=["cpu"]) as explainer:
        found = explainer.explain(X, parse(["box:0@8,4,20,28"], 1, None))
    expected = run(proto, {"x": X})[name].reshape(32, 32)[4:28, 8:20].mean()
    assert found.score[0] == pytest.approx(float(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("y:anchors=7", "does not fit 'y'"),
        ("y:columns=4-75", "does not fit 'y'"),
        ("y:columns=9-4", "does not fit 'y'"),
        ("y:axis=4", "has no axis 4"),
        ("y:anchor=3", "'anchor=3' does not say"),
        ("y:squash=tanh", "does not say"),
        ("z:anchors=3", "no value 'z:anchors=3'"),
    ],
)
def test_what_does_not_fit_is_refused(said: str, message: str) -> None:
    with pytest.raises(ogc.ScoreError, match=re.escape(message)):
        ogc.Explainer(dense_kinds.model(lambda net: one_level(net, 75)), score=said)


def test_a_value_of_just_that_name_goes_before() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)))
    net.head(x, 4, out="logits:0")
    proto = net.model({"logits:0": ["N", 5]})
    with ogc.Explainer(proto, score="logits:0", providers=["cpu"]) as explainer:
        assert explainer.network.score.kind == "classes"
