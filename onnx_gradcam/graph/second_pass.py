"""A graph that computes everything twice: of its inputs, and of a baseline of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.graph.flow import captured
from onnx_gradcam.graph.names import at_baseline, claim, names_in, values_by_name


@dataclass(frozen=True, eq=False)
class SecondPass:
    """A model with a second forward pass.

    Attributes:
        model: the model; its outputs are those of the first pass.
        names: name of a value of the first pass → name of the value in its place in the second one, for all that
            depends on the moving inputs; for these themselves the inputs that take the baseline.
    """

    model: ir.Model
    names: Mapping[str, str]


def baseline_inputs(graph: ir.Graph, moving: Sequence[str]) -> dict[str, str]:
    """Return what the inputs that take the baselines of the moving ones are called, by the names of these."""
    taken = names_in(graph)
    return {name: claim(at_baseline(name), taken) for name in moving}


def with_second_pass(model: ir.Model, moving: Sequence[str]) -> SecondPass:
    """Return a copy of a prepared model in which all that depends on some inputs is computed of other inputs, too.

    Constants and weights are shared.

    Args:
        model: the model; it is left as it is.
        moving: the names of the inputs that have a baseline.
    """
    first, second = model.clone(), model.clone().graph
    graph = first.graph
    values, taken = values_by_name(graph), names_in(graph)
    moved = {v for v in second.inputs if v.name in moving}
    nodes = []
    for node in second:
        if any(v in moved for v in [*node.inputs, *captured(node)]):
            moved.update(node.outputs)
            nodes.append(node)
    second.outputs.clear()
    for value in values_by_name(second).values():
        if value not in moved and value.name in values:
            value.replace_all_uses_with(values[value.name])
    names = baseline_inputs(graph, moving)
    taken |= {*names.values()}
    for value in [v for v in second.inputs if v.name in names]:
        twin = ir.val(names[value.name or ""], type=value.type, shape=value.shape)
        value.replace_all_uses_with(twin)
        graph.inputs.append(twin)
    second.remove(nodes)
    for node in nodes:
        node.name = claim(at_baseline(node.name or ""), taken)
        for value in node.outputs:
            if value.name:
                names[value.name] = claim(at_baseline(value.name), taken)
                value.name = names[value.name]
    graph.extend(nodes)
    return SecondPass(first, names)
