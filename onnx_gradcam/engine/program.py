"""The gradient of a score written into the graph: one model, or its forward and its backward part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.autodiff.rectifiers.gating import Gating, summary, watch_activations
from onnx_gradcam.autodiff.rectifiers.operators import Activation
from onnx_gradcam.autodiff.registry import RULES, Key, Rule, Rules
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import HALF_PRECISION, Builder, Value, same_dim
from onnx_gradcam.graph.flow import captured, downstream, upstream
from onnx_gradcam.graph.names import (
    CLASS_OUTPUT,
    SCALE_INPUT,
    SCORE_OUTPUT,
    GradientNames,
    curvature_output,
    gradient_output,
    values_by_name,
)
from onnx_gradcam.graph.quantization import behind_layers, quantized_form
from onnx_gradcam.targets import kinds
from onnx_gradcam.targets.kinds import Kind
from onnx_gradcam.targets.written import WrittenScore

Table = Rules | Callable[[Sequence[ir.Node]], Rules]
"""The rules of a way back, or what makes them for the nodes of a graph."""

Finish = Callable[[Builder, Value, Value], Value]
"""Writes what is made of the cotangent of a value, and of the value, in the end."""


@dataclass(frozen=True)
class GradientGraph:
    """A model whose extra outputs are activations and gradients.

    Where the gradient passes through float16 or bfloat16, a further input, ``grad_scale`` (float32, no axes),
    multiplies the cotangent of the score, and with it every gradient: small ones would be rounded to zero.

    Attributes:
        model: the model.
        outputs: the names of the deployed model's outputs.
        scores: the names of the score tensor and of what goes with it.
        activations: the names of the values that gradients are taken with respect to.
        names: what the score, the gradients and the inputs beside the model's own are called.
        backward: the nodes that were added, in order: the score of the target and its way back.
        gating: the activations on the way back; a plain gradient leaves all of them alone.
    """

    model: ir.Model
    outputs: tuple[str, ...]
    scores: tuple[str, ...]
    activations: tuple[str, ...]
    names: GradientNames
    backward: tuple[ir.Node, ...]
    gating: Gating

    @property
    def gradients(self) -> tuple[str, ...]:
        """Return the names of the outputs that hold gradients and, where there are, curvatures."""
        return (*self.names.gradients.values(), *self.names.curvatures.values())

    @property
    def is_scaled(self) -> bool:
        """Tell whether the gradients are to be divided by the input ``grad_scale``."""
        return SCALE_INPUT in self.names.inputs


def differentiate(
    prepared: ir.Model,
    score: WrittenScore,
    names: Sequence[str],
    table: Table = RULES,
    kind: Kind = kinds.CLASS,
    second_order: bool = False,
    sign: int = 1,
    through: Sequence[str] = (),
    finish: Finish | None = None,
) -> GradientGraph:
    """Write the gradient of a score with respect to some values into a copy of a model.

    Args:
        prepared: the model, as ``write_score`` returns it.
        score: its score.
        names: the names of the values.
        table: the rules of the way back.
        kind: the kind of target whose score is differentiated.
        second_order: also write the product of the Hessian with each value.
        sign: −1 to carry back −score, which is not the negative by other tables than RULES: ``rectifiers.gating``'s
            GUIDED_RULES and DECONVOLUTION_RULES.
        through: for each value the name of another score tensor, of which its gradient is in the place of ``score``;
            none: all gradients are of ``score``.
        finish: what is made of each cotangent in the end; None: nothing.

    Raises:
        UnsupportedGradient: a node on the way back has no rule.
        NoGradientPath: the score does not depend on a value.
    """
    model = prepared.clone()
    graph = model.graph
    values = values_by_name(graph)
    score = score.on(values)
    targets = [values[name] for name in names]
    wrt = [quantized_form(target) for target in targets]
    outputs = tuple(v.name or "" for v in graph.outputs)
    forward = list(graph)
    op = Builder(graph)
    written = write_target(op, score, kind)
    others = [replace(score, value=values[name]) for name in through]
    explained = [kind.write(op, other, written.parameters, *kind.options)[0] for other in others] or [written.score]
    nodes = list(graph)
    begin, scale = _seed(op, written.score, any(_is_narrow(nodes, wrt, value) for value in explained))
    seen: dict[str, tuple[Activation, bool]] = {}
    unsaturated = behind_layers(
        [v.value for v in (score, *others)] + [values[v.name or ""] for v in score.described.sinks]
    )
    rules = table(nodes) if callable(table) else table
    gradients: list[Value] = []
    for value, of in zip(explained, [[v] for v in wrt] if others else [wrt], strict=True):
        seed = op.expand(begin, value)
        seeds = {value: op.Neg(seed) if sign < 0 else seed}
        gradients += pull_back(op, nodes, seeds, of, watch_activations(rules, seen), unsaturated)
    if finish is not None:
        gradients = [finish(op, g, target) for g, target in zip(gradients, targets, strict=True)]
    called = GradientNames(
        score=_output(op, written.score, SCORE_OUTPUT),
        class_index=_output(op, written.class_index, CLASS_OUTPUT),
        inputs={**written.inputs, **scale},
        gradients=_outputs(op, gradients, targets, gradient_output),
        curvatures=_outputs(op, _curvatures(op, gradients, wrt, rules), targets, curvature_output)
        if second_order
        else {},
    )
    results = (*score.results, *read(score, kind).values())
    for extra in [*(values[name] for name in results), *targets]:
        if extra not in graph.outputs:
            graph.outputs.append(extra)
    RemoveUnusedNodesPass()(model)
    own = set(forward)
    added = tuple(node for node in graph if node not in own)
    return GradientGraph(model, outputs, results, tuple(names), called, added, summary(seen.values()))


def to_run(whole: GradientGraph) -> ir.Model:
    """Return the model without the outputs that are inputs, too: OpenVINO takes no value for both."""
    model = whole.model.clone()
    model.graph.outputs[:] = [v for v in model.graph.outputs if not v.is_graph_input()]
    return model


class Scored(NamedTuple):
    """A model that computes the score of targets of a kind, and nothing else.

    Attributes:
        model: the model.
        output: the name of its output, the score (N,).
        inputs: the inputs beside the model's own, as in ``GradientNames``.
    """

    model: ir.Model
    output: str
    inputs: Mapping[str, str]


def scored(prepared: ir.Model, score: WrittenScore, kind: Kind) -> Scored:
    """Return a copy of a prepared model that computes the score of targets of a kind, and nothing else."""
    model = prepared.clone()
    op = Builder(model.graph)
    written = write_target(op, score.on(values_by_name(model.graph)), kind)
    del model.graph.outputs[:]
    output = _output(op, written.score, SCORE_OUTPUT)
    RemoveUnusedNodesPass()(model)
    return Scored(model, output, written.inputs)


def read(score: WrittenScore, kind: Kind) -> dict[str, str]:
    """Return the names of the values that a kind has to see, by attribute of ``DenseTensors``."""
    values = {name: getattr(score.dense, name) for name in kind.reads}
    return {name: value.name or "" for name, value in values.items() if value is not None}


class WrittenTarget(NamedTuple):
    """The score (N,) of a target, the class (N,) that it is of, and the inputs that were added for it, by own name."""

    score: Value
    class_index: Value
    parameters: dict[str, Value]

    @property
    def inputs(self) -> dict[str, str]:
        """Return what the inputs that were added are called in the graph."""
        return {name: v.name or "" for name, v in self.parameters.items()}


def write_target(op: Builder, score: WrittenScore, kind: Kind) -> WrittenTarget:
    """Write the score of a kind; its parameters become inputs of the graph."""
    parameters = kinds.kind_inputs(op, kind, _batch(score))
    value, class_index = kind.write(op, score, parameters, *kind.options)
    op.graph.inputs.extend(parameters.values())
    return WrittenTarget(value, class_index, parameters)


def _curvatures(
    op: Builder, gradients: Sequence[Value], wrt: Sequence[Value], table: Mapping[Key, Rule]
) -> list[Value]:
    return [_curvature(op, gradient, v, table) for v, gradient in zip(wrt, gradients, strict=True)]


def _curvature(op: Builder, gradient: Value, v: Value, table: Mapping[Key, Rule]) -> Value:
    """H·v = ∂⟨G(v), u⟩/∂v at u = v: the gradient's own nodes are pulled back like any others.

    H is symmetric: what is pulled back is its product with the cotangent. 0 where the gradient does not depend on v,
    the score being piecewise linear in v.
    """
    nodes = list(op.graph)
    if gradient not in downstream(nodes, [v]):
        return op.fill(op.const(0, like=gradient), v)
    try:
        return pull_back(op, nodes, {gradient: v}, [v], table)[0]
    except UnsupportedGradient as error:
        error.where = f"{error.where}, where the gradient is differentiated once more"
        error.hint = "a method that needs no second derivative (gradcam), or a target layer after this node (--layer)"
        raise


def _is_narrow(nodes: Sequence[ir.Node], wrt: Sequence[Value], score: Value) -> bool:
    """Tell whether a cotangent on its way from ``score`` back to ``wrt`` is held in 16 bits."""
    return any(v.dtype in HALF_PRECISION for v in downstream(nodes, wrt) & upstream(nodes, score))


def _seed(op: Builder, score: Value, scaled: bool) -> tuple[Value, dict[str, str]]:
    """Return 1, or the graph input that stands for it where gradients are scaled, and the name of that input."""
    if not scaled:
        return op.const([1], like=score), {}
    scale = ir.val(op.claim(SCALE_INPUT), dtype=ir.DataType.FLOAT, shape=[])
    op.graph.inputs.append(scale)
    given = scale if score.dtype in (None, scale.dtype) else op.Cast(scale, to=int(score.dtype))
    return op.Reshape(given, op.ints(1)), {SCALE_INPUT: scale.name or ""}


def _batch(score: WrittenScore) -> int | str:
    shape = score.value.shape
    dim = shape[0] if shape else None
    return dim if isinstance(dim, int) else (dim.value if dim is not None and dim.value else "batch")


def _outputs(
    op: Builder, results: Sequence[Value], targets: Sequence[Value], name: Callable[[str], str]
) -> dict[str, str]:
    """Make each result an output named after its target by ``name``; return the outputs' names by the targets'."""
    pairs = zip(results, targets, strict=True)
    return {target.name or "": _output(op, result, name(target.name or ""), target) for result, target in pairs}


def _output(op: Builder, value: Value, name: str, like: Value | None = None) -> str:
    """Make a value an output of its own, called ``name`` and typed as ``like``; return the name that was free."""
    output = op.Identity(value)
    output.name = op.claim(name)
    if like is not None:
        output.type, output.shape = like.type, like.shape
    op.graph.outputs.append(output)
    return output.name


class Cut(NamedTuple):
    """A gradient graph in two halves.

    ``forward`` returns outputs, score tensor, activations and the values named in ``boundary``, which are all that
    ``backward`` reads beside the parameters of the target and ``grad_scale``.
    """

    forward: ir.Model
    backward: ir.Model
    boundary: tuple[str, ...]


def split(whole: GradientGraph) -> Cut:
    """Cut a gradient graph at the boundary of forward and backward pass, not at the layer: skip paths may bypass it."""
    graph = whole.model.graph
    moving = varying(graph)
    own = set(whole.names.inputs.values())
    made = {v for n in whole.backward for v in n.outputs}
    given = [v for n in whole.backward for v in [*n.inputs, *captured(n)]]
    needed = {v: None for v in given if v is not None and v not in made and v in moving}
    boundary = [v for v in needed if v.name not in own]
    results = [v for v in graph.outputs if v.name in whole.names.outputs]
    part = ir.convenience.extract(graph, [*boundary, *(v for v in graph.inputs if v.name in own)], results)
    second = ir.Model(part, ir_version=whole.model.ir_version)
    part.opset_imports.update(graph.opset_imports)
    names = tuple(v.name or "" for v in boundary)
    first = forward_only(whole.model, [*whole.outputs, *whole.scores, *whole.activations, *names], without=own)
    return Cut(first, second, names)


def has_rows(cut: Cut, image_input: str) -> bool:
    """Tell whether every value at the cut is known to hold one row per image along its first axis.

    Only then may the backward half run on rows of several images and classes. A fixed batch above 1 never counts: there
    a first axis of the same length may be another one.
    """
    graph = cut.forward.graph
    batch = next(v for v in graph.inputs if v.name == image_input).shape
    passed = [v.shape for v in graph.outputs if v.name in cut.boundary]
    if batch is None or (isinstance(batch[0], int) and batch[0] != 1):
        return False
    return all(shape is not None and len(shape) > 0 and same_dim(shape[0], batch[0]) for shape in passed)


def forward_only(model: ir.Model, names: Sequence[str], without: Collection[str] = ()) -> ir.Model:
    """Return a copy that computes the values ``names`` and nothing else; the inputs ``without`` are left out."""
    copy = model.clone()
    values = values_by_name(copy.graph)
    copy.graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]
    copy.graph.inputs[:] = [v for v in copy.graph.inputs if v.name not in without]
    RemoveUnusedNodesPass()(copy)
    return copy


def varying(graph: ir.Graph) -> set[Value]:
    """Return the values that depend on the graph's inputs."""
    found: set[Value] = set(graph.inputs)
    for node in graph:
        if any(v in found for v in [*node.inputs, *captured(node)]):
            found.update(node.outputs)
    return found


def with_score(
    prepared: ir.Model, score: WrittenScore, wrt: Sequence[str], kind: Kind = kinds.CLASS
) -> tuple[ir.Model, GradientNames]:
    """Return a copy with all outputs of a gradient graph but the gradients, and what all of these are to be called.

    The outputs are the score, its class, and the values ``wrt``.
    """
    model = prepared.clone()
    values = values_by_name(model.graph)
    op = Builder(model.graph)
    written = write_target(op, score.on(values), kind)
    names = GradientNames(
        score=op.claim(SCORE_OUTPUT),
        class_index=op.claim(CLASS_OUTPUT),
        inputs=written.inputs,
        gradients={name: op.claim(gradient_output(name)) for name in wrt},
    )
    written.score.name, written.class_index.name = names.score, names.class_index
    shown = [v for v in (values[name] for name in [*score.results, *wrt]) if not v.is_graph_output()]
    model.graph.outputs.extend([written.score, written.class_index, *dict.fromkeys(shown)])
    return model, names
