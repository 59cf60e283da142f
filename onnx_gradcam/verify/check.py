"""The checks of one model, in order."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import RULES, Key, Rule
from onnx_gradcam.engine import fidelity as forward
from onnx_gradcam.engine import scaling
from onnx_gradcam.engine.batches import batch_size, run_in_pieces
from onnx_gradcam.engine.program import GradientGraph, differentiate, forward_only
from onnx_gradcam.engine.session import Options, Session, single_threaded
from onnx_gradcam.errors import InputError, ModelError, NoGradientPath, OnnxGradcamError, UnsupportedGradient
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening, options_of, spelled_out
from onnx_gradcam.explain.settling import settles
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.load import ModelLike, Source, load
from onnx_gradcam.graph.names import SCALE_INPUT, TARGET_INDEX, gradient_names, values_by_name
from onnx_gradcam.graph.quantization import behind_layers, is_quantized, quantized_form
from onnx_gradcam.photos import inputs
from onnx_gradcam.targets import TOP1, WrittenScore
from onnx_gradcam.verify import network, nodes, sample, widen
from onnx_gradcam.verify.given import verify_given
from onnx_gradcam.verify.lowered import check_lowered, is_lowered_site, parameters
from onnx_gradcam.verify.path import CheckedNode, sites, spread, values_of
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Check, NodeCheck, Report, Status, Timing, seconds_of
from onnx_gradcam.verify.surrogate import NoSurrogate, surrogate

NAMED = 3  # nodes, in the message of a check
NO_PART = "which feeds another level than that of the explained cell"
Arrays = Mapping[str, np.ndarray]


@spelled_out
def verify(
    model: ModelLike | Network,
    target_layer: str | Sequence[str] = "auto",
    *,
    x: Any = None,
    seed: int = 0,
    table: Mapping[Key, Rule] = RULES,
    **opening: Unpack[Opening],
) -> Report:
    """Check forward pass and gradient of a model numerically, on the runtime and in the precision that explain it.

    (a) The outputs are the deployed model's. (b) Node by node, every VJP rule agrees with float64 differences of that
    node at its actual inputs; the report names the node where one does not. (c) At each target layer and at the image,
    the gradient agrees with central differences of the score through the whole network.

    Of a model that ``gradient_model`` wrote, by whichever engine, its own gradients are checked, as in (c).

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        target_layer: value or node name(s) or module paths; "auto": the end of the last convolutional stage.
        x: an array (N, …) or {input name: array}, of which the first image is taken; None: seeded noise.
        seed: of the noise, the cotangents and the directions.
        table: the VJP rules.
        **opening: the keywords of ``Opening``.

    Returns:
        The checks with their errors and limits; its ``ok`` says whether all passed.

    Raises:
        ModelError, ScoreError, LayerError, InputError, ProviderError: the model cannot be opened or run.
        UnsupportedGradient, NoGradientPath: the score cannot be differentiated at a target layer.
    """
    start = time.perf_counter()
    source = model if isinstance(model, Network) else load(model)
    if isinstance(source, Source) and (names := gradient_names(source.model)) is not None:
        return verify_given(source, names, x, options_of(opening), seed, opening.get("image_input"))
    subject, run = _opened(open_network(source, target_layer, **opening), table, x, seed)
    rng = np.random.default_rng(seed)
    found, alike = _node_by_node(subject, run, rng)
    idle = _idle(subject, run)
    deployed = Session(subject.source.deployed, subject.options)
    checks = [_forward_pass(subject, run, deployed), _summary(found, alike), *_gradients(subject, run, idle, rng)]
    inference = seconds_of(lambda: run_in_pieces(deployed.run, deployed.outputs, run.feeds, run.batch))
    return Report(
        model=subject.source.name,
        score=subject.score.described.name,
        class_index=tuple(int(i) for i in run.class_index),
        layers=subject.layers,
        providers=run.providers,
        checks=tuple(checks),
        nodes=tuple(found),
        alike=alike,
        notes=(*subject.notes, *run.warnings, *(f"not checked: {name!r}, {NO_PART}" for name in idle)),
        timing=Timing(time.perf_counter() - start, inference),
    )


@dataclass(frozen=True)
class _Subject:
    """The network that is verified.

    Attributes:
        network: the network.
        layers: the names of its target layers.
        whole: the network, differentiated at the target layers and, where it can be, at the image.
        table: the VJP rules.
        notes: what is not checked, and why.
    """

    network: Network
    layers: tuple[str, ...]
    whole: GradientGraph
    table: Mapping[Key, Rule]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, network: Network, table: Mapping[Key, Rule]) -> _Subject:
        """Differentiate a network.

        Raises:
            UnsupportedGradient, NoGradientPath: that cannot be done at the target layers.
        """
        prepared, score, layers = network.scored_model, network.written_score, tuple(dict.fromkeys(network.layer_names))
        notes: tuple[str, ...] = ()
        try:
            whole = differentiate(prepared, score, [*layers, network.image_input.name], table)
        except (UnsupportedGradient, NoGradientPath) as error:
            notes = (f"nothing before the target layer is checked: {error.what}",)
            whole = differentiate(prepared, score, layers, table)
        return cls(network, layers, whole, table, notes)

    @property
    def source(self) -> Source:
        """Return the deployed model."""
        return self.network.source

    @property
    def prepared(self) -> ir.Model:
        """Return the model in the form that is differentiated, with the tensors of its score."""
        return self.network.scored_model

    @property
    def score(self) -> WrittenScore:
        """Return the score that is differentiated."""
        return self.network.written_score

    @property
    def options(self) -> Options:
        """Return how sessions are opened."""
        return self.network.options


@dataclass(frozen=True)
class _Run:
    """A run of the gradient graph: what was fed, every output, and the class that each row explains."""

    feeds: Arrays
    results: Mapping[str, Any]
    class_index: np.ndarray
    batch: int | None
    providers: tuple[str, ...]
    warnings: tuple[str, ...]


def _opened(network: Network, table: Mapping[Key, Rule], x: Any, seed: int) -> tuple[_Subject, _Run]:
    """Differentiate a network and run it; once more where its first run shows other shapes than were thought."""
    try:
        subject = _Subject.of(network, table)
        return subject, _first_run(subject, x, seed)
    except OnnxGradcamError as error:
        if not any(settles(network, feeds, error) for feeds in _shown(network, x, seed)):
            raise
    subject = _Subject.of(network, table)
    return subject, _first_run(subject, x, seed)


def _shown(network: Network, x: Any, seed: int) -> Iterable[dict[str, np.ndarray] | None]:
    """Return the inputs that a run may show the shapes for; None: of the declared sizes."""
    return itertools.chain([None] if x is None else [], _candidates(network, x, seed))


def _candidates(network: Network, x: Any, seed: int) -> Iterable[dict[str, np.ndarray]]:
    """Return the user's input, or noise of every size that the model may take."""
    image = network.image_input.name
    batch = batch_size(network.prepared.graph, image)
    if x is None:
        return sample.noise(network.inputs, batch, seed)
    return [sample.one_batch(inputs.check_feeds(x, network.inputs), image, batch)]


