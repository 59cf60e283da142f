"""The table of VJP rules and the one way to call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import onnx_ir as ir

from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.attributes import keyword_arguments, signature_of
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import TWINS
from onnx_gradcam.graph.flow import carriers

COMPOSITE = "several nodes"  # in place of an operator: the rule of an activation that is written as several nodes
EACH = -1  # "any input": the rule learns which one as the keyword ``i``

KNOWN = ("ai.onnx", "com.microsoft", "com.ms.internal")

Key = tuple[str, int]
F = TypeVar("F", bound=Callable[..., Value])


@dataclass(frozen=True)
class Rule:
    """One VJP rule.

    ``broadcasts``: takes a cotangent whose size-1 axes still broadcast to y (all others get it expanded).
    ``multi``: is given the cotangents and values of all outputs, as tuples with None where none arrives.
    ``nested``: differentiates nodes of a body or of its own, and is given the walk for them as the keyword
    ``pull_back``.
    """

    function: Callable[..., Value]
    signature: inspect.Signature
    broadcasts: bool
    multi: bool
    nested: bool


Rules = Mapping[Key, Rule]


class PullBack(Protocol):
    """The backward walk by one table of rules, as ``walk.pull_back`` is with the table filled in."""

    def __call__(
        self, op: Builder, nodes: Sequence[ir.Node], seeds: Mapping[Value, Value], wrt: Sequence[Value]
    ) -> list[Value]:
        """Append the nodes that carry ``seeds`` (output → cotangent) back, and return the cotangents of ``wrt``."""


RULES: dict[Key, Rule] = {}


def vjp(
    op_type: str,
    *,
    wrt: int,
    broadcasts: bool = False,
    multi: bool = False,
    nested: bool = False,
    table: dict[Key, Rule] = RULES,
) -> Callable[[F], F]:
    """Register the rule for input ``wrt`` of the ai.onnx operator ``op_type``."""

    def register(function: F) -> F:
        if (op_type, wrt) in table:
            raise ValueError(f"two VJP rules for {op_type}, input {wrt}")
        table[op_type, wrt] = Rule(function, signature_of(function), broadcasts, multi, nested)
        return function

    return register


def find(rules: Mapping[Key, Rule], node: ir.Node, i: int) -> tuple[Rule, dict[str, int]] | None:
    """The rule for input ``i`` of ``node`` and the keyword that an EACH rule takes, or None."""
    if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in TWINS:
        return None
    if (rule := rules.get((node.op_type, i))) is not None:
        return rule, {}
    if (rule := rules.get((node.op_type, EACH))) is not None:
        return rule, {"i": i}
    return None


def apply(rules: Rules, op: Builder, node: ir.Node, i: int, gs: Sequence[Value | None], pull_back: PullBack) -> Value:
    """The cotangent of ``node.inputs[i]``, given those of the outputs (None: not on the path).

    ``pull_back``: the walk by the same rules, for a rule that differentiates the nodes of a body.
    Raises ``UnsupportedGradient``, naming the node, where no rule fits.
    """
    found = find(rules, node, i)
    if found is None:
        raise refusal(node, i, "no VJP rule")
    rule, extra = found
    ys = node.outputs
    if not rule.multi and any(g is not None for g in gs[1:]):
        raise refusal(node, i, "no VJP rule for an output other than the first")
    if not rule.broadcasts:
        gs = [None if g is None else op.expand(g, y) for g, y in zip(gs, ys, strict=True)]
    first = (tuple(gs), tuple(ys)) if rule.multi else (gs[0], ys[0])
    inputs = [op.exact(v) for v in node.inputs]
    walk = {"pull_back": pull_back} if rule.nested else {}
    try:
        attributes = keyword_arguments(rule.signature, {a.name: a.value for a in node.attributes.values()})
        bound = rule.signature.bind(op, *first, *inputs, **attributes, **extra, **walk)
    except TypeError as error:
        raise refusal(node, i, f"the VJP rule does not know this form ({error})") from None
    try:
        return rule.function(*bound.args, **bound.kwargs)
    except Unwritten as reason:
        raise refusal(node, i, str(reason), by_design=isinstance(reason, Refused)) from None


class Unwritten(Exception):
    """Raised inside a rule for a form of the operator that it was not written for; ``apply`` names the node."""


class Refused(Unwritten):
    """The same for a form that no rule will be written for: without a derivative that the runtimes agree on."""


def is_foreign(node: ir.Node) -> bool:
    """Whether no rule is meant to be written: loops, sequences, strings, and operators of other domains, which have no
    body (one with a body is replaced by it before)."""
    if node.domain in ("", "ai.onnx"):
        if node.op_type in ("Loop", "Scan"):
            return True
        return node.op_type.startswith(("Sequence", "SplitToSequence", "ConcatFromSequence", "String", "Optional"))
    return not node.domain.startswith(KNOWN)


def refusal(node: ir.Node, i: int, reason: str, by_design: bool = False) -> UnsupportedGradient:
    """The error for input ``i`` of ``node``; its ``by_design`` tells what is not meant to work from what is missing."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
    value = dict(carriers(node))[i]
    what = f"input {i}" if i < len(node.inputs) else "a value that its body captures"
    return UnsupportedGradient(
        f"{reason} for {domain}{node.op_type}, {what}",
        where=f"node {node.name!r}, input {value.name!r}, output {node.outputs[0].name!r}",
        hint="a target layer after this node (--layer), or a method without gradients (eigencam)",
        op_type=node.op_type,
        domain=node.domain,
        node=node.name,
        input=i,
        by_design=by_design or is_foreign(node),
    )
