"""The values that all paths go through, and the smallest sets of them, against every path and every set there is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.paths import bottlenecks, smallest_cut
from onnx_gradcam.graph.flow import carriers, upstream

F = ir.DataType.FLOAT


def random_graph(rng: np.random.Generator) -> tuple[list[ir.Node], list[ir.Value], ir.Value]:
    """Up to twelve nodes of one to three inputs, some of two outputs, some without gradient."""
    inputs = [ir.val(f"x{i}", dtype=F) for i in range(rng.integers(1, 3))]
    values, nodes = list(inputs), []
    for k in range(rng.integers(3, 13)):
        chosen = [values[i] for i in rng.integers(max(len(values) - 4, 0), len(values), rng.integers(1, 4))]
        outputs = [ir.val(f"v{k}_{i}", dtype=F) for i in range(1 + int(rng.random() < 0.15))]
        nodes.append(ir.node("Floor" if rng.random() < 0.1 else "Sum", chosen, outputs=outputs))
        values.extend(outputs)
    return nodes, inputs, values[-1]


def paths(value: ir.Value, inputs: list[ir.Value]) -> Iterator[list[ir.Value]]:
    """Every differentiable path from an input to ``value``, one after the other."""
    if value in inputs:
        yield [value]
    node = value.producer()
    if node is not None:
        for _, before in carriers(node):
            yield from ([*path, value] for path in paths(before, inputs))


def test_bottlenecks_are_on_every_path() -> None:
    rng = np.random.default_rng(0)
    found_some = 0
    for _ in range(300):
        nodes, inputs, score = random_graph(rng)
        every = [set(path) for path in paths(score, inputs)]
        expected = set.intersection(*every) - set(inputs) if every else set()
        found = bottlenecks(nodes, inputs, [score])
        assert set(found) == expected
        assert found == [v for node in nodes for v in node.outputs if v in expected], "in graph order"
        found_some += len(expected) > 1
    assert found_some > 50


def test_bottlenecks_of_a_deep_dense_network_are_counted_quickly() -> None:
    """2⁴⁰⁰ paths."""
    x = value = ir.val("x", dtype=F)
    nodes = []
    for k in range(400):
        nodes.append(ir.node("Add", [value, value], outputs=[ir.val(f"v{k}", dtype=F)]))
        value = nodes[-1].outputs[0]
    assert bottlenecks(nodes, [x], [value]) == [node.outputs[0] for node in nodes]


def test_no_other_set_is_smaller_or_deeper() -> None:
    rng = np.random.default_rng(1)
    sizes = []
    for _ in range(300):
        nodes, inputs, score = random_graph(rng)
        every = [set(path) for path in paths(score, inputs)]
        values = [v for node in nodes for v in node.outputs if v is not score and rng.random() < 0.7]
        expected = next(
            (
                sets
                for count in range(len(values) + 1)
                if (sets := [set(c) for c in itertools.combinations(values, count) if all(p & set(c) for p in every)])
            ),
            [set[ir.Value]()],
        )
        found = smallest_cut(nodes, inputs, [score], values)
        sizes.append(len(found))
        assert set(found) in expected
        assert found == [v for v in values if v in found], "in graph order"
        before = {v: upstream(nodes, v) - {v} for v in values}
        for other in expected:
            assert not any(a in before[b] for a in set(found) - other for b in other - set(found)), "another is deeper"
    assert sizes.count(1) > 50
    assert sizes.count(2) > 20


def test_two_long_branches_are_cut_quickly() -> None:
    """2 · 2²⁰⁰ paths."""
    x = ir.val("x", dtype=F)
    nodes, ends = [], []
    for branch in range(2):
        value = x
        for k in range(200):
            nodes.append(ir.node("Add", [value, value], outputs=[ir.val(f"v{branch}_{k}", dtype=F)]))
            value = nodes[-1].outputs[0]
        ends.append(value)
    nodes.append(ir.node("Add", ends, outputs=[ir.val("y", dtype=F)]))
    values = [v for node in nodes[:-1] for v in node.outputs]
    assert smallest_cut(nodes, [x], nodes[-1].outputs, values) == ends
    assert smallest_cut(nodes, [x], nodes[-1].outputs, values[:200]) == []