def _first_run(subject: _Subject, x: Any, seed: int) -> _Run:
    """Run the gradient graph on the user's input, or on the first noise that the model takes."""
    specs, image = subject.network.inputs, subject.network.image_input.name
    batch = batch_size(subject.prepared.graph, image)
    session, called = Session(subject.whole.model, subject.options), subject.whole.names
    names = [name for name in session.outputs if name not in session.inputs]
    refused: list[InputError | ModelError] = []
    for feeds in _candidates(subject.network, x, seed):
        index = np.full(len(feeds[image]), TOP1, np.int64)
        try:
            own = {called.inputs[TARGET_INDEX]: index}
            if subject.whole.is_scaled:
                own[called.inputs[SCALE_INPUT]] = np.array(scaling.FIRST, np.float32)
            results = session.run(names, {**feeds, **own})
        except (InputError, ModelError) as error:
            refused.append(error)
        else:
            return _Run(feeds, results, results[called.class_index], batch, session.providers, session.warnings)
    raise InputError(
        refused[0].what,
        where="the user's input" if x is not None else f"noise for {', '.join(map(str, specs.values()))}",
        hint="x=, an input that the model takes",
    )


def _place(subject: _Subject, run: _Run) -> np.ndarray | None:
    """Return the cells that a dense score was taken at: they are held while values move."""
    dense = subject.score.dense
    if dense is None:
        return None
    name = dense.cell_number.name or ""
    found: np.ndarray = Session(forward_only(subject.prepared, [name]), subject.options).run([name], run.feeds)[name]
    return found


