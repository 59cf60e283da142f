"""A gradient graph as it is, whoever wrote it: each ``grad/<name>`` against central differences of ``grad/score``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.batches import batch_size
from onnx_gradcam.engine.program import CLASS, INDEX, SCORE, is_own
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import InputError, ModelError
from onnx_gradcam.explain.inputs import input_specs
from onnx_gradcam.graph.load import Source
from onnx_gradcam.photos import inputs
from onnx_gradcam.targets import TOP1
from onnx_gradcam.verify import network, sample
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Check, Report

NOTE = "not checked: the forward pass, whose model this is not, and the nodes one by one, whose rules are not known"


def is_gradient_graph(graph: ir.Graph) -> bool:
    """Whether a model is one that ``gradient_model`` wrote, by whichever engine."""
    return INDEX in {v.name for v in graph.inputs} and SCORE in {v.name for v in graph.outputs}


def verify_given(source: Source, x: Any, options: Options, seed: int, image_input: str | None = None) -> Report:
    """Check a gradient graph at every value that it has the gradient of. Raises ``InputError``, ``ModelError``."""
    graph = source.model.graph
    known = ir.convenience.create_value_mapping(graph)
    outputs = [v.name or "" for v in graph.outputs]
    names = [
        name for v in outputs if v not in (SCORE, CLASS) and (name := v.removeprefix("grad/")) != v and name in known
    ]
    session = Session(source.model, options)
    feeds, results = _first_run(graph, session, x, seed, image_input)
    fixed = {**feeds, INDEX: np.asarray(results[CLASS])}
    values = {name: np.asarray(feeds[name] if name in feeds else results[name]) for name in names}
    rng = np.random.default_rng(seed)
    fitting = {name: array for name, array in values.items() if results[f"grad/{name}"].shape == array.shape}
    at = Probe.of(source.model, options, fixed, fitting)
    checks = [
        network.check_gradient(at, name, rng) if name in fitting else _misshapen(name, values, results)
        for name in names
    ]
    return Report(
        model=source.name,
        score=SCORE,
        class_index=tuple(int(i) for i in results[CLASS]),
        layers=tuple(name for name in names if name not in feeds),
        providers=session.providers,
        checks=tuple(checks),
        nodes=(),
        alike=0,
        notes=(NOTE,),
    )


def _first_run(
    graph: ir.Graph, session: Session, x: Any, seed: int, image_input: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """On the user's input, or on the first noise that the graph takes: what was fed, and every output."""
    specs = {name: spec for name, spec in input_specs(graph).items() if not is_own(name)}
    image = inputs.image_input(specs, image_input).name
    batch = batch_size(graph, image)
    given = None if x is None else [sample.one_batch(inputs.checked_feeds(x, specs), image, batch)]
    refused: list[InputError | ModelError] = []
    for feeds in given or sample.noise(specs, batch, seed):
        try:
            index = np.full(len(feeds[image]), TOP1, np.int64)
            return feeds, session.run(session.outputs, {**feeds, INDEX: index})
        except (InputError, ModelError) as error:
            refused.append(error)
    raise refused[0]


def _misshapen(name: str, values: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> Check:
    shapes: Sequence[object] = (results[f"grad/{name}"].shape, values[name].shape)
    message = "the gradient has shape {}, the value {}".format(*shapes)
    return Check(f"gradient at {name!r}", "fail", None, network.LIMIT, message)
