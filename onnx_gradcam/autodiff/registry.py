"""The table of VJP rules and the one way to call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import onnx_ir as ir

from onnx_gradcam.autodiff import guard
from onnx_gradcam.autodiff.broadcast import fill, sum_to
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.attributes import keyword_arguments, signature_of
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import TWINS
from onnx_gradcam.graph.flow import carriers

COMPOSITE = "several nodes"  # the "operator" of the rule for activations that are written as several nodes
EACH = -1  # stands for any input: the rule learns which one as the keyword ``i``

KNOWN = ("ai.onnx", "com.microsoft", "com.ms.internal")

Key = tuple[str, int]
F = TypeVar("F", bound=Callable[..., Value])


@dataclass(frozen=True)
class Rule:
    """One VJP rule, and how it is called.

    A rule that ``broadcasts`` takes a cotangent whose size-1 axes still broadcast to y; for all others it is expanded.
    A ``multi`` rule is given the cotangents and values of all outputs, as tuples with None where no cotangent arrives.
    A ``nested`` rule differentiates the nodes of a body, and is given the walk for them as the keyword ``pull_back``.
    A rule that is not the gradient for some activations has ``gates``, which tells which: it takes the activation's
    output and, for an activation that is written as several nodes, these.
    A rule that carries nothing back through some nodes has ``stops``, which tells which: it takes the node and the
    position of the input.
    """

    function: Callable[..., Value]
    signature: inspect.Signature
    broadcasts: bool
    multi: bool
    nested: bool
    gates: Callable[..., bool] | None = None
    stops: Callable[[ir.Node, int], bool] | None = None


Rules = Mapping[Key, Rule]


class PullBack(Protocol):
    """The backward walk by one table of rules: ``walk.pull_back`` with the table filled in."""

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
    """Return a decorator that registers a function as the VJP rule of one input of an operator.

    Args:
        op_type: the ai.onnx operator.
        wrt: the position of the input, or EACH.
        broadcasts: see ``Rule``.
        multi: see ``Rule``.
        nested: see ``Rule``.
        table: where the rule is registered.

    Raises:
        ValueError: the table has a rule for this input.
    """

    def register(function: F) -> F:
        if (op_type, wrt) in table:
            raise ValueError(f"two VJP rules for {op_type}, input {wrt}")
        table[op_type, wrt] = Rule(function, signature_of(function), broadcasts, multi, nested)
        return function

    return register


def find(rules: Mapping[Key, Rule], node: ir.Node, i: int) -> tuple[Rule, dict[str, int]] | None:
    """Return the rule for input ``i`` of ``node`` and the keyword that an EACH rule takes; None where there is none."""
    if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in TWINS:
        return None
    if (rule := rules.get((node.op_type, i))) is not None:
        return rule, {}
    if (rule := rules.get((node.op_type, EACH))) is not None:
        return rule, {"i": i}
    return None


def stops(rules: Mapping[Key, Rule], node: ir.Node, i: int) -> bool:
    """Tell whether a table carries nothing back through input ``i`` of ``node``."""
    match = find(rules, node, i)
    return match is not None and match[0].stops is not None and match[0].stops(node, i)


def apply(rules: Rules, op: Builder, node: ir.Node, i: int, gs: Sequence[Value | None], pull_back: PullBack) -> Value:
    """Return the cotangent of ``node.inputs[i]``, written by the rule for this input.

    Args:
        rules: the table.
        op: writes the nodes.
        node: the forward node.
        i: the position of the input.
        gs: the cotangents of the outputs, None for those that are not on the path.
        pull_back: the walk by the same table, for rules that differentiate the nodes of a body.

    Raises:
        UnsupportedGradient: no rule fits; the error names the node.
    """
    match = find(rules, node, i)
    if match is None:
        raise refusal(node, i, "no VJP rule")
    rule, extra = match
    if not rule.multi and any(g is not None for g in gs[1:]):
        raise refusal(node, i, "no VJP rule for an output other than the first")
    if not rule.broadcasts:
        gs = [None if g is None else op.expand(g, y) for g, y in zip(gs, node.outputs, strict=True)]
    ys, inputs = _operands(op, node, rule)
    g, x = gs[0], inputs[i] if guard.is_singular(node, i) else None
    if g is None or x is None:
        return call(rule, op, node, i, (gs, ys, inputs), extra, pull_back)
    if sum(v is not None for v in inputs) == 1:  # nothing is broadcast, and the rank need not be known
        return guard.mask(op, g, call(rule, op, node, i, (gs, ys, inputs), extra, pull_back))
    inputs[i] = fill(op, x, ys[0], range(rank(ys[0])))  # the sum over broadcast axes comes after the mask
    share = guard.mask(op, g, call(rule, op, node, i, (gs, ys, inputs), extra, pull_back))
    return sum_to(op, share, like=x, full=ys[0])


def _operands(op: Builder, node: ir.Node, rule: Rule) -> tuple[list[Value], list[Value | None]]:
    """Return the outputs and inputs of ``node`` as its rule shall read them."""
    inputs = [op.exact(v) for v in node.inputs]
    if rule.multi:
        return list(node.outputs), inputs
    ys = [guard.repair(op, node, y) for y in node.outputs]
    return ys, [None if v is None else guard.repair(op, node, v) for v in inputs]


def call(
    rule: Rule,
    op: Builder,
    node: ir.Node,
    i: int,
    values: tuple[Sequence[Value | None], Sequence[Value], Sequence[Value | None]],
    extra: Mapping[str, int],
    pull_back: PullBack,
) -> Value:
    """Return what a rule writes for input ``i``, given the cotangents, outputs and inputs of ``node``.

    Args:
        rule: the rule.
        op: writes the nodes.
        node: the forward node, whose attributes the rule gets.
        i: the position of the input.
        values: the cotangents, the outputs and the inputs that the rule shall read.
        extra: the keyword that an EACH rule takes, as ``find`` returns it.
        pull_back: the walk by the same table.

    Raises:
        UnsupportedGradient: the rule was not written for this form of the operator.
    """
    gs, ys, inputs = values
    first = (tuple(gs), tuple(ys)) if rule.multi else (gs[0], ys[0])
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
    """A rule was not written for this form of the operator. Raised inside rules; ``apply`` names the node."""


class Refused(Unwritten):
    """No rule will be written for this form: it has no derivative that the runtimes agree on."""


def is_foreign(node: ir.Node) -> bool:
    """Tell whether no rule is meant to be written for ``node``.

    That holds for loops, sequences and strings, and for operators of other domains, which have no function body (one
    with a body is replaced by it before).
    """
    if node.domain in ("", "ai.onnx"):
        if node.op_type in ("Loop", "Scan"):
            return True
        return node.op_type.startswith(("Sequence", "SplitToSequence", "ConcatFromSequence", "String", "Optional"))
    return not node.domain.startswith(KNOWN)


def refusal(node: ir.Node, i: int, reason: str, by_design: bool = False) -> UnsupportedGradient:
    """Return the error for input ``i`` of ``node``.

    Args:
        node: the node without a rule.
        i: the position of the input.
        reason: what is missing; it begins the message.
        by_design: whether this is not meant to work. Otherwise it is merely missing.
    """
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
    value = dict(carriers(node))[i]
    what = f"input {i}" if i < len(node.inputs) else "a value that its body captures"
    return UnsupportedGradient(
        f"{reason} for {domain}{node.op_type}, {what}",
        where=f"node {node.name!r}, input {value.name!r}, output {node.outputs[0].name!r}",
        hint="a target layer after this node (--layer), or a method without gradients (reciprocam, eigencam)",
        op_type=node.op_type,
        domain=node.domain,
        node=node.name,
        input=i,
        by_design=by_design or is_foreign(node),
    )