def _forward_pass(subject: _Subject, run: _Run, deployed: Session) -> Check:
    """Compare the outputs with those of the untouched model."""
    return replace(_compared_outputs(subject, run, deployed), level="forward")


def _compared_outputs(subject: _Subject, run: _Run, deployed: Session) -> Check:
    outputs = {name: run.results[name] for name in subject.whole.outputs}
    worst = forward.worst(forward.differences_from(deployed, subject.source, outputs, run.feeds, run.batch))
    if worst is None:
        return Check("forward pass", "undecided", None, forward.LIMIT, "the untouched model has none of the outputs")
    message = f"output {worst.output!r}, against the untouched model"
    if not np.isfinite(worst.error):
        return Check("forward pass", "fail", None, worst.limit, f"{message}, has another shape or other non-numbers")
    if not worst.ok and forward.rounding_decides(subject.prepared.graph):
        own = forward.own_difference(subject.source, subject.options, run.feeds, run.batch)
        worst = replace(worst, limit=worst.limit + own)
        message += "; which kernels are fused decides how it rounds, by as much as the limit"
    return Check("forward pass", "pass" if worst.ok else "fail", worst.error, worst.limit, message)


def _node_by_node(subject: _Subject, run: _Run, rng: np.random.Generator) -> tuple[list[NodeCheck], int]:
    """Return the results node by node, and how many nodes were left out because others are like them."""
    graph = subject.prepared.graph
    values = values_by_name(graph)
    on_path = sites(graph, [values[name] for name in subject.whole.activations], subject.score.value)
    chosen = spread(on_path)
    extra = [v.name or "" for site in chosen for v in parameters(site) if constant(v) is None]
    names = [name for name in dict.fromkeys([*values_of(chosen), *extra]) if name not in run.feeds]
    known = {**run.feeds, **Session(forward_only(subject.prepared, names), subject.options).run(names, run.feeds)}
    wide = {} if not subject.whole.is_scaled else {n.name: n for n in widen.in_float32(subject.prepared).graph}
    options = single_threaded(subject.options)
    found = [
        check
        for site in chosen
        for check in _check_site(site, wide.get(site.node.name), known, options, subject.table, rng)
    ]
    return found, len(on_path) - len(chosen)


def _check_site(
    site: CheckedNode,
    wide: ir.Node | None,
    known: Arrays,
    options: Options,
    table: Mapping[Key, Rule],
    rng: np.random.Generator,
) -> list[NodeCheck]:
    """``wide``: the node of a 16-bit model in float32, where its rules are checked."""
    check = check_lowered if is_lowered_site(site, table) else nodes.check_site
    if wide is None:
        return check(site, known, options, table, rng)
    twin = replace(site, node=wide)
    found = check(twin, widen.arrays(known), options, table, rng)
    return widen.in_16_bits(found, site, twin, known, options, table, rng)


