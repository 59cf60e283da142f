"""The analysis of networks of hundreds of nodes: its price grows with them, and none is too long."""

from __future__ import annotations

import cProfile
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_analysis
import onnx
import onnx_ir as ir
import pytest
from long_nets import SHAPES, long_model
from nets import Net

from onnx_gradcam.anatomy import sizes
from onnx_gradcam.anatomy.dense.places import find_places
from onnx_gradcam.anatomy.layer import LayerSearch
from onnx_gradcam.anatomy.layers import candidates, choose
from onnx_gradcam.anatomy.score import find_heads, find_score
from onnx_gradcam.anatomy.tokens import TokenPositions
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import between, downstream, spread, steps_of, upstream
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare import prepare as preparing
from onnx_gradcam.graph.prepare.prepare import prepare, with_shapes

# shape → the operator behind which the layer lies, how many classes and how many layers
EXPECTED = {
    "chain": ("Relu", 5, 1),
    "residual": ("Relu", 5, 1),
    "dense": ("Relu", 5, 1),
    "branches": ("Relu", 5, 10),
    "outputs": ("Relu", 5, 1),
    "quantized": ("DequantizeLinear", 5, 1),
    "detector": ("Relu", 5, 8),
    "transformer": ("Add", 5, 1),
}


def slow(shape: str) -> Any:
    return pytest.param(shape, marks=pytest.mark.slow)


def long_graph(shape: str, nodes: int) -> ir.Graph:
    return prepare(load(long_model(shape, nodes)).model).graph


def calls_of(look: Callable[[], object]) -> int:
    """Return how many calls a look at a network takes: its price, whatever else the machine does."""
    profile = cProfile.Profile()
    profile.enable()
    look()
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def calls(shape: str, nodes: int) -> int:
    """Return how many calls the analysis of a network takes."""
    graph = long_graph(shape, nodes)
    return calls_of(lambda: candidates(graph, find_score(graph)))


@pytest.mark.parametrize("shape", ["transformer", *(slow(shape) for shape in SHAPES if shape != "transformer")])
def test_an_analysis_takes_twice_the_time_for_twice_the_nodes(shape: str) -> None:
    calls(shape, 100)  # what is imported on the way
    assert calls(shape, 300) < 2.5 * calls(shape, 150)


def calls_for_streams(nodes: int) -> int:
    tokens = TokenPositions(long_graph("transformer", nodes))
    tokens.streams()  # what is worked out once
    return calls_of(tokens.streams)


def calls_for_places(nodes: int) -> int:
    graph = long_graph("transformer", nodes)
    search = LayerSearch(graph, find_score(graph))
    find_places(search)
    return calls_of(lambda: find_places(search))


@pytest.mark.parametrize("count", [calls_for_streams, calls_for_places])
def test_blocks_of_tokens_are_walked_over_once_however_many_there_are(count: Callable[[int], int]) -> None:
    assert count(400) < 2.2 * count(200)


@pytest.mark.parametrize("shape", ["residual", "quantized", "transformer"])
def test_what_lies_between_two_values_is_what_is_behind_one_and_before_the_other(shape: str) -> None:
    nodes = list(long_graph(shape, 60))
    steps = steps_of(nodes)
    values = [v for n in nodes for v in n.outputs][::7]
    for begin in values:
        for end in values:
            both = downstream(nodes, [begin, values[0]]) & upstream(nodes, end)
            assert between(steps, [begin, values[0]], end) == both


def test_shapes_that_are_all_known_are_not_inferred_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = long_graph("transformer", 100)
    monkeypatch.setattr(preparing, "infer", None)
    assert TokenPositions(graph).streams()


@pytest.mark.parametrize("batch", ["N", 1])
def test_a_graph_with_open_sizes_is_copied_where_they_are_settled(batch: int | str) -> None:
    net = Net()
    net.op("Relu", net.conv(net.input("x", [batch, 3, 32, 32]), (3, 4)), out="y")
    graph = prepare(load(net.model({"y": None})).model).graph
    sized = with_shapes(graph, {"x": (1, 3, 32, 32)})
    assert list(sized.outputs[0].shape or ()) == [1, 4, 32, 32]
    assert (sized is graph) == (batch == 1)


def open_sizes_model() -> ir.Graph:
    """Return a graph that reshapes what a convolution makes by the size that it has in the run, and back to a map."""
    net = Net()
    x = net.conv(net.input("x", ["N", 3, "H", "W"]), (3, 7), stride=2)
    tokens = net.op("Reshape", x, net.ints(0, 7, -1))
    net.op("Sigmoid", net.op("Reshape", tokens, net.op("Shape", x)), out="y")
    return prepare(load(net.model({"y": ["N", 7, "h", "w"]})).model).graph


