"""Methods and metrics of other tools beside ours: the tables of the documentation, and the names in their packages.

The names are read in the sources of an installed package, which is not imported: that takes no torchvision and no
OpenVINO.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from onnx_gradcam.methods.heatmap import FUSIONS
from onnx_gradcam.methods.relevance import COMPOSITES, OF_FIRST_LAYER
from onnx_gradcam.methods.table import NAMES, SMOOTHINGS
from onnx_gradcam.metrics.table import METRICS
from onnx_gradcam.targets.text import READERS

DATA = Path(__file__).with_suffix(".toml")
PEERS: Mapping[str, str] = {
    "pytorch-grad-cam": "grad-cam",
    "torch-cam": "torchcam",
    "openvino_xai": "openvino-xai",
    "captum": "captum",
    "zennit": "zennit",
    "Quantus": "quantus",
}
"""Tool → its distribution."""


def known() -> Mapping[str, tuple[Callable[[str], str], Any]]:
    """Return for each kind of counterpart how it is written in a table, and what there is of the kind."""
    import onnx_gradcam

    return {
        "method": (lambda name: f"`{name}`", NAMES),
        "metric": (lambda name: f"`{name}`", METRICS),
        "smoothing": (lambda name: f"`--smooth {name}`", SMOOTHINGS),
        "fusion": (lambda name: f"`--fusion {name}`", FUSIONS),
        "target": (lambda name: f"`--target {name}:CLASS`", READERS),
        "rule": (lambda name: f"`lrp`, `rule={name}`", COMPOSITES),
        "first-rule": (lambda name: f"`lrp`, `rule.first={name}`", OF_FIRST_LAYER),
        "api": (lambda name: f"`ogc.{name}`", onnx_gradcam.__all__),
    }


def data() -> dict[str, Any]:
    """Return the names of all tools, as ``peers.toml`` has them."""
    with DATA.open("rb") as file:
        return tomllib.load(file)


def unknown_counterparts() -> list[str]:
    """Return what the tables call ours although it is in none of our tables."""
    every = [key.split(" ", 1) for part in ("methods", "metrics") for key in data()[part]]
    return [f"{kind} {name}" for kind, name in every if name not in known()[kind][1]]


def table(part: str) -> str:
    """Return the table of "methods" or "metrics", and below it what has no counterpart and why."""
    held = data()
    peers = [peer for peer in PEERS if any(peer in row for row in held[part].values())]
    titles = [f"{peer} {held['versions'][peer]}" for peer in peers]
    lines = ["| here | " + " | ".join(titles) + " |", "| --- |" + " --- |" * len(peers)]
    for key, row in held[part].items():
        kind, name = key.split(" ", 1)
        cells = [", ".join(f"`{theirs.strip()}`" for theirs in row.get(peer, ())) for peer in peers]
        lines.append("| " + " | ".join([known()[kind][0](name), *cells]) + " |")
    lines += ["", "Without a counterpart here:", "", "| there | why |", "| --- | --- |"]
    for row in held["without"][part]:
        theirs = [f"{peer}: " + ", ".join(f"`{n.strip()}`" for n in row[peer]) for peer in PEERS if peer in row]
        lines.append(f"| {'; '.join(theirs)} | {row['why']} |")
    return "\n".join(lines)


def listed(peer: str) -> list[str]:
    """Return all names of a tool in the tables, each as often as it is listed."""
    held = data()
    rows = [row for part in ("methods", "metrics") for row in [*held[part].values(), *held["without"][part]]]
    return [name for row in rows for name in row.get(peer, ())]


def exported(peer: str) -> set[str] | None:
    """Return the methods and metrics in the installed package of a tool; None where it is not installed."""
    try:
        files = distribution(PEERS[peer]).files or []
    except PackageNotFoundError:
        return None
    sources = {str(path): Path(str(path.locate())) for path in files if path.suffix == ".py"}
    return {
        name
        for pattern, read in WHERE[peer]
        for path, file in sources.items()
        if Path(path).match(pattern)
        for name in read(ast.parse(file.read_text("utf-8")))
    }


def _classes(tree: ast.Module) -> Iterator[str]:
    yield from (node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a package imports from its own modules."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _all(tree: ast.Module) -> Iterator[str]:
    for name, value in _assigned(tree):
        if name == "__all__":
            yield from (n for n in ast.literal_eval(value) if not n.startswith("_"))


def _quantus(tree: ast.Module) -> Iterator[str]:
    """Yield the keys of its table of metrics, and the methods of other packages that it names."""
    for name, value in _assigned(tree):
        if name == "AVAILABLE_METRICS" and isinstance(value, ast.Dict):
            for group in value.values:
                assert isinstance(group, ast.Dict)
                yield from map(str, map(ast.literal_eval, filter(None, group.keys)))
        if name.startswith("AVAILABLE_XAI_METHODS"):
            yield from ast.literal_eval(value)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield target.id, node.value


WHERE: Mapping[str, tuple[tuple[str, Callable[[ast.Module], Iterator[str]]], ...]] = {
    "pytorch-grad-cam": (("pytorch_grad_cam/__init__.py", _imported), ("pytorch_grad_cam/metrics/*.py", _classes)),
    "torch-cam": (
        ("torchcam/methods/activation.py", _all),
        ("torchcam/methods/gradient.py", _all),
        ("torchcam/metrics.py", _classes),
    ),
    "openvino_xai": (("openvino_xai/methods/__init__.py", _all), ("openvino_xai/metrics/__init__.py", _all)),
    "captum": tuple((f"captum/{part}/__init__.py", _all) for part in ("attr", "metrics", "robust", "concept")),
    "zennit": tuple((f"zennit/{part}.py", _classes) for part in ("attribution", "rules", "composites")),
    "Quantus": (("quantus/helpers/constants.py", _quantus),),
}
"""Tool → the files that name its methods and metrics, and how they do."""
