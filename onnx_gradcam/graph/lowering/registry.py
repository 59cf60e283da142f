"""The table of lowerings, and the one way to call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import onnx_ir as ir

from onnx_gradcam.graph.attributes import keyword_arguments, signature_of
from onnx_gradcam.graph.builder import Builder, Value

Lowering = Callable[..., Value | tuple[Value | None, ...]]
F = TypeVar("F", bound=Lowering)

MICROSOFT = "com.microsoft"
LOWERINGS: dict[tuple[str, str], Lowering] = {}


class Unlowered(Exception):
    """A lowering was not written for this form of the operator. Raised inside lowerings."""


def lowering(op_type: str, *, domain: str = "") -> Callable[[F], F]:
    """Return a decorator that registers the standard form of an operator.

    The function takes the Builder, the inputs of the node and, by keyword, its attributes. It returns what stands for
    the outputs: one value or a tuple, with None for an output that no gradient comes from. For a quantized output it
    may return the integers or the real numbers that they stand for.

    Args:
        op_type: the operator.
        domain: its domain; "" is ai.onnx.
    """

    def register(function: F) -> F:
        if (domain, op_type) in LOWERINGS:
            raise ValueError(f"two lowerings of {domain}::{op_type}")
        LOWERINGS[domain, op_type] = function
        return function

    return register


def find(node: ir.Node) -> Lowering | None:
    """Return the lowering of ``node``, or None."""
    return LOWERINGS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def call(function: Lowering, op: Builder, node: ir.Node) -> tuple[Value | None, ...]:
    """Return what ``function`` writes for ``node``, one value for each output; None for those it does not write."""
    signature = signature_of(function)
    try:
        attributes = keyword_arguments(signature, {a.name: a.value for a in node.attributes.values()})
        bound = signature.bind(op, *node.inputs, **attributes)
    except TypeError as error:
        raise Unlowered(f"no VJP rule for this form ({error})") from None
    results = function(*bound.args, **bound.kwargs)
    values = results if isinstance(results, tuple) else (results,)
    return (*values, *[None] * len(node.outputs))[: len(node.outputs)]
