"""The forward pass of an exported program and torch's own gradient of its score, traced into one graph.

torch 2.13 does not export a module that calls ``torch.autograd.grad``. ``make_fx`` traces such a function operator by
operator, the backward ones among them, and what it gives can be exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from onnx_gradcam.errors import UnsupportedGradient


@dataclass(frozen=True)
class Chosen:
    """What is explained: the tensor of ``node``, read as ``graph.score.Score`` describes its ``kind``."""

    node: Any
    kind: str
    class_axis: int | None


def joint(program: Any, chosen: Chosen, names: Sequence[str], inputs: Sequence[str]) -> Any:
    """(inputs…, class index) → outputs…, score, class index, gradient of each of ``names``, activation of each layer.

    ``program`` returns the activations of those ``names`` that are no ``inputs`` behind its outputs. Raises
    ``UnsupportedGradient`` where a gradient goes through the weights of a convolution.
    """
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    given = [nodes[name] for name in signature.user_inputs]
    results = [nodes[name] for name in signature.user_outputs]
    layers = [name for name in names if name not in inputs]
    ends = results[: len(results) - len(layers)]
    at = {**dict(zip(inputs, given, strict=True)), **dict(zip(layers, results[len(ends) :], strict=True))}
    leaves = {at[name] for name in names}
    constants = _constants(program)

    def run(*arguments: Any) -> list[Any]:
        *tensors, index = arguments
        by_name = {**constants, **dict(zip(signature.user_inputs, tensors, strict=True))}
        interpreter = _Recorder(program.graph_module, leaves)
        with torch.enable_grad():
            interpreter.run(*(by_name[name] for name, node in nodes.items() if node.op == "placeholder"))
            found = interpreter.found
            score, explained = _class_score(found[chosen.node], index, chosen)
            gradients = torch.autograd.grad(score.sum(), [found[at[name]] for name in names])
        return [*(found[n] for n in ends), score, explained, *gradients, *(found[at[name]] for name in layers)]

    examples = [node.meta["val"] for node in given]
    # The fused kernels of attention have fused backward kernels, which nothing decomposes.
    with examples[0].fake_mode, sdpa_kernel(SDPBackend.MATH):
        traced = make_fx(run, _backward_decompositions(), tracing_mode="symbolic")(
            *examples, torch.zeros_like(_first_entries(examples[0]), dtype=torch.int64)
        )
    traced.graph.eliminate_dead_code()
    _refuse_weights(traced)
    traced.recompile()
    return traced.eval()


def _refuse_weights(traced: Any) -> None:
    """Raise ``UnsupportedGradient`` where a gradient goes through the weights of a convolution."""
    for node in traced.graph.nodes:
        if node.target is torch.ops.aten.convolution_backward.default and node.args[-1][1]:
            raise UnsupportedGradient(
                "torch's gradient with respect to the weights of a convolution has no translation",
                where=f"{node.name}: the weights depend on the target layer, or on an input that is asked for",
                hint="autodiff='onnx', or a layer behind that convolution",
                node=node.name,
            )


class _Recorder(torch.fx.Interpreter):  # type: ignore[misc]
    """Runs a program, keeps what each node gives, and lets gradients begin at ``leaves``."""

    def __init__(self, graph_module: Any, leaves: set[Any]) -> None:
        super().__init__(graph_module)
        self.leaves, self.found = leaves, dict[Any, Any]()

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the result of a call; how tensors lay in memory at the export is no part of what is computed."""
        if target is torch.ops.aten.view.default:
            args = (args[0].contiguous(), *args[1:])
        if target is torch.ops.aten.as_strided.default and _is_in_place(*args):
            return args[0]
        return super().call_function(target, args, kwargs)

    def run_node(self, n: Any) -> Any:
        value = super().run_node(n)
        if n in self.leaves and not value.requires_grad:
            value = value.detach().requires_grad_()
        self.found[n] = value
        return value


def _is_in_place(x: Any, size: Sequence[Any], stride: Sequence[Any], offset: int | None = None) -> bool:
    """Tell whether ``as_strided`` changes no entry's place: only strides of axes of length 1 differ."""
    if offset or len(size) != x.ndim:
        return False
    axes = zip(size, x.shape, stride, x.stride(), strict=True)
    return all(n == m and (s == t or (isinstance(n, int) and n == 1)) for n, m, s, t in axes)


def _class_score(y: Any, index: Any, chosen: Chosen) -> tuple[Any, Any]:
    """Return the score (N,) of class ``index``, −1 for top-1, and the class (N,), as ``targets.class_score`` does."""
    if chosen.kind == "regression":
        return y.reshape(-1), torch.zeros_like(index)
    if chosen.kind == "binary":
        z = y.reshape(-1)
        explained = torch.where(index < 0, (z > 0).to(index.dtype), index)
        return z * (2 * explained.to(z.dtype) - 1), explained
    assert chosen.class_axis is not None
    scores = y.reshape(y.shape[0], y.shape[chosen.class_axis])
    explained = torch.where(index < 0, scores.argmax(1), index)
    return scores.gather(1, explained[:, None])[:, 0], explained


def _first_entries(x: Any) -> Any:
    """Return the first entry of each row of ``x`` (N, …), as (N,)."""
    while x.ndim > 1:
        x = x[:, 0]
    return x


def _constants(program: Any) -> dict[str, Any]:
    """Return parameters, buffers and constants by the names of their placeholders, without gradient."""
    signature = program.graph_signature
    tensors = {**program.constants, **program.state_dict}
    tables = (signature.inputs_to_parameters, signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants)
    return {name: tensors[target].detach() for table in tables for name, target in table.items()}


def _backward_decompositions() -> dict[Any, Any]:
    """Return torch's decompositions of backward operators: the exporter decomposes most of these, but not SiLU's."""
    return {op: rule for op, rule in torch.export.default_decompositions().items() if "backward" in op.name()}
