"""The same gradients by several roads, compared: our rules, onnxruntime-training, and torch's autograd.

    python tools/crosscheck.py --training PYTHON     # rewrites docs/crosscheck.md

PYTHON is that of an environment with onnxruntime-training; this one has torch, onnx2torch and an ordinary runtime.
`make crosscheck` sets up both. The exit status is 1 if two roads disagree and ours is not the right one.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from crosscheck_page import write
from crosscheck_training import Job, ratio, session_of

import onnx_gradcam as ogc
from onnx_gradcam.errors import OnnxGradcamError

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 9
LIMIT = 1e-5  # of the relative L2 distance of gradients at the layer, and in the median at the image
OURS, TRAINING, TORCH, ONNX2TORCH = ROADS = ("rules", "ort-training", "torch", "onnx2torch")
PAIRS = tuple(itertools.combinations(ROADS, 2))
KEYS = ("layer", "image")
VERIFIED = 2e-3  # what verify promises to catch, as a share of the slope
STEPS = (1e-2, 1e-3, 1e-4)  # of a difference quotient, as shares of the value's norm

Gradients = dict[str, dict[str, np.ndarray]]  # seed → {"layer": …, "image": …}


@dataclass(frozen=True)
class Subject:
    """A model file; ``module`` where it is an export of one of tools/architectures.py.

    ``layer``: where only this one is looked at. ``as_it_is``: by onnxruntime-training with nothing written out.
    """

    name: str
    path: str
    module: str = ""
    layer: str = ""
    as_it_is: bool = False


@dataclass
class Row:
    """What the roads make of one model: errors by pair, times by road, and why a road does not lead there.

    ``layer``: the largest relative L2 distance over the seeds; ``image``: (median of it, smallest cosine).
    ``judged``: whom differences uphold where two roads disagree. ``verified``: verify on the training graph.
    """

    model: str
    layer_name: str
    layer: dict[tuple[str, str], float] = field(default_factory=dict)
    image: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    judged: dict[tuple[str, str], str] = field(default_factory=dict)
    verified: str = ""


def examine(subject: Subject, python: str, folder: Path) -> Row | None:
    """Every road on one model; None for one that is no classifier in float32 with one image."""
    from onnx_gradcam.graph.names import CLASS_OUTPUT

    explainer = ogc.Explainer(subject.path, subject.layer or "auto")
    image, score = explainer.image_input, explainer.score
    if score.dense is not None or score.kind == "regression" or image.dtype != "float32" or len(explainer.inputs) > 1:
        return None
    names = [explainer.target_layers[0]] if subject.layer else [explainer.target_layers[0], image.name]
    row = Row(subject.name, names[0])
    feeds = drawn(explainer)
    graph = ogc.gradient_model(subject.path, names)
    session = session_of(graph.SerializeToString())
    outputs = [f"grad/{name}" for name in names]
    found: dict[str, Gradients] = {OURS: {}}
    classes: dict[str, np.ndarray] = {}
    for seed, fed in feeds.items():
        *gradients, classes[seed] = session.run([*outputs, CLASS_OUTPUT], fed)
        found[OURS][seed] = dict(zip(KEYS, gradients, strict=False))
    alone = ogc.gradient_model(subject.path, names[:1]).SerializeToString()
    row.times[OURS] = ratio(subject.path, alone, outputs[:1], next(iter(feeds.values())))
    by_training(subject, names, feeds, python, folder, found, row)
    if not subject.layer:
        by_torch(subject, names, score.value.name or "", feeds, classes, folder, found, row)
    compare(found, row)
    for pair in PAIRS:
        if row.layer.get(pair, 0) > LIMIT:
            row.judged[pair] = judge(graph, names[0], feeds, classes, found, pair)
    return row


def drawn(explainer: Any) -> dict[str, dict[str, np.ndarray]]:
    """Noise of SEEDS seeds, with the model's own top-1 as the target."""
    from onnx_gradcam.verify import sample

    found = {}
    for seed in range(SEEDS):
        fed = next(iter(sample.noise(explainer.inputs, explainer.image_input.shape[0], seed)))
        found[str(seed)] = {**fed, "target_index": np.full(len(fed[explainer.image_input.name]), -1, np.int64)}
    return found


