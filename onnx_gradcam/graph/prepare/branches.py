"""An If that always takes the same branch gives way to that branch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.names import values_by_name

RECURRENT = ("LSTM", "GRU", "RNN")


def inline_decided_ifs(graph: ir.Graph) -> bool:
    """Put the branch that is always taken in the place of each If of which it is known; whether there was one."""
    changed = False
    taken = set(values_by_name(graph))
    taken_by_nodes = {node.name for node in graph if node.name}
    for node in list(graph):
        if node.op_type != "If" or node.domain != "" or (branch := _taken(node)) is None:
            continue
        for value in list(branch.initializers.values()):
            branch.initializers.pop(value.name or "")
            _rename(value, taken)
            graph.register_initializer(value)
        results = list(branch.outputs)
        branch.outputs.clear()
        for inner in list(branch):
            branch.remove(inner)
            node.prepend(inner)
            _rename(inner, taken_by_nodes)
            for value in inner.outputs:
                _rename(value, taken)
                value.shape = None  # torch declares ranks of branches wrongly; it is inferred anew
        for before, after in zip(list(node.outputs), results, strict=True):
            before.replace_all_uses_with(after, replace_graph_outputs=True)
            before.name, after.name = None, before.name
        graph.remove(node, safe=True)
        changed = True
    return changed


def _taken(node: ir.Node) -> ir.Graph | None:
    """Return the branch that is always taken: by the condition, or because what reads the result bears no other rank.

    torch writes ``squeeze(2)`` of images of any size as an If of a Squeeze and an Identity.
    """
    branches = [node.attributes[name].as_graph() for name in ("else_branch", "then_branch")]
    if (condition := constant(node.inputs[0])) is not None:
        return branches[bool(condition.item())]
    ranks = [_rank(branch) for branch in branches]
    wanted = {_wanted(use.node, use.idx) for use in node.outputs[0].uses()} - {None}
    if None in ranks or ranks[0] == ranks[1] or len(wanted) != 1:
        return None
    fitting = [branch for branch, rank in zip(branches, ranks, strict=True) if rank in wanted]
    return fitting[0] if fitting else None


def _rank(branch: ir.Graph) -> int | None:
    """Return the rank of what a branch of one Squeeze or Identity returns; those that torch declares are wrong."""
    if len(branch) != 1 or branch[0].op_type not in ("Squeeze", "Identity"):
        return None
    source, *axes = branch[0].inputs
    shape = None if source is None else source.shape
    given = constant(axes[0]) if axes else np.zeros(0)
    if shape is None or given is None or (branch[0].op_type == "Squeeze" and not axes):
        return None
    return len(shape) - given.size


def _wanted(reader: ir.Node, position: int) -> int | None:
    """Return the rank that the operator ``reader`` needs in this place, where it needs one."""
    if reader.op_type == "Transpose" and "perm" in reader.attributes:
        return len(reader.attributes["perm"].as_ints())
    return 3 if position == 0 and reader.op_type in RECURRENT else None


def _rename(named: ir.Value | ir.Node, taken: set[str]) -> None:
    """Give a value or a node a name that is free: those of one branch may stand in branches of another If, too."""
    name = named.name or ""
    number = 1
    while named.name in taken:
        number += 1
        named.name = f"{name}_{number}"
    if named.name:
        taken.add(named.name)
