"""What it costs to look at a model without running it: one command, `make bench-analysis`.

    python tools/bench_analysis.py [--nodes 500] [--rounds 3] [MODEL.onnx ...]

Networks of so many nodes, in the shapes that make an analysis slow, then the models that are named, or those of the zoo
(ONNX_GRADCAM_ZOO names its folder). Printed are the processor's seconds of loading, of preparing (shapes, opset), of
the analysis (heads and layers), and the seconds from start to end of a process that runs ``inspect``, by the clock and
by the processor; of several rounds the least. ``*`` marks what is above its limit: 0.2 s and 2 s.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODES, ROUNDS = 500, 3
ANALYSIS_LIMIT, INSPECT_LIMIT = 0.2, 2.0  # seconds


@dataclass(frozen=True)
class Cost:
    """What one model costs, in seconds; ``inspect_processor`` is what a process of ``inspect`` takes of a core."""

    model: str
    nodes: int
    load: float
    prepare: float
    analysis: float
    inspect: float
    inspect_processor: float


def analysis_cost(path: Path) -> tuple[int, float, float, float]:
    """Return how many nodes a model has, and the processor's seconds of loading, preparing and analysing it."""
    from onnx_gradcam.anatomy.layers import candidates
    from onnx_gradcam.anatomy.score import find_heads
    from onnx_gradcam.graph.load import load
    from onnx_gradcam.graph.prepare.prepare import prepare

    start = time.process_time()
    source = load(path)
    loaded = time.process_time()
    graph = prepare(source.model).graph
    prepared = time.process_time()
    heads = find_heads(graph)
    if heads:
        candidates(graph, heads[0])
    end = time.process_time()
    return len(list(graph)), loaded - start, prepared - loaded, end - prepared


def inspect_cost(path: Path) -> tuple[float, float]:
    """Return the seconds of a process that inspects a model: by the clock, and of a core."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "onnx_gradcam", "inspect", str(path)]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cost(path: Path, rounds: int = ROUNDS) -> Cost:
    """Return the least that each step took in some rounds."""
    analyses = [analysis_cost(path) for _ in range(rounds)]
    inspections = [inspect_cost(path) for _ in range(rounds)]
    nodes, *steps = map(min, zip(*analyses, strict=True))
    return Cost(path.stem, int(nodes), *steps, *map(min, zip(*inspections, strict=True)))


def written(folder: Path, nodes: int) -> Iterator[Path]:
    """Write the networks of tests/support/long_nets.py, one after the other, and yield their paths."""
    import onnx

    sys.path.insert(0, str(ROOT / "tests" / "support"))
    long_nets = importlib.import_module("long_nets")
    for shape in long_nets.SHAPES:
        path = folder / f"{shape}.onnx"
        onnx.save(long_nets.long_model(shape, nodes), path)
        yield path


def zoo() -> list[Path]:
    """Return the models of $ONNX_GRADCAM_ZOO, none where it is not set."""
    folder = os.environ.get("ONNX_GRADCAM_ZOO")
    if not folder:
        return []
    index = json.loads((Path(folder) / "zoo.json").read_text("utf-8"))
    return [Path(folder) / entry["file"] for _, entry in sorted(index.items())]


def line(found: Cost) -> str:
    """Return a line of the table."""
    slow = "*" if found.analysis > ANALYSIS_LIMIT else " "
    late = "*" if found.inspect_processor > INSPECT_LIMIT else " "
    return (
        f"{found.model:28}{found.nodes:7}{found.load:9.3f}{found.prepare:9.3f}{found.analysis:10.3f}{slow}"
        f"{found.inspect:10.2f}{found.inspect_processor:10.2f}{late}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--nodes", type=int, default=NODES, help="of each network that is written")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    print(f"{'model':28}{'nodes':>7}{'load':>9}{'prepare':>9}{'analysis':>10} {'inspect':>10}{'processor':>10}")
    with tempfile.TemporaryDirectory() as folder:
        paths = options.models or [*written(Path(folder), options.nodes), *zoo()]
        with suppress(BrokenPipeError):
            for path in paths:
                print(line(cost(path, options.rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