def by_training(
    subject: Subject, names: Sequence[str], feeds: Any, python: str, folder: Path, found: dict[str, Gradients], row: Row
) -> None:
    """In a process of the other environment: a crash there ends nothing here."""
    given, out = folder / "feeds.npz", folder / "gradients.npz"
    np.savez(given, **{f"{seed}/{name}": a for seed, fed in feeds.items() for name, a in fed.items()})
    job = Job(subject.path, list(names), str(given), str(out), subject.as_it_is)
    command = [python, str(ROOT / "tools" / "crosscheck_training.py"), json.dumps(asdict(job), allow_nan=False)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        row.refused[TRAINING] = f"the process ends with {done.returncode}: {last}"
        return
    said = json.loads(done.stdout.splitlines()[-1])
    if "refused" in said:
        row.refused[TRAINING] = said["refused"].removeprefix("onnxruntime-training ")
        return
    with np.load(out) as arrays:
        keys = dict(zip(KEYS, (f"grad/{name}" for name in names), strict=False))
        found[TRAINING] = {seed: {k: arrays[f"{seed}/{key}"] for k, key in keys.items()} for seed in feeds}
    row.times.update({TRAINING: said["time"]} if "time" in said else {})
    row.verified = ", ".join(sorted(set(said.get("verify", {}).values())))


def by_torch(
    subject: Subject, names: Sequence[str], score: str, feeds: Any, classes: Any, folder: Path,
    found: dict[str, Gradients], row: Row,
) -> None:  # fmt: skip
    from crosscheck_torch import Unconverted, through_onnx2torch, through_the_torch_road

    try:
        found[ONNX2TORCH], row.times[ONNX2TORCH] = through_onnx2torch(
            subject.path, names[0], score, feeds, names[1], classes
        )
    except Unconverted as reason:
        row.refused[ONNX2TORCH] = str(reason)
    if not subject.module:
        row.refused[TORCH] = "no module, only a file"
        return
    exports = importlib.import_module("exports")  # of tests/support
    try:
        found[TORCH], row.times[TORCH] = through_the_torch_road(
            exports.small(subject.module), feeds, subject.path, folder
        )
    except OnnxGradcamError as error:
        row.refused[TORCH] = str(error).splitlines()[0]
    except Unconverted as reason:
        row.refused[TORCH] = str(reason)


# --- comparing -------------------------------------------------------------------------------------------------


def compare(found: dict[str, Gradients], row: Row) -> None:
    for a, b in PAIRS:
        if a in found and b in found:
            row.layer[a, b] = max(distance(found[a][s]["layer"], found[b][s]["layer"]) for s in found[a])
            images = [(found[a][s]["image"], found[b][s]["image"]) for s in found[a] if "image" in found[a][s]]
            if images:
                median = statistics.median(distance(*pair) for pair in images)
                row.image[a, b] = (median, min(cosine(*pair) for pair in images))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ in float64; infinite for other shapes."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """0 for other shapes."""
    if a.shape != b.shape:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.vdot(a, b) / ((np.linalg.norm(a) * np.linalg.norm(b)) or 1))


def judge(graph: Any, layer: str, feeds: Any, classes: Any, found: dict[str, Gradients], pair: tuple[str, str]) -> str:
    """Who is right, where the two are furthest apart: by differences along what parts them.

    (s(v + hd) − s(v − hd)) / 2h = ⟨G, d⟩ holds for the right G and fails for the other by ‖Ga − Gb‖, as d is the
    direction of Ga − Gb. A gradient of another shape than its value is wrong by that.
    """
    from onnx_gradcam.engine.session import Options
    from onnx_gradcam.graph.load import load
    from onnx_gradcam.graph.names import gradient_names
    from onnx_gradcam.verify.probe import Probe

    a, b = pair
    seed = max(feeds, key=lambda s: distance(found[a][s]["layer"], found[b][s]["layer"]))
    value = session_of(graph.SerializeToString()).run([layer], feeds[seed])[0]
    fits = [road for road in pair if found[road][seed]["layer"].shape == value.shape]
    if len(fits) < 2:
        other = next(road for road in pair if road not in fits)
        return (
            f"{', '.join(fits)}: {other} gives shape {list(found[other][seed]['layer'].shape)} for {list(value.shape)}"
        )
    fed = {**feeds[seed], "target_index": classes[seed]}
    model = load(graph).model
    names = gradient_names(model)
    assert names is not None
    at = Probe.of(model, names, Options(), fed, layer, value)
    ga, gb = (found[road][seed]["layer"].astype(np.float64) for road in pair)
    d = (ga - gb) / np.linalg.norm(ga - gb)
    claims = {road: float(np.vdot(g, d)) for road, g in ((a, ga), (b, gb))}
    errors: dict[str, list[float]] = {road: [] for road in pair}
    for step in STEPS:
        h = step * float(np.linalg.norm(value))
        ends = [(sign * h * d).astype(value.dtype) for sign in (1, -1)]
        slope = (at.score_at(ends[0]) - at.score_at(ends[1])) / (2 * h)
        for road, claim in claims.items():
            errors[road].append(abs(slope - claim) / float(np.linalg.norm(ga - gb)))
    best = {road: min(found) for road, found in errors.items()}
    winner = min(best, key=lambda road: best[road])
    loser = a if winner == b else b
    if best[winner] > 0.2 or best[loser] < 0.5:
        return "undecided: the difference drowns in rounding"
    return f"{winner}: off by {best[winner]:.0e} of what parts them, {loser} by {best[loser]:.1f}"


# --- which models ----------------------------------------------------------------------------------------------


def subjects(folder: Path) -> Iterator[tuple[str, list[Subject]]]:
    """The demo models, the modules of the first slice, the zoo's classifiers in float32."""
    import onnx
    from examine import format_of
    from sweep import demos, zoo

    exports = importlib.import_module("exports")
    yield "Demo models", [Subject(Path(s.path).stem, s.path) for s in demos()]
    found = []
    for name in exports.SMALL:
        path = folder / f"{name}.onnx"
        path.write_bytes(exports.small_model(name, "torchscript"))
        found.append(Subject(name, str(path), name))
    yield "Modules", found
    yield "Zoo", [Subject(Path(s.path).stem, s.path) for s in zoo() if format_of(onnx.load(s.path)) == "float32"]


def silent(folder: Path) -> list[Subject]:
    """Small nets in which onnxruntime-training's own gradient is wrong, and nothing says so."""
    new = importlib.import_module("nets").Net
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "Conv, auto_pad=SAME_UPPER": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        "AveragePool, symbolic batch": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        "Gelu, approximate=tanh": ("Gelu", {"approximate": "tanh"}),
    }
    found: list[Subject] = []
    for name, (op_type, attributes) in cases.items():
        net = new(20)
        x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="stem"), out="relu")
        weights = [net.random(4, 4, 3, 3)] if op_type == "Conv" else []
        net.head(net.op(op_type, x, *weights, out="doubtful", **attributes), 4)
        path = folder / f"silent-{len(found)}.onnx"
        path.write_bytes(net.model({"logits": ["N", 5]}).SerializeToString())
        found.append(Subject(name, str(path), layer="relu", as_it_is=True))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--training", required=True, metavar="PYTHON", help="of the environment of onnxruntime-training"
    )
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    groups: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def rows(chosen: Sequence[Subject]) -> list[Row]:
            found = []
            for subject in chosen:
                row = examine(subject, options.training, folder)
                if row is not None:
                    print(row, file=sys.stderr, flush=True)
                    found.append(row)
            return found

        for title, chosen in subjects(folder):
            groups[title] = rows(chosen)
        wrong = rows(silent(folder))
        mended = rows([Subject(s.name, s.path, layer=s.layer) for s in silent(folder)])
    write(ROOT / "docs" / "crosscheck.md", groups, wrong, mended)
    every = [row for found in [*groups.values(), mended] for row in found]
    against = [row for row in every for road in row.judged.values() if not road.startswith(OURS)]
    for row in against:
        print(f"{row.model}: {row.judged}", file=sys.stderr)
    missed = [row for row in wrong if row.verified != "fail" and row.layer[OURS, TRAINING] > VERIFIED]
    return int(bool(against) or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
