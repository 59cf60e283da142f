"""The gradient of a score written into the graph: one model, or its forward and its backward part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.anatomy.score import Score, find_score
from onnx_gradcam.autodiff.rectifiers.gating import Gating, noting, summary
from onnx_gradcam.autodiff.rectifiers.operators import Activation
from onnx_gradcam.autodiff.registry import RULES, Key, Rule
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import LayerError, UnsupportedGradient, nearest
from onnx_gradcam.graph.builder import Builder, Value, same_dim
from onnx_gradcam.graph.flow import captured, downstream, upstream
from onnx_gradcam.graph.load import ModelLike, load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.graph.quantization import quantized_form
from onnx_gradcam.targets.kinds import CLASS as BY_CLASS
from onnx_gradcam.targets.kinds import INDEX as INDEX
from onnx_gradcam.targets.kinds import Kind, inputs, is_parameter

SCORE = "grad/score"
CLASS = "grad/class_index"
CURVATURE = "grad/curvature/"
SCALE = "grad_scale"
NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class GradientGraph:
    """A model whose extra outputs are activations and gradients.

    ``outputs``: the deployed model's; ``scores``: the score tensor and what goes with it; ``activations``: the
    explained values; their gradients are called ``grad/<name>``. The score (N,) and the explained class (N,) are
    ``grad/score`` and ``grad/class_index``; the extra input ``target_index`` is int64 (N,), −1 for top-1. Targets of
    other kinds have more, called ``target/<name>``, float32 (N, …).
    ``is_second_order``: there is also ``grad/curvature/<name>``, the Hessian of the score with respect to the value,
    multiplied with the value.
    Where the gradient passes through float16 or bfloat16, a further input ``grad_scale`` (float32, no axes) multiplies
    the cotangent of the score, and with it every gradient: small ones would be rounded to zero.
    ``gating``: the activations on the way back; a plain gradient leaves all of them alone.
    """

    model: ir.Model
    outputs: tuple[str, ...]
    scores: tuple[str, ...]
    activations: tuple[str, ...]
    gating: Gating
    is_second_order: bool = False

    @property
    def gradients(self) -> tuple[str, ...]:
        """The names of the gradient outputs, in the order of ``activations``, and then of their curvatures."""
        prefixes = ("grad/", CURVATURE) if self.is_second_order else ("grad/",)
        return tuple(f"{prefix}{name}" for prefix in prefixes for name in self.activations)

    @property
    def is_scaled(self) -> bool:
        """Whether the gradients are to be divided by the input ``grad_scale``."""
        return any(v.name == SCALE for v in self.model.graph.inputs)


def differentiate(
    prepared: ir.Model,
    score: Score,
    names: Sequence[str],
    table: Mapping[Key, Rule] = RULES,
    kind: Kind = BY_CLASS,
    second_order: bool = False,
    sign: int = 1,
) -> GradientGraph:
    """Write ∂score/∂v for every value v of ``names`` into a copy of ``prepared``, by the rules of ``table``; where
    ``second_order``, the Hessian's product with v, too.

    ``kind``: of the target; a class, if it is left out. ``sign``: −1 for what is carried back from −score, which is not
    the negative by other tables than RULES: ``autodiff.gating``'s GUIDED and DECONVOLUTION.

    Raises ``LayerError`` for a value whose gradient would be called like another output.
    """
    for name in names:
        if f"grad/{name}" in (SCORE, CLASS):
            raise LayerError(
                f"the gradient of {name!r} would be called like the output {f'grad/{name}'!r}",
                hint="another value, or this one renamed",
                name=name,
            )
    model = prepared.clone()
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    score = score.on(values)
    targets = [values[name] for name in names]
    wrt = [quantized_form(target) for target in targets]
    outputs = tuple(v.name or "" for v in graph.outputs)
    forward = list(graph)
    op = Builder(graph)
    value, chosen = _write(op, score, kind)
    scoring = list(graph)[len(forward) :]
    seed = op.expand(_seed(op, value, _is_narrow([*forward, *scoring], wrt, value)), value)
    seed = op.Neg(seed) if sign < 0 else seed
    seen: dict[str, tuple[Activation, bool]] = {}
    unsaturated = {quantized_form(score.value)}
    gradients = pull_back(op, [*forward, *scoring], {value: seed}, wrt, noting(table, seen), unsaturated)
    for output, name in [(value, SCORE), (chosen, CLASS)]:
        _output(graph, op, output, name)
    for target, gradient in zip(targets, gradients, strict=True):
        _output(graph, op, gradient, f"grad/{target.name}", target)
    if second_order:
        for target, v, gradient in zip(targets, wrt, gradients, strict=True):
            _output(graph, op, _curvature(op, gradient, v, table), f"{CURVATURE}{target.name}", target)
    results = (*score.results, *read(score, kind).values())
    for extra in [*(values[name] for name in results), *targets]:
        if extra.name not in {v.name for v in graph.outputs}:
            graph.outputs.append(extra)
    RemoveUnusedNodesPass()(model)
    return GradientGraph(model, outputs, results, tuple(names), summary(seen.values()), second_order)


def to_run(whole: GradientGraph) -> ir.Model:
    """The model without the outputs that are inputs, too: OpenVINO takes no value for both."""
    model = whole.model.clone()
    model.graph.outputs[:] = [v for v in model.graph.outputs if not v.is_graph_input()]
    return model


def scored(prepared: ir.Model, score: Score, kind: Kind) -> ir.Model:
    """A copy of ``prepared`` that computes the score of targets of a kind, ``grad/score``, and nothing else."""
    model = prepared.clone()
    values = ir.convenience.create_value_mapping(model.graph)
    op = Builder(model.graph)
    value, _ = _write(op, score.on(values), kind)
    del model.graph.outputs[:]
    _output(model.graph, op, value, SCORE)
    RemoveUnusedNodesPass()(model)
    return model


def read(score: Score, kind: Kind) -> dict[str, str]:
    """The values that a kind has to see, by attribute of ``Dense``."""
    found = {name: getattr(score.dense, name) for name in kind.reads}
    return {name: value.name or "" for name, value in found.items() if value is not None}


def _write(op: Builder, score: Score, kind: Kind) -> tuple[Value, Value]:
    """Score and class of a kind, whose parameters become inputs of the graph."""
    given = inputs(kind, _batch(score))
    found = kind.write(op, score, given, *kind.options)
    op.graph.inputs.extend(given.values())
    return found


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
    """Whether a cotangent on its way from ``score`` back to ``wrt`` is held in 16 bits."""
    return any(v.dtype in NARROW for v in downstream(nodes, wrt) & upstream(nodes, score))


def _seed(op: Builder, score: Value, scaled: bool) -> Value:
    """1, or the graph input that stands for it where gradients are scaled."""
    if not scaled:
        return op.const([1], like=score)
    scale = ir.val(SCALE, dtype=ir.DataType.FLOAT, shape=[])
    op.graph.inputs.append(scale)
    given = scale if score.dtype in (None, scale.dtype) else op.Cast(scale, to=int(score.dtype))
    return op.Reshape(given, op.ints(1))


def _batch(score: Score) -> int | str:
    shape = score.value.shape
    dim = shape[0] if shape else None
    return dim if isinstance(dim, int) else (dim.value if dim is not None and dim.value else "batch")


def _output(graph: ir.Graph, op: Builder, value: Value, name: str, like: Value | None = None) -> None:
    """A graph output of its own name, typed as ``like``."""
    output = op.Identity(value)
    output.name = name
    if like is not None:
        output.type, output.shape = like.type, like.shape
    graph.outputs.append(output)


def is_own(name: str | None) -> bool:
    """Whether an input is one that a gradient graph has beside the model's."""
    return name == SCALE or is_parameter(name)


