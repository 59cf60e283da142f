"""One walk over a graph that says for the entries of every value where they come from and what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from onnx_gradcam.anatomy.entries import computed, moved, overwritten
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.graph.operators import OPERATORS, AxisEffect

Rule = Callable[[ir.Node, Mapping[ir.Value, Entries]], list[Entries | None]]

RULES: Mapping[AxisEffect, Rule] = {
    AxisEffect.COPIED: computed.copied,
    AxisEffect.REQUANTIZED: computed.copied,
    AxisEffect.POINTWISE: computed.arithmetic,
    AxisEffect.SQUASHED: computed.softmax,
    AxisEffect.JOINED: moved.joined,
    AxisEffect.CUT: moved.cut,
    AxisEffect.RESIZED: moved.resampled,
    AxisEffect.PADDED: moved.resampled,
    AxisEffect.POOLED: moved.resampled,
    AxisEffect.REDUCED: moved.reduced,
    AxisEffect.CONVOLVED: computed.convolved,
    AxisEffect.REGROUPED: moved.regrouped,
    AxisEffect.TRANSPOSED: moved.reordered,
    AxisEffect.RESHAPED: moved.reordered,
    AxisEffect.REPEATED: moved.repeated,
    AxisEffect.OVERWRITTEN: overwritten.overwritten,
    AxisEffect.CONTRACTED: computed.contracted,
    AxisEffect.MULTIPLIED: computed.multiplied,
}
EFFECTS: Mapping[str, AxisEffect] = {op_type: effect for effect, ops in OPERATORS.items() for op_type in ops}
OWN_RULES: Mapping[str, Rule] = {
    "DynamicQuantizeLinear": computed.copied,
    "Gather": moved.gathered,
    "GatherND": overwritten.gathered_rows,
    "QLinearSigmoid": computed.sigmoid,
    "Sigmoid": computed.sigmoid,
    "Slice": moved.cut,
}
# Operators whose entries begin there, whatever is known of what they read.
BEGINNINGS = frozenset((AxisEffect.CONVOLVED, AxisEffect.CONTRACTED, AxisEffect.MULTIPLIED, AxisEffect.SQUASHED))


def follow(nodes: Iterable[ir.Node]) -> dict[ir.Value, Entries]:
    """Return the entries of all values whose columns are known; ``nodes`` in topological order."""
    known: dict[ir.Value, Entries] = {}
    for node in nodes:
        rule = _rule(node, known)
        if rule is not None:
            made = zip(node.outputs, rule(node, known), strict=False)
            known.update({value: entries for value, entries in made if entries is not None})
    return known


def _rule(node: ir.Node, known: Mapping[ir.Value, Entries]) -> Rule | None:
    """Return the rule for ``node``, where it has one and something is known of what it reads."""
    if node.domain not in ("", "ai.onnx", "com.microsoft") or node.op_type not in EFFECTS:
        return None
    effect = EFFECTS[node.op_type]
    reads_known = (
        any(v in known for v in node.inputs) if effect in ANY_INPUT else bool(node.inputs) and node.inputs[0] in known
    )
    if effect not in BEGINNINGS and not reads_known:
        return None
    return OWN_RULES.get(node.op_type) or RULES.get(effect)


ANY_INPUT = frozenset((AxisEffect.JOINED, AxisEffect.OVERWRITTEN, AxisEffect.POINTWISE))