def test_open_sizes_that_are_settled_at_once_are_inferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred: list[ir.Model] = []
    original = preparing.infer
    graph = open_sizes_model()
    monkeypatch.setattr(preparing, "infer", lambda model: (inferred.append(model), original(model)))
    sized = with_shapes(graph, {"x": (2, 3, 32, 48)})
    assert [list(node.outputs[0].shape or ()) for node in sized if node.op_type == "Reshape"] == [
        [2, 7, 384],
        [2, 7, 16, 24],
    ]
    assert len(inferred) == 1


def test_open_sizes_are_settled_once_for_all_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[ir.Graph] = []
    graph = open_sizes_model()
    monkeypatch.setattr(sizes, "with_shapes", lambda *args: (settled.append(args[0]), with_shapes(*args))[1])
    (head,) = find_heads(graph)
    assert head.count == 7
    assert len(settled) == 1


def calls_for_heads(columns: int) -> int:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, columns)))
    for _ in range(5):
        x = net.op("Transpose", net.op("Add", x, x), perm=[0, 1, 3, 2])
    net.op("MatMul", net.op("GlobalAveragePool", x), net.random(1, 1), out="y")
    graph = prepare(load(net.model({"y": None})).model).graph
    find_heads(graph)
    return calls_of(lambda: find_heads(graph))


def test_columns_of_one_history_are_looked_at_once_however_many_there_are() -> None:
    assert calls_for_heads(2000) < 1.2 * calls_for_heads(20)


def test_positions_along_all_axes_are_moved_by_one_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    original = onnx.reference.ReferenceEvaluator.__init__

    def counting(self: Any, *args: Any, **options: Any) -> None:
        built.append(args[0])
        original(self, *args, **options)

    net = Net()
    x = net.conv(net.input("x", [1, 3, 8, 8]), (3, 4), stride=2)
    tokens = net.op("Reshape", x, net.ints(1, 4, 16), out="tokens")
    graph = prepare(load(net.model({tokens: None})).model).graph
    monkeypatch.setattr(onnx.reference.ReferenceEvaluator, "__init__", counting)
    layout = TokenPositions(graph).layout("tokens")
    assert layout is not None
    assert layout.token_grid is not None
    assert layout.token_grid.shape == (4, 4)
    assert len(built) == 1


@pytest.mark.parametrize("shape", ["detector", *(slow(shape) for shape in SHAPES if shape != "detector")])
def test_the_score_and_the_layers(shape: str) -> None:
    operator, classes, count = EXPECTED[shape]
    graph = prepare(load(long_model(shape)).model).graph
    score = find_score(graph)
    layers = choose(graph, score, ["auto"])
    assert score.count == classes
    assert len(layers) == count
    assert {node.op_type for layer in layers if (node := layer.value.producer())} == {operator}


@pytest.mark.slow
def test_a_chain_is_longer_than_the_stack_of_the_interpreter() -> None:
    graph = prepare(load(long_model("chain", 2 * sys.getrecursionlimit())).model).graph
    assert constant(graph.outputs[0]) is None
    (layer,) = choose(graph, find_score(graph), ["auto"])
    assert layer.value is list(graph)[-4].outputs[0]


@pytest.mark.parametrize("shape", ["residual", "dense", "quantized", "transformer"])
def test_steps_lead_where_walks_over_all_nodes_do(shape: str) -> None:
    graph = prepare(load(long_model(shape, 60)).model).graph
    nodes = list(graph)
    steps = steps_of(nodes)
    for value in [v for n in nodes for v in n.outputs][::5]:
        assert spread([value], steps.after) == downstream(nodes, [value])
        assert spread([value], steps.before) == upstream(nodes, value)
    sinks = [n.outputs[0] for n in nodes[-3:]]
    assert upstream(nodes, *sinks) == set().union(*(upstream(nodes, sink) for sink in sinks))


@pytest.mark.slow
def test_the_cost_of_a_look_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(long_model("residual", 40), path)
    found = bench_analysis.cost(path, rounds=1)
    assert found.nodes == len(onnx.load(path).graph.node)
    assert all(seconds > 0 for seconds in (found.load, found.prepare, found.analysis, found.inspect))
    assert "*" in bench_analysis.line(replace(found, analysis=0.21))
    assert "*" not in bench_analysis.line(replace(found, analysis=0.19, inspect_processor=1.9))