class Cut(NamedTuple):
    """A gradient graph in two halves.

    ``forward`` returns outputs, score tensor, activations and the values named in ``boundary``, which are all that
    ``backward`` reads beside the parameters of the target and ``grad_scale``.
    """

    forward: ir.Model
    backward: ir.Model
    boundary: tuple[str, ...]


def split(whole: GradientGraph) -> Cut:
    """Cut ``whole`` at the forward/backward boundary (not at the layer, which a skip path may bypass)."""
    graph = whole.model.graph
    varying = _varying(graph)
    backward = [n for n in graph if (n.name or "").startswith("grad/")]
    made = {v for n in backward for v in n.outputs}
    given = [v for n in backward for v in [*n.inputs, *captured(n)]]
    needed = {v: None for v in given if v is not None and v not in made and v in varying}
    boundary = [v for v in needed if not is_own(v.name)]
    results = [v for v in graph.outputs if (v.name or "").startswith("grad/")]
    part = ir.convenience.extract(graph, [*boundary, *(v for v in graph.inputs if is_own(v.name))], results)
    second = ir.Model(part, ir_version=whole.model.ir_version)
    part.opset_imports.update(graph.opset_imports)
    names = tuple(v.name or "" for v in boundary)
    first = forward_only(whole.model, [*whole.outputs, *whole.scores, *whole.activations, *names])
    return Cut(first, second, names)


