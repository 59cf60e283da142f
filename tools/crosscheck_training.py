"""One model through onnxruntime-training, in the environment that has it: what `tools/crosscheck.py` runs.

    python tools/crosscheck_training.py JOB

JOB is the JSON of a ``Job``. Gradients are written to ``out`` (.npz); what else there is to say is printed as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, MOST = 5, 200  # runs that are timed
LEAST = 1.0  # seconds, for short ones


@dataclass(frozen=True)
class Job:
    """A model, the values to differentiate at (the layer first), and where the feeds are and the gradients go.

    ``feeds``: .npz with ``<seed>/<input>``. ``as_it_is``: nothing is written out, so that its errors show; then the
    gradient graph is verified, too.
    """

    path: str
    names: Sequence[str]
    feeds: str
    out: str
    as_it_is: bool = False


def main() -> None:
    import onnxruntime

    from onnx_gradcam.errors import OnnxGradcamError

    onnxruntime.set_default_logger_severity(3)  # the builder tells its transformations on stderr
    job = Job(**json.loads(sys.argv[1]))
    try:
        print(json.dumps(run(job), allow_nan=False))
    except OnnxGradcamError as error:
        print(json.dumps({"refused": str(error).splitlines()[0]}, allow_nan=False))


def run(job: Job) -> dict[str, Any]:
    """Write the gradients; the time as a multiple of plain inference, and the report of verify."""
    from onnx_gradcam.engine.program import with_score
    from onnx_gradcam.explain.network import open_network
    from onnx_gradcam.roads import ort_training

    feeds = read(job.feeds)
    network = open_network(job.path)
    make = ort_training.as_it_is if job.as_it_is else ort_training.add_gradients
    graph = make(*with_score(network.scored_model, network.written_score, job.names))
    outputs = [f"grad/{name}" for name in job.names]
    session = session_of(graph.SerializeToString())
    found = {seed: dict(zip(outputs, session.run(outputs, fed), strict=True)) for seed, fed in feeds.items()}
    np.savez(job.out, **{f"{seed}/{name}": a for seed, arrays in found.items() for name, a in arrays.items()})
    if not job.as_it_is:
        layer = ort_training.by_builder(network, job.names[:1])
        return {"time": ratio(job.path, layer.SerializeToString(), outputs[:1], next(iter(feeds.values())))}
    from onnx_gradcam.verify import verify

    return {"verify": {check.name: check.status for check in verify(graph).checks}}


def read(file: str) -> dict[str, dict[str, np.ndarray]]:
    """Seed → {input: array}."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            seed, _, name = key.partition("/")
            found.setdefault(seed, {})[name] = arrays[key]
    return found


def ratio(path: str, graph: bytes, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> float:
    """Outputs and gradient in one run, as a multiple of plain inference, in the runtime that is installed."""
    plain, whole = session_of(Path(path).read_bytes()), session_of(graph)
    own = {v.name for v in plain.get_inputs()}
    names = [v.name for v in plain.get_outputs() if v.type.startswith("tensor")]
    known = {v.name for v in whole.get_outputs()}
    asked = [*(n for n in names if n in known), *outputs]
    given = {name: array for name, array in feeds.items() if name in own}
    return by_turns(lambda: whole.run(asked, feeds), lambda: plain.run(names, given))


def session_of(model: bytes) -> Any:
    """On the CPU, with one thread, so that sessions that wait cost nothing."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def by_turns(one: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as long ``one`` takes as ``other``: the ratio of the medians of many runs in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) <= ROUNDS or (time.perf_counter() - start < LEAST and len(times[0]) < MOST):
        for kept, run in zip(times, (one, other), strict=True):
            begun = time.perf_counter()
            run()
            kept.append(time.perf_counter() - begun)
    first, second = (statistics.median(kept[1:]) for kept in times)
    return first / second


if __name__ == "__main__":
    main()
