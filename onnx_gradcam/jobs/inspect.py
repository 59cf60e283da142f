"""What a model is, seen with the eyes of this library: what `inspect` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.anatomy.layers import candidates
from onnx_gradcam.anatomy.module_paths import modules
from onnx_gradcam.anatomy.score import Score, find_score
from onnx_gradcam.anatomy.tokens import TokenGrid
from onnx_gradcam.autodiff import rules  # noqa: F401 (importing the rules registers them)
from onnx_gradcam.autodiff.registry import RULES, find
from onnx_gradcam.engine.session import CUDA, full_name
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.inputs import input_specs, spec_of
from onnx_gradcam.graph.flow import NO_GRADIENT, beginnings, carriers, downstream, upstream
from onnx_gradcam.graph.load import ModelLike, load
from onnx_gradcam.graph.lowering.table import is_body, is_lowered
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.jobs import cuda_kernels
from onnx_gradcam.photos import inputs
from onnx_gradcam.photos.preprocess.choice import PRESETS, InputSpec, choose, labels_from
from onnx_gradcam.targets import Context

SHOWN = 12  # candidate layers that are printed


@dataclass(frozen=True)
class LayerInfo:
    """A candidate target layer: ``shape`` is (N, C, *space), strings for dimensions not known before the run.

    ``module``: the path of the outermost module that returns it, "" where the exporter left none.
    """

    name: str
    shape: tuple[int | str, ...]
    op_type: str
    chosen: bool
    reason: str
    module: str = ""


@dataclass(frozen=True)
class Operator:
    """An operator of the model.

    ``status``: "rule", "lowered" (differentiated through standard operators that compute the same), "function body"
    (through those that ONNX defines it by), "no gradient" (by definition), "off the path", or "missing".
    """

    op_type: str
    domain: str
    count: int
    status: str


@dataclass(frozen=True)
class Overview:
    """Inputs, outputs, score, candidate layers and operators of a model; ``targets``: the forms of ``--target`` it has.

    ``without_kernel``: the operators that CUDA leaves to the CPU, where CUDA was asked about.
    """

    model: str
    opset: Mapping[str, int]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[InputSpec, ...]
    score: str
    score_note: str
    targets: str
    classes: int
    labels: int
    layers: tuple[LayerInfo, ...]
    operators: tuple[Operator, ...]
    preprocess: Mapping[str, str]
    warnings: tuple[str, ...]
    without_kernel: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        imports = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in self.opset.items())
        used = [f"  {x.count:4} {f'{x.domain}::' if x.domain else ''}{x.op_type:24} {x.status}" for x in self.operators]
        ranked = [
            f"  {'*' if x.chosen else ' '} {x.name}  {_dims(x.shape)}  {x.op_type}{_of(x.module)}: {x.reason}"
            for x in self.layers[:SHOWN]
        ]
        if len(self.layers) > SHOWN:
            ranked.append(f"    and {len(self.layers) - SHOWN} more, further up: --json lists them all")
        sections = {
            "model": [f"  {self.model}  ({imports})"],
            "inputs": [f"  {x}" for x in self.inputs],
            "outputs": [f"  {x}" for x in self.outputs],
            "score": [f"  {self.score or '-'}  {self.score_note}; {self.labels or 'no'} labels in the model"],
            "targets": [f"  {self.targets}"] if self.targets else [],
            "candidate target layers (* is taken by default)": ranked,
            "operators": used,
            f"no CUDA kernel in onnxruntime {cuda_kernels.version()}": [f"  {x}" for x in self.without_kernel],
            "preprocessing": [f"  {name:14} {value}" for name, value in self.preprocess.items()],
            "warnings": [f"  {w}" for w in self.warnings],
        }
        return "\n".join(line for title, lines in sections.items() if lines for line in [title, *lines])


def _of(module: str) -> str:
    return f" of {module}" if module else ""


def _dims(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def layers(
    model: ModelLike, score: str = "auto", grid: str | None = None, image_input: str | None = None
) -> tuple[LayerInfo, ...]:
    """The candidate target layers, the one that "auto" takes first.

    ``grid``, ``image_input``: as in ``Explainer``, with its errors.
    """
    prepared = prepare(load(model).model)
    return _layers(prepared.graph, find_score(prepared.graph, score), grid, image_input)


def _layers(graph: ir.Graph, score: Score, grid: str | None, image_input: str | None) -> tuple[LayerInfo, ...]:
    image = inputs.image_input(input_specs(graph), image_input).name
    places = None if grid is None else TokenGrid.parse(grid)
    paths = modules(graph).outermost()
    found = candidates(graph, score, places, image)
    return tuple(_info(layer, paths.get(layer.value, "")) for layer in found)


def _info(layer: Layer, module: str) -> LayerInfo:
    node = layer.value.producer()
    return LayerInfo(layer.name, layer.dims, node.op_type if node else "", layer.chosen, layer.reason, module)


def overview(
    model: ModelLike,
    score: str = "auto",
    providers: Sequence[str] | None = None,
    grid: str | None = None,
    image_input: str | None = None,
) -> Overview:
    """Look at a model without running it; where ``providers`` has CUDA, also for what that has no kernel.

    ``grid``, ``image_input``: as in ``Explainer``. Raises ``ModelError`` for a file that cannot be read, and
    ``ScoreError``, ``InputError`` and ``LayerError`` for a score, an input and a grid that were named and cannot be;
    what cannot be found automatically stands in ``warnings``.
    """
    source = load(model)
    prepared = prepare(source.model)
    graph = prepared.graph
    own = list(graph.all_nodes())  # without those that finding the score adds
    warnings: list[str] = []
    found: Score | None = None
    try:
        found = find_score(graph, score)
    except OnnxGradcamError as error:
        if score != "auto":
            raise
        warnings.append(str(error))
    metadata = dict(source.model.metadata_props)
    known = input_specs(graph)
    named = None if image_input is None else inputs.image_input(known, image_input)
    settled: dict[str, str] = {}
    try:
        choice = choose("auto", named or inputs.image_input(known), metadata=metadata, model_path=source.path)
        settled = {k: f"{getattr(choice.preprocess, k)}  ({v})" for k, v in choice.sources.items()}
        warnings.extend(choice.warnings)
    except OnnxGradcamError as error:
        warnings.append(str(error))
    return Overview(
        model=source.name,
        opset=dict(source.model.graph.opset_imports),
        inputs=tuple(known.values()),
        outputs=tuple(spec_of(v) for v in source.model.graph.outputs),
        score=found.name if found else "",
        score_note=_note(found),
        targets=Context(found, None, ()).fitting if found else "",
        classes=found.count if found else 0,
        labels=len(labels_from(metadata) or ()),
        layers=_layers(graph, found, grid, image_input) if found else (),
        operators=_operators(graph, found, own),
        preprocess=settled,
        warnings=tuple(warnings),
        without_kernel=cuda_kernels.without_kernel(own, graph.opset_imports)
        if CUDA in map(full_name, providers or ())
        else (),
    )


def _note(score: Score | None) -> str:
    if score is None:
        return "not found"
    before = f"before the {score.activation} that makes {score.output!r}" if score.activation else "the output itself"
    if score.dense is not None:
        what = "boxes" if score.dense.detector else "cells"
        before = f"before the {score.activation}" if score.activation else "as the model leaves them"
        return f"{score.count} classes for each of many {what}, {before}; the most probable is explained"
    kinds = {"classes": f"{score.count} classes", "binary": "one sigmoid logit", "regression": "one value"}
    return f"{kinds[score.kind]}, {before}"


def _operators(graph: ir.Graph, score: Score | None, own: Collection[ir.Node]) -> tuple[Operator, ...]:
    """Return how the operators of the graph itself, as far as they are among its ``own``, are differentiated."""
    nodes = list(graph)
    path = downstream(nodes, beginnings(nodes, graph.inputs)) & upstream(nodes, score.value) if score else set()
    counted = Counter((n.op_type, n.domain, _status(n, path)) for n in own if n.graph is graph)
    return tuple(Operator(op, domain, count, status) for (op, domain, status), count in sorted(counted.items()))


def _status(node: ir.Node, path: set[ir.Value]) -> str:
    if node.op_type in NO_GRADIENT and node.domain == "":
        return "no gradient"
    needed = [i for i, v in carriers(node) if v in path]
    if not needed or not any(v in path for v in node.outputs):
        return "off the path"
    if all(find(RULES, node, i) for i in needed):
        return "rule"
    if is_lowered(node):
        return "function body" if is_body(node) else "lowered"
    return "missing"


def presets_on(
    model: ModelLike,
    image: Any,
    score: str = "auto",
    providers: Sequence[str] | None = None,
    grid: str | None = None,
    image_input: str | None = None,
) -> list[dict[str, Any]]:
    """Top-1 and its probability for a photo under each preset: the right preprocessing is usually the surest one."""
    with Explainer(
        model, score=score, providers=providers, check_forward=False, grid=grid, image_input=image_input
    ) as explainer:
        return [
            {"preset": name, "label": found.label(0), "probability": float(found.probability[0])}
            for name in PRESETS
            for found in [explainer.explain_image(image, method="eigencam", preprocess=name)]
        ]