def has_rows(cut: Cut, image_input: str) -> bool:
    """Whether every value at the cut is known to hold one row per image along its first axis.

    Only then may the backward half run on rows of several images and classes. A fixed batch above 1 never counts: there
    a first axis of the same length may be another one.
    """
    graph = cut.forward.graph
    batch = next(v for v in graph.inputs if v.name == image_input).shape
    passed = [v.shape for v in graph.outputs if v.name in cut.boundary]
    if batch is None or (isinstance(batch[0], int) and batch[0] != 1):
        return False
    return all(shape is not None and len(shape) > 0 and same_dim(shape[0], batch[0]) for shape in passed)


def forward_only(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of ``model`` that computes the values ``names`` and nothing else."""
    copy = model.clone()
    values = ir.convenience.create_value_mapping(copy.graph)
    copy.graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]
    copy.graph.inputs[:] = [v for v in copy.graph.inputs if not is_own(v.name)]
    RemoveUnusedNodesPass()(copy)
    return copy


def _varying(graph: ir.Graph) -> set[Value]:
    """The values that depend on the graph's inputs."""
    found: set[Value] = set(graph.inputs)
    for node in graph:
        if any(v in found for v in [*node.inputs, *captured(node)]):
            found.update(node.outputs)
    return found


def gradient_model(model: ModelLike, wrt: Sequence[str], score: str = "auto") -> onnx.ModelProto:
    """``model`` with gradients as extra outputs, by our rules: ``engines.gradient_model`` says what it has."""
    whole = differentiate(*asked(model, wrt, score)).model
    ir.external_data.load_to_model(whole)
    return ir.to_proto(whole)


def asked(model: ModelLike, wrt: Sequence[str], score: str) -> tuple[ir.Model, Score, list[str]]:
    """The prepared model, its score, and the values ``wrt``, each once. Raises ``LayerError`` for an unknown one."""
    prepared = prepare(load(model).model)
    found = find_score(prepared.graph, score)
    values = ir.convenience.create_value_mapping(prepared.graph)
    for name in wrt:
        if name not in values:
            raise LayerError(f"the model has no value {name!r}", hint=f"one of {nearest(name, values)}", name=name)
    return prepared, found, list(dict.fromkeys(wrt))


def with_score(prepared: ir.Model, score: Score, names: Sequence[str], kind: Kind = BY_CLASS) -> ir.Model:
    """A copy with all outputs of a gradient graph but the gradients: the score, its class, and the values ``names``."""
    model = prepared.clone()
    values = ir.convenience.create_value_mapping(model.graph)
    value, chosen = _write(Builder(model.graph), score.on(values), kind)
    value.name, chosen.name = SCORE, CLASS
    shown = [v for v in (values[name] for name in [*score.results, *names]) if not v.is_graph_output()]
    model.graph.outputs.extend([value, chosen, *dict.fromkeys(shown)])
    return model
