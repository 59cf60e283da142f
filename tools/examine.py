"""One model through inspect, explain and verify: what `tools/sweep.py` runs in a process of its own.

    python tools/examine.py SUBJECT GIB SECONDS CORE

SUBJECT is the JSON of a ``Subject``; a ``Row`` is printed as JSON. GIB of memory, SECONDS of processor time, on CORE.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from expected import MAPS, Expectation, differences, reading

METHODS = ("gradcam", "layercam", "eigencam")
ROUNDS = 3
Verdict = Literal["explained", "refused", "missing", "failed", "timeout"]


@dataclass(frozen=True)
class Subject:
    """A model, the photo that it is shown (noise where it takes none), and the photo's preprocessing.

    ``preprocess``: the JSON form, or "auto". ``side``: for every spatial side of the input, where the file's own are
    too large to try. ``verify``: whether to. ``expected``: the entries of an ``Expectation``; None where nobody said
    what to expect.
    """

    path: str
    photo: str | None = None
    preprocess: dict[str, Any] | str = "auto"
    side: int | None = None
    verify: bool = True
    expected: dict[str, Any] | None = None

    @property
    def model(self) -> str:
        """What to call it in the table."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Row:
    """A row of the table.

    ``forward_error``: largest difference of an output from the untouched model's, relative. ``gradient_error``: of the
    worst VJP rule against float64 differences, relative. ``time``: Grad-CAM, as a multiple of plain inference.

    ``reading``: the kind of the score, its classes, levels, and the grids of the layers. ``expected``: "yes" where that
    is what an expert reads, "no", or "nothing" where nobody said what to expect.

    ``verdict``: "explained", where every VJP rule on the path passes at its node, no check of verify fails and nothing
    is read otherwise than expected; "refused", for what is not meant to work; "missing", for what should and does not,
    a file that cannot be read among it; "failed", where something is wrong; "timeout".
    """

    model: str
    opset: str = ""
    format: str = ""
    layer: str = ""
    score: str = ""
    reading: str = ""
    expected: str = ""
    forward_error: float | None = None
    gradient_error: float | None = None
    time: float | None = None
    verdict: Verdict = "failed"
    message: str = ""


def confine(gib: float, seconds: float, core: int) -> None:
    """Limit this process."""
    size, longest = int(gib * 2**30), int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (longest, longest + 1))
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {available[core % len(available)]})


def examine(subject: Subject) -> Row:
    """Go through all steps, and stop at the first that an error ends."""
    from onnx_gradcam.errors import OnnxGradcamError

    known: dict[str, Any] = {}
    try:
        _inspect_explain_verify(subject, known)
    except OnnxGradcamError as error:
        known["verdict"], known["message"] = judged(error)
    except Exception as error:  # a mistake of ours, or no memory left: a finding, of which stderr has the whole
        traceback.print_exc()
        known["message"] = f"{type(error).__name__}: {error}"
    return Row(subject.model, **known)


def _inspect_explain_verify(subject: Subject, known: dict[str, Any]) -> None:
    """Fill in the columns of the row, as soon as each is known. The product looks at the model before anything else."""
    import onnx_gradcam as ogc
    from onnx_gradcam.engine.session import Options, Session
    from onnx_gradcam.jobs.inspect import overview

    model = subject.path if subject.side is None else resized(subject.path, subject.side)
    found = overview(model)
    known.update(opset_and_format(subject.path))
    known.update(score=found.score, layer=" ".join(layer.name for layer in found.layers if layer.chosen))
    with ogc.Explainer(model, providers=["cpu"]) as explainer:
        known.update(score=explainer.score.value.name or "", layer=" ".join(explainer.target_layers))
        explainer.warm_up()
        plain = Session(model if isinstance(model, bytes) else Path(model), Options(("cpu",)))
        feeds = first_that_runs(plain, explainer, subject)
        explained = {method: explainer.explain(feeds, method=method) for method in METHODS}
        known["time"] = seconds(lambda: explainer.explain(feeds)) / seconds(lambda: plain.run(plain.outputs, feeds))
        read = reading(explainer, explained[MAPS])
    unlike = [] if subject.expected is None else differences(Expectation.of(subject.expected), read)
    known.update(reading=str(read), expected="nothing" if subject.expected is None else "no" if unlike else "yes")
    notes = unlike + [note for method, explanation in explained.items() for note in remarks(method, explanation)]
    if subject.verify:
        report = ogc.verify(model, x=feeds, providers=["cpu"])
        checks = {check.name: check for check in report.checks}
        known["forward_error"] = checks["forward pass"].error
        known["gradient_error"] = checks["node by node"].error
        notes += [f"verify: {c.name} {c.status}: {c.message}" for c in report.checks if c.status != "pass"]
        failed = any(c.status == "fail" for c in report.checks) or checks["node by node"].status != "pass"
    else:
        failed = False
        notes.append("not verified")
    known.update(verdict="failed" if failed or unlike else "explained", message="; ".join(notes))


