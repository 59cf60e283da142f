"""The kernels of onnxruntime's CUDA provider, from a table: no GPU and no onnxruntime-gpu is needed to ask.

``make placement`` writes ``cuda_kernels.json``, from what the onnxruntime-gpu wheel registers: operator → kernels, each
the first opset, the last (null: open) and the element types that its type parameters may take.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import onnx
import onnx_ir as ir

Kernel = tuple[int, int | None, Mapping[str, str]]


@functools.cache
def _table() -> Mapping[str, Any]:
    text = resources.files("onnx_gradcam.jobs").joinpath("cuda_kernels.json").read_text("utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def version() -> str:
    """Return the version of onnxruntime-gpu that the table was read from."""
    return str(_table()["onnxruntime"])


def without_kernel(nodes: Iterable[ir.Node], opsets: Mapping[str, int]) -> tuple[str, ...]:
    """Return the operators that the provider leaves to the CPU, as "MaxPool of opset 22 in float".

    Constants are not computed, and never named.
    """
    named = {_describe(n, opsets) for n in nodes if n.op_type != "Constant" and not _has_kernel(n, opsets)}
    return tuple(sorted(named))


def _has_kernel(node: ir.Node, opsets: Mapping[str, int]) -> bool:
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    kernels: Sequence[Kernel] = _table()["kernels"].get(name, ())
    since, types = _since(node, opsets), list(_types(node, opsets))
    return any(
        # as onnxruntime decides: an open range is of the operator as it was then, not of later versions
        (first == since or (last is not None and first <= since <= last))
        and all(found in allowed[parameter].split() for parameter, found in types if parameter in allowed)
        for first, last, allowed in kernels
    )


def _schema(node: ir.Node, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    newest = opsets.get(node.domain, 1)
    known = onnx.defs.has(node.op_type, newest, node.domain)
    return onnx.defs.get_schema(node.op_type, newest, node.domain) if known else None


def _since(node: ir.Node, opsets: Mapping[str, int]) -> int:
    schema = _schema(node, opsets)
    return schema.since_version if schema else 1


def _types(node: ir.Node, opsets: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield (type parameter, element type) of inputs and outputs, where both are known."""
    schema = _schema(node, opsets)
    if schema is None:
        return
    for formal, values in [(schema.inputs, node.inputs), (schema.outputs, node.outputs)]:
        for i, value in enumerate(values):
            if value is not None and value.dtype is not None:
                yield formal[min(i, len(formal) - 1)].type_str, value.dtype.name.lower()


def _describe(node: ir.Node, opsets: Mapping[str, int]) -> str:
    domain = f"{node.domain}::" if node.domain else ""
    first = next((v for v in [*node.inputs, *node.outputs] if v is not None and v.dtype is not None), None)
    kind = f" in {first.dtype.name.lower()}" if first is not None and first.dtype is not None else ""
    return f"{domain}{node.op_type} of opset {_since(node, opsets)}{kind}"