def _summary(found: Sequence[NodeCheck], alike: int) -> Check:
    """Return all nodes as one check: the worst status, and the nodes that have it."""
    found_status = {node.status for node in found}
    status: Status = "fail" if "fail" in found_status else "undecided" if "undecided" in found_status else "pass"
    worst = max((node.error for node in found if node.error is not None), default=None)
    message = f"{len({node.node for node in found})} nodes" + (f", which stand for {alike} more" if alike else "")
    if status != "pass":
        named = list(dict.fromkeys(f"{n.op_type} {n.node!r}" for n in found if n.status == status))
        message = ", ".join(named[:NAMED]) + (f" and {len(named) - NAMED} more" if len(named) > NAMED else "")
    return Check("node by node", status, worst, nodes.RULE_LIMIT, message, level="nodes")


def _idle(subject: _Subject, run: _Run) -> tuple[str, ...]:
    """Return the layers of a detector's levels that the explained cell does not lie on, if their gradient is zero."""
    dense, described = subject.score.dense, subject.score.described.dense
    if dense is None or described is None or len(described.levels) != len(subject.layers):
        return ()
    of, gradients = np.asarray(run.results[dense.level.name or ""]), subject.whole.names.gradients
    used = {int(of[i, c]) for i, c in enumerate(run.class_index)}
    others = [name for k, name in enumerate(subject.layers) if k not in used]
    return tuple(name for name in others if not np.any(run.results[gradients[name]]))


def _gradients(subject: _Subject, run: _Run, idle: Sequence[str], rng: np.random.Generator) -> list[Check]:
    """Check the gradient at every target layer and at the image, on the model whose differences mean something."""
    try:
        twin, remark = _twin(subject)
    except NoSurrogate as reason:
        return [Check("gradient without rounding", "undecided", None, network.GRADIENT_LIMIT, str(reason))]
    here = values_by_name(subject.prepared.graph)
    shown = {quantized_form(here[name]).name or "": name for name in subject.whole.activations if name not in idle}
    there = values_by_name(twin.graph)
    score = quantized_form(subject.score.value).name or ""
    dense = None if subject.score.dense is None else subject.score.dense.on(there)
    place = _place(subject, run)
    feeds = widen.arrays(run.feeds) if subject.whole.is_scaled else dict(run.feeds)
    if twin is subject.prepared:
        whole, values = subject.whole, {**feeds, **run.results}
    else:
        made = [name for name in shown if name not in feeds]
        session = Session(forward_only(twin, made or [score]), subject.options)
        values = {**feeds, **session.run(session.outputs, {name: feeds[name] for name in session.inputs})}
        whole = differentiate(twin, replace(subject.score, value=there[score], dense=dense), list(shown), subject.table)
    held = {} if dense is None or place is None else {dense.cell_number.name or "": place}
    fed = {**feeds, whole.names.inputs[TARGET_INDEX]: run.class_index}
    probes = {
        name: Probe.of(whole.model, whole.names, subject.options, fed, name, values[name], held) for name in shown
    }
    checks = [
        replace(
            network.check_gradient(probes[name], rng),
            name=f"gradient at {theirs!r}{remark}",
            level="layer" if theirs in subject.layers else "image",
        )
        for name, theirs in shown.items()
    ]
    if not subject.whole.is_scaled:
        return checks
    results = {name: run.results[subject.whole.names.gradients[name]] for name in subject.layers}
    own = {name: np.asarray(gradient, np.float64) / scaling.FIRST for name, gradient in results.items()}
    layers = [(name, theirs) for name, theirs in shown.items() if theirs in subject.layers]
    narrow = [widen.compare(t, own[t], probes[n].gradient_at(np.zeros_like(values[n]))) for n, t in layers]
    return [*checks, *narrow]


def _twin(subject: _Subject) -> tuple[ir.Model, str]:
    """Return the model on which differences are taken, and a remark for the names of its checks."""
    twin, remarks = subject.prepared, []
    if is_quantized(twin.graph):
        scores = {v.name or "" for v in behind_layers(subject.score.described.sinks)}
        twin = surrogate(twin, scores, {v.name or "" for v in subject.score.values})
        remarks.append("without rounding")
    if subject.whole.is_scaled:
        twin = widen.in_float32(twin)
        remarks.append("in float32")
    return twin, "".join(f", {remark}" for remark in remarks)
