"""The analysis of networks of hundreds of nodes: its price grows with them, and none is too long."""

from __future__ import annotations

import cProfile
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_analysis
import onnx
import pytest
from long_nets import SHAPES, long_model

from onnx_gradcam.anatomy.layers import candidates, choose
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import downstream, spread, steps_of, upstream
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

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


def calls(shape: str, nodes: int) -> int:
    """Return how many calls the analysis of a network takes: its price, whatever else the machine does."""
    graph = prepare(load(long_model(shape, nodes)).model).graph
    profile = cProfile.Profile()
    profile.enable()
    candidates(graph, find_score(graph))
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize("shape", ["transformer", *(slow(shape) for shape in SHAPES if shape != "transformer")])
def test_an_analysis_takes_twice_the_time_for_twice_the_nodes(shape: str) -> None:
    calls(shape, 100)  # what is imported on the way
    assert calls(shape, 300) < 2.5 * calls(shape, 150)


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
