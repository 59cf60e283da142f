"""The modules that a graph was exported from, by the paths that exporters leave on its nodes.

torch's dynamo exporter writes the paths of the modules around a node into its metadata, its TorchScript exporter into
its name: ``/layer4/layer4.2/conv3/Conv`` is of the module ``layer4.2.conv3``. There the second call of a module
``relu`` goes by the name ``relu_1``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import onnx_ir as ir

from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.flow import carries

SCOPES = "pkg.torch.onnx.name_scopes"  # the modules from the outermost, "", inwards, and the node itself


@dataclass(frozen=True)
class Modules:
    """The modules that a graph was exported from.

    Attributes:
        outputs: for each module path the real values made in it that something outside of it reads, in graph order.
        calls: for each module path the paths under which further calls of the same module go.
    """

    outputs: Mapping[str, Sequence[ir.Value]]
    calls: Mapping[str, Sequence[str]]

    def value(self, path: str) -> ir.Value | None:
        """Return what the module ``path`` returns; None where no node has that path.

        Raises:
            LayerError: the module returns several values; the error names them.
        """
        values = self._values(path)
        if len(values) > 1:
            raise LayerError(
                f"the module {path!r} gives {len(values)} values: it has several outputs, or is called several times",
                where=", ".join(repr(v.name) for v in values),
                hint="one of these by its name",
                name=path,
                values=tuple(v.name for v in values),
            )
        return values[0] if values else None

    def outermost(self) -> dict[ir.Value, str]:
        """Return for each value that a module returns the path of the outermost such module."""
        paths: dict[ir.Value, str] = {}
        for path in sorted(self.outputs, key=lambda p: (p.count("."), len(p))):
            if len(values := self._values(path)) == 1:
                paths.setdefault(values[0], path)
        return paths

    def _values(self, path: str) -> list[ir.Value]:
        paths = [path, *self.calls.get(path, ())]
        return [v for p in paths for v in self.outputs.get(p, ())]


def modules(graph: ir.Graph) -> Modules:
    """Return the modules whose paths an exporter left in ``graph``."""
    around = _around(graph)
    outputs: dict[str, list[ir.Value]] = {}
    weights: dict[str, set[ir.Value]] = {}
    named: set[str] = set()
    for node in graph:
        paths = around[node]
        if SCOPES not in node.metadata_props:
            named.update(paths)
        for path in paths:
            weights.setdefault(path, set()).update(v for v in node.inputs if v is not None and v.is_initializer())
        for value in node.outputs:
            for path in paths:
                if carries(value) and _leaves(value, path, around):
                    outputs.setdefault(path, []).append(value)
    calls = {path: [p for p in _numbered(path, named) if weights[p] == weights[path]] for path in named}
    return Modules(outputs, calls)


def _leaves(value: ir.Value, path: str, around: Mapping[ir.Node, Sequence[str]]) -> bool:
    return value.is_graph_output() or any(path not in around.get(n, ()) for n in value.consumers() if _is_read(n))


def _is_read(node: ir.Node) -> bool:
    """Tell whether it is of the model: nothing reads the real forms of quantized values, which stand ready."""
    return any(v.uses() or v.is_graph_output() for v in node.outputs)


def _numbered(path: str, known: set[str]) -> Iterator[str]:
    return takewhile(known.__contains__, (f"{path}_{k}" for k in count(1)))


def _around(graph: ir.Graph) -> dict[ir.Node, tuple[str, ...]]:
    """Return the paths of the modules around each node; a node without a path is of the modules of what reads it."""
    around: dict[ir.Node, tuple[str, ...]] = {}
    for node in reversed(list(graph)):
        output = node.outputs[0]
        read = (around[n] for n in output.consumers() if n in around)
        own = _from_metadata(node), _from_name(node.name or ""), _from_name(output.name or "")
        around[node] = next((paths for paths in own if paths is not None), next(read, ()))
    return around


def _from_metadata(node: ir.Node) -> tuple[str, ...] | None:
    written = node.metadata_props.get(SCOPES)
    return None if written is None else tuple(path for path in ast.literal_eval(written)[:-1] if path)


def _from_name(name: str) -> tuple[str, ...] | None:
    """Return the module paths in a name: of ``/a/a.0/b/Conv`` they are a, a.0 and a.0.b.

    A part of a container is called by the container's name and its own.
    """
    if not name.startswith("/"):
        return None
    paths: list[str] = []
    before = ""
    for part in name.split("/")[1:-1]:
        parent = paths[-1] if paths else ""
        if before and part.startswith(f"{before}."):
            paths.append(parent + part[len(before) :])
        else:
            paths.append(f"{parent}.{part}" if parent else part)
        before = part
    return tuple(paths)
