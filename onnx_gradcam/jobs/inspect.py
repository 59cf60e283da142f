"""What a model is: its score, its candidate layers, and how its operators are differentiated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Unpack

import onnx_ir as ir

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.anatomy.layers import candidates
from onnx_gradcam.anatomy.module_paths import modules
from onnx_gradcam.anatomy.paths import upstream_of_any
from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.autodiff import rules  # noqa: F401 (importing the rules registers them)
from onnx_gradcam.autodiff.registry import RULES, find
from onnx_gradcam.engine.session import CUDA, full_name
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.explain.default_method import default_method
from onnx_gradcam.explain.inputs import spec_of
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.explain.preprocessing import find_preprocessing
from onnx_gradcam.explain.settling import settles
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.dims import named_dims
from onnx_gradcam.graph.flow import NO_GRADIENT, beginnings, carriers, downstream, is_float
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.graph.lowering.table import is_lowered, is_lowered_to_body
from onnx_gradcam.graph.lowering.trial import objection
from onnx_gradcam.graph.unknown import STANDARD, accusation, is_unknown, unknown_before, way_out
from onnx_gradcam.jobs import cuda_kernels
from onnx_gradcam.photos.preprocess.choice import InputSpec, labels_from
from onnx_gradcam.targets import Context

VALUES_SHOWN = 20
FIRST_RUN = (
    "the shapes of the outputs are decided on the first run: `explain` may find a score all the same, and "
    "`inspect MODEL --image PHOTO` shows it"
)


@dataclass(frozen=True)
class LayerInfo:
    """A candidate target layer.

    Attributes:
        name: the ONNX value.
        shape: (N, C, *space), with strings for dimensions that are not known before the run.
        op_type: the operator that makes it, "" for an input.
        chosen: whether "auto" takes it.
        reason: why it is a candidate.
        module: the path of the outermost module that returns it, "" where the exporter left none.
    """

    name: str
    shape: tuple[int | str, ...]
    op_type: str
    chosen: bool
    reason: str
    module: str = ""


@dataclass(frozen=True)
class HeadInfo:
    """A head of the model: an output, or several with one kind of scores, that could be explained.

    Attributes:
        name: its first output, as ``--head`` takes it.
        outputs: all its outputs.
        kind: "classes", "binary", "regression", "values", "embedding", "map", "detector" or "sequence".
        count: how many classes, or numbers, it has.
        reason: why it is taken for that.
        chosen: whether it is explained.
        targets: the forms of ``--target`` that it has.
    """

    name: str
    outputs: tuple[str, ...]
    kind: str
    count: int
    reason: str
    chosen: bool
    targets: str


@dataclass(frozen=True)
class Operator:
    """An operator of the model.

    Attributes:
        op_type, domain: the operator.
        count: how many nodes of it are treated so.
        status: "rule", "lowered" (differentiated through standard operators that compute the same), "function body"
            (through those that ONNX defines it by), "no gradient" (by definition), "off the path", "missing", or
            "unknown: …" for one that neither ONNX nor onnxruntime defines.
    """

    op_type: str
    domain: str
    count: int
    status: str


@dataclass(frozen=True)
class Overview:
    """What a model is.

    Attributes:
        model: the path of the model, or what it is called where it came from memory.
        opset: for each domain the version.
        inputs, outputs: as the model declares them.
        score, score_note: the score tensor, and what it is; "" and "not found" where there is none.
        heads: all that could be explained, first what is taken where nothing is named.
        targets: the forms of ``--target`` that the model has.
        classes, labels: how many classes the score has, and how many labels the model brings.
        layers: the candidate target layers, first the one that "auto" takes.
        method, method_note: the method that "auto" stands for, and why; "" where there is no score.
        values: where no score was found, the last values that the outputs are made of: ``--score`` takes one.
        operators: how each is differentiated.
        preprocess: each setting of "auto" with its source.
        warnings: what was not found, and what is guessed.
        without_kernel: the operators that CUDA leaves to the CPU, where the model was opened for CUDA.
    """

    model: str
    opset: Mapping[str, int]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[InputSpec, ...]
    score: str
    score_note: str
    heads: tuple[HeadInfo, ...]
    targets: str
    classes: int
    labels: int
    layers: tuple[LayerInfo, ...]
    method: str
    method_note: str
    values: tuple[LayerInfo, ...]
    operators: tuple[Operator, ...]
    preprocess: Mapping[str, str]
    warnings: tuple[str, ...]
    without_kernel: tuple[str, ...] = ()


@spelled_out
def layers(model: ModelLike | Network, **opening: Unpack[Opening]) -> tuple[LayerInfo, ...]:
    """Return the candidate target layers, first the one that "auto" takes.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> [layer.name for layer in ogc.layers(demo / "shapes-resnet.onnx") if layer.chosen]
    ['relu_6']

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        **opening: the keywords of ``Opening``.

    Raises:
        ModelError, ScoreError, InputError, LayerError: as ``Explainer`` raises them.
    """
    network = open_network(model, **opening)
    return _layers(network, network.score)


@spelled_out
def heads(model: ModelLike | Network, **opening: Unpack[Opening]) -> tuple[HeadInfo, ...]:
    """Return all heads of a model: what could be explained, first what is taken where nothing is named.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> [(head.name, head.kind, head.count) for head in ogc.heads(demo / "shapes-resnet.onnx")]
    [('logits', 'classes', 8)]

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        **opening: the keywords of ``Opening``.

    Raises:
        ModelError, InputError: as ``Explainer`` raises them.
    """
    network = open_network(model, **opening)
    return _heads(network, _score(network, []))


def _heads(network: Network, chosen: Score | None) -> tuple[HeadInfo, ...]:
    return tuple(_head(score, chosen is not None and score.sinks == chosen.sinks) for score in network.heads)


def _head(score: Score, is_chosen: bool) -> HeadInfo:
    context = Context(score, None, ())
    return HeadInfo(score.output, score.outputs, context.kind, score.count, score.reason, is_chosen, context.fitting)


def _layers(network: Network, score: Score) -> tuple[LayerInfo, ...]:
    graph = network.prepared.graph
    paths = modules(graph).outermost()
    ranked = candidates(graph, score, network.grid, network.image_input.name)
    return tuple(_info(layer, paths.get(layer.value, "")) for layer in ranked)


def _info(layer: Layer, module: str) -> LayerInfo:
    node = layer.value.producer()
    reason = f"{layer.reason}; {layer.note}" if layer.note else layer.reason
    return LayerInfo(layer.name, layer.dims, node.op_type if node else "", layer.chosen, reason, module)


@spelled_out
def overview(model: ModelLike | Network, **opening: Unpack[Opening]) -> Overview:
    """Look at a model without running it.

    What cannot be found automatically stands in the warnings.

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        **opening: the keywords of ``Opening``; where ``providers`` has CUDA, the operators without a kernel there are
            named, too.

    Raises:
        ModelError: the file cannot be read.
        ScoreError, InputError, LayerError: a score, an input or a grid that was named cannot be used.
    """
    network = open_network(model, **opening)
    graph, warnings = network.prepared.graph, list[str]()
    score = _score(network, warnings)
    method = None if score is None else default_method(score)
    unknown = unknown_before(graph, score.sinks) if score else ()
    warnings += [f"{accusation(n)}\n  where  node {n.name!r}, before the score\n  try    {way_out(n)}" for n in unknown]
    return Overview(
        model=network.source.name,
        opset=dict(network.source.model.graph.opset_imports),
        inputs=tuple(network.inputs.values()),
        outputs=tuple(spec_of(v) for v in network.source.model.graph.outputs),
        score=score.name if score else "",
        score_note=_note(score),
        heads=_heads(network, score),
        targets=Context(score, None, ()).fitting if score else "",
        classes=score.count if score else 0,
        labels=len(labels_from(network.metadata) or ()),
        layers=_layers(network, score) if score else (),
        method=method.name if method else "",
        method_note=method.reason if method else "",
        values=() if score else _last_values(graph),
        operators=_operators(graph, score),
        preprocess=_preprocessing(network, warnings),
        warnings=tuple(warnings),
        without_kernel=_without_kernel(network),
    )


def settle_score(network: Network) -> None:
    """Run the model where no score is found by the shapes that its outputs declare, and take those of the run."""
    try:
        _ = network.score
    except OnnxGradcamError as error:
        settles(network, None, error)  # where it changes nothing, the overview says what is missing


def _last_values(graph: ir.Graph) -> tuple[LayerInfo, ...]:
    """Return the last floating-point values of known shape that the outputs are made of, the nearest first."""
    pending = [v for v in graph.outputs if v.producer() is not None]
    values, seen = list[ir.Value](), set[ir.Value]()
    while pending and len(values) < VALUES_SHOWN:
        value = pending.pop(0)
        if value in seen or constant(value) is not None:
            continue
        seen.add(value)
        if value.shape is not None and is_float(value):
            values.append(value)
        node = value.producer()
        pending += [v for v in node.inputs if v is not None and v.producer() is not None] if node is not None else []
    return tuple(_value_info(value) for value in values)


def _value_info(value: ir.Value) -> LayerInfo:
    node = value.producer()
    return LayerInfo(value.name or "", named_dims(value) or (), node.op_type if node else "", False, "")


def _score(network: Network, warnings: list[str]) -> Score | None:
    """Return the score; where none is found that was not named either, add a warning and return None."""
    if network.head_request == "all":
        return network.heads[0] if network.heads else None
    try:
        return network.score
    except OnnxGradcamError as error:
        if (network.score_request, network.head_request) != ("auto", "auto"):
            raise
        warnings.append(str(error))
        if any(_is_open(v) for v in network.prepared.graph.outputs):
            warnings.append(FIRST_RUN)
        return None


def _is_open(value: ir.Value) -> bool:
    """Tell whether the shape of an output is known in the run only, but for the number of images."""
    return value.shape is None or any(not isinstance(d, int) for d in list(value.shape)[1:])


def _preprocessing(network: Network, warnings: list[str]) -> dict[str, str]:
    """Return each setting with its source; add warnings of what is guessed, or why there is no preprocessing."""
    try:
        choice = find_preprocessing(network)
    except OnnxGradcamError as error:
        warnings.append(str(error))
        return {}
    warnings.extend(choice.warnings)
    return {k: f"{getattr(choice.preprocess, k)}  ({v})" for k, v in choice.sources.items()}


def _without_kernel(network: Network) -> tuple[str, ...]:
    """Return the operators without a CUDA kernel, where the network was opened for CUDA."""
    if CUDA not in map(full_name, network.options.providers or ()):
        return ()
    graph = network.prepared.graph
    return cuda_kernels.without_kernel(list(graph.all_nodes()), graph.opset_imports)


def _note(score: Score | None) -> str:
    if score is None:
        return "not found"
    before = f"before the {score.activation} that makes {score.output!r}" if score.activation else "the output itself"
    if score.dense is not None:
        what = "boxes" if score.dense.detector else "cells"
        before = f"before the {score.activation}" if score.activation else "as the model leaves them"
        return f"{score.count} classes for each of many {what}, {before}; the most probable is explained"
    kinds = {
        "classes": f"{score.count} classes",
        "binary": "one sigmoid logit",
        "regression": "one value",
        "values": f"{score.count} numbers that are no classes",
        "embedding": f"an embedding of {score.count} numbers",
    }
    return f"{kinds[score.kind]}, {before}"


def _operators(graph: ir.Graph, score: Score | None) -> tuple[Operator, ...]:
    """Return how the operators of the graph are differentiated."""
    nodes = list(graph)
    path = downstream(nodes, beginnings(nodes, graph.inputs)) & upstream_of_any(nodes, score.sinks) if score else set()
    counted = Counter((n.op_type, n.domain, _status(n, path)) for n in nodes)
    return tuple(Operator(op, domain, count, status) for (op, domain, status), count in sorted(counted.items()))


def _status(node: ir.Node, path: set[ir.Value]) -> str:
    if is_unknown(node):
        return "unknown: no runtime has it" if node.domain in STANDARD else "unknown: of a library of its own"
    if node.op_type in NO_GRADIENT and node.domain == "":
        return "no gradient"
    needed = [i for i, v in carriers(node) if v in path]
    if not needed or not any(v in path for v in node.outputs):
        return "off the path"
    if all(find(RULES, node, i) for i in needed):
        return "rule"
    if is_lowered(node) and not objection(node):
        return "function body" if is_lowered_to_body(node) else "lowered"
    return "missing"
