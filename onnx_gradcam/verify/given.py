"""A gradient graph as it is, whoever wrote it: each of its gradients against central differences of its score."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.batches import batch_size
from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import InputError, ModelError
from onnx_gradcam.explain.inputs import input_specs
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.names import TARGET_INDEX, GradientNames
from onnx_gradcam.photos import inputs
from onnx_gradcam.targets import TOP1
from onnx_gradcam.verify import network, sample
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Check, Report, Timing, seconds_of

NOTE = "not checked: the forward pass, whose model this is not, and the nodes one by one, whose rules are not known"


def verify_given(
    source: Source, names: GradientNames, x: Any, options: Options, seed: int, image_input: str | None = None
) -> Report:
    """Check a gradient graph at every value that it has the gradient of.

    Args:
        source: the gradient graph.
        names: what is called what in it.
        x: the user's input, None for noise.
        options: how sessions are opened.
        seed: of the noise and the directions.
        image_input: the input that is explained, None for the largest of those with the most axes.

    Raises:
        InputError: the input does not fit the graph.
        ModelError: the runtime cannot run the graph.
    """
    start = time.perf_counter()
    graph = source.model.graph
    session = Session(source.model, options)
    feeds, results = _first_run(graph, names, session, x, seed, image_input)
    fixed = {**feeds, names.inputs[TARGET_INDEX]: np.asarray(results[names.class_index])}
    values = {name: np.asarray(feeds[name] if name in feeds else results[name]) for name in names.gradients}
    gradients = {name: results[output] for name, output in names.gradients.items()}
    rng = np.random.default_rng(seed)
    checks = [
        replace(
            network.check_gradient(Probe.of(source.model, names, options, fixed, name, array), rng)
            if gradients[name].shape == array.shape
            else _misshapen(name, array, gradients[name]),
            level="image" if name in feeds else "layer",
        )
        for name, array in values.items()
    ]
    forward = Session(forward_only(source.model, [names.score]), options)
    inference = seconds_of(lambda: forward.run(forward.outputs, {name: fixed[name] for name in forward.inputs}))
    return Report(
        model=source.name,
        score=names.score,
        class_index=tuple(int(i) for i in results[names.class_index]),
        layers=tuple(name for name in values if name not in feeds),
        providers=session.providers,
        checks=tuple(checks),
        nodes=(),
        alike=0,
        notes=(NOTE, *session.warnings),
        timing=Timing(time.perf_counter() - start, inference),
    )


def _first_run(
    graph: ir.Graph, names: GradientNames, session: Session, x: Any, seed: int, image_input: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run on the user's input, or on the first noise that the graph takes; return what was fed, and every output."""
    specs = {name: spec for name, spec in input_specs(graph).items() if name not in names.inputs.values()}
    image = inputs.image_input(specs, image_input).name
    batch = batch_size(graph, image)
    given = None if x is None else [sample.one_batch(inputs.check_feeds(x, specs), image, batch)]
    refused: list[InputError | ModelError] = []
    for feeds in given or sample.noise(specs, batch, seed):
        try:
            index = np.full(len(feeds[image]), TOP1, np.int64)
            return feeds, session.run(session.outputs, {**feeds, names.inputs[TARGET_INDEX]: index})
        except (InputError, ModelError) as error:
            refused.append(error)
    raise refused[0]


def _misshapen(name: str, value: np.ndarray, gradient: np.ndarray) -> Check:
    message = f"the gradient has shape {gradient.shape}, the value {value.shape}"
    return Check(f"gradient at {name!r}", "fail", None, network.GRADIENT_LIMIT, message)