def judged(error: Any) -> tuple[Verdict, str]:
    """What an error of this package means for the model.

    Refused is what the error itself says is by design, and a score that no gradient can reach; anything else that
    keeps a model from being explained is missing, unless it is a mistake of ours or an input that does not fit.
    """
    from onnx_gradcam import errors

    message = ": ".join(filter(None, [error.what, error.where]))
    operators: Any = error.data.get(
        "operators"
    )  # where every path to the score ends; those of NO_GRADIENT are left out
    unreachable = isinstance(error, errors.NoGradientPath) or (operators is not None and set(operators) <= {"Cast"})
    if error.data.get("by_design") or unreachable:
        return "refused", message
    if isinstance(error, errors.ForwardMismatch | errors.InputError | errors.ProviderError):
        return "failed", message
    if error.what.startswith("the runtime"):
        return "failed", message
    return "missing", message


def remarks(method: str, explanation: Any) -> list[str]:
    """What is odd about the map: blank, not finite, or all in one place."""
    import numpy as np

    if not np.isfinite(explanation.heatmap[0]).all():
        return [f"{method} is not finite"]
    if explanation.is_blank[0]:
        return [f"{method} is blank"]
    cam = explanation.layers[0].cam[0]
    if len(explanation.layers) == 1 and cam.size > 1 and cam.max() > 0.99 * cam[cam > 0].sum():
        return [f"{method} is all in one place"]
    return []


def first_that_runs(plain: Any, explainer: Any, subject: Subject) -> dict[str, Any]:
    """The photo, or the first noise that the untouched model takes. Raises what it says to the last of these."""
    from onnx_gradcam.errors import InputError, ModelError

    refused: list[InputError | ModelError] = []
    for feeds in candidates(explainer, subject):
        try:
            plain.run(plain.outputs, feeds)
        except (InputError, ModelError) as error:
            refused.append(error)
        else:
            return feeds
    raise refused[-1]


def candidates(explainer: Any, subject: Subject) -> Iterator[dict[str, Any]]:
    """What to feed: the photo, with noise for other inputs, then noise of several sizes."""
    from onnx_gradcam.errors import InputError, PreprocessError
    from onnx_gradcam.photos.decode import decode
    from onnx_gradcam.photos.tensor import to_tensor
    from onnx_gradcam.verify import sample

    image = explainer.image_input.name
    batch = explainer.image_input.shape[0] or 1
    drawn = list(sample.noise(explainer.inputs, batch, 0))
    if subject.photo:
        try:
            x, _ = to_tensor(decode(subject.photo), explainer.preprocessing(subject.preprocess).preprocess)
        except (InputError, PreprocessError):
            pass
        else:
            yield {**drawn[0], image: x.repeat(batch, axis=0)}
    yield from drawn


def seconds(run: Callable[[], object]) -> float:
    """The median of a few runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def resized(path: str, side: int) -> bytes:
    """Return the model in a file for an input of another spatial size."""
    import onnx

    proto = onnx.load(path)
    resize(proto, side)
    model: bytes = proto.SerializeToString()
    return model


def opset_and_format(path: str) -> dict[str, str]:
    """Return the columns that tell how a model file is written."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    return {"opset": opset_of(proto), "format": format_of(proto)}


def resize(proto: Any, side: int) -> None:
    """Give every input of rank 4 or more another spatial size, and leave the sizes of what follows open."""
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = side
    for value in proto.graph.output:
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            if k > 1:
                dim.dim_param = f"{value.name}_{k}"
    del proto.graph.value_info[:]


def opset_of(proto: Any) -> str:
    """The version of ai.onnx, and the other domains that nodes are of."""
    used = sorted({node.domain for node in proto.graph.node} - {"", "ai.onnx"})
    versions = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    return " ".join([str(versions.get("ai.onnx", "?")), *used])


def format_of(proto: Any) -> str:
    """How the weights are stored and the products computed."""
    import onnx

    operators = {node.op_type for node in proto.graph.node}
    if "DynamicQuantizeLinear" in operators:
        return "int8 dynamic"
    if any(op.startswith(("QLinear", "QGemm")) for op in operators):
        return "int8 QOperator"
    if "DequantizeLinear" in operators:
        return "int8 QDQ"
    constants = [a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")]
    kinds = Counter[str]()
    for tensor in [*proto.graph.initializer, *constants]:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        kinds[{"float": "float32", "double": "float64"}.get(kind, kind)] += max(1, _size(tensor.dims))
    floats = Counter({kind: count for kind, count in kinds.items() if "float" in kind})
    return floats.most_common(1)[0][0] if floats else "float32"


def _size(dims: Any) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size


if __name__ == "__main__":
    confine(float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    from onnx_gradcam.results.records import without_nan

    print(json.dumps(without_nan(asdict(examine(Subject(**json.loads(sys.argv[1]))))), allow_nan=False))
