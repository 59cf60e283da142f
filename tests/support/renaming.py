"""The same model under other names: values, nodes and parameters, in bodies, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx

# Every name that this package writes, or may come to write, into a graph.
RESERVED = (
    "grad/score", "target_index", "score/logits", "grad_scale", "grad/class_index", "score/cell", "target/mask",
    "grad/total", "score/probability", "score/level", "ogc/grad/score", "score/ranking", "score/boxes", "score/sides",
    "score/grids", "target/weights", "target/box", "target/matrix", "target/origin", "target/embedding",
    "target/tokens", "cam", "heatmap", "ogc/heatmap", "ogc/target_index", "delta/x", "moved/x", "held/x", "grad",
    "score", "class_index", "grad/", "score/", "target/", "opset18/const_3", "sum/Add_1", "form/Conv_1", "grad/Mul_1",
    "grad/const_2", "grad/Identity_3", "score/ArgMax_1", "score/Identity_2", "grad/curvature/score", "grad/Split_4:0",
)  # fmt: skip


def reserved(k: int, name: str) -> str:
    """Return a name of ours: those above, then what the gradient, the constant … of an earlier value is called."""
    if k < len(RESERVED):
        return RESERVED[k]
    form = ("grad/{}", "{}/folded", "{}/dequantized", "grad/curvature/{}", "opset18/{}", "score/{}", "{}_grad")
    return form[k % len(form)].format(f"{RESERVED[k % len(RESERVED)]}{k}" if k % 2 else name)


def in_unicode(k: int, name: str) -> str:
    """Return letters of several scripts; neighbours differ in how an accent is composed only."""
    accent = "\u00e9" if k % 2 else "e\u0301"
    return f"слой/卷积 🦊 {accent}{k // 2}"


def with_spaces(k: int, name: str) -> str:
    """Return blanks of several kinds, at the ends, too."""
    return f" {name}\t{' ' * (k % 3)}\n{k} "


def long(k: int, name: str) -> str:
    """Return 10,000 characters."""
    return f"{'x' * 9990}{k:010}"


def by_case(k: int, name: str) -> str:
    """Return names that differ in the case of their letters only."""
    return "".join(c.upper() if k >> i & 1 else c for i, c in enumerate("abcdefghijklm"))


def shadowed(k: int, name: str) -> str:
    """Return short names that all look like those of nodes and gradients of others."""
    return f"{'grad/' * (1 + k // 2)}{'x' if k % 2 else 'y'}"


Scheme = Callable[[int, str], str]
SCHEMES: tuple[Scheme, ...] = (reserved, in_unicode, with_spaces, long, by_case, shadowed)


def renamed(model: onnx.ModelProto, scheme: Scheme) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy whose values and nodes are named by a scheme, and the new name of each value."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    new: dict[str, str] = {"": ""}

    def name(old: str) -> str:
        if old not in new:
            new[old] = scheme(len(new) - 1, old)
        return new[old]

    for graph in graphs(copy.graph):
        for held in [*graph.input, *graph.initializer, *graph.output, *graph.value_info]:
            held.name = name(held.name)
        for node in graph.node:
            node.input[:] = [name(n) for n in node.input]
            node.output[:] = [name(n) for n in node.output]
        for at, node in enumerate(graph.node):
            node.name = scheme(at, f"node_{at}")
        for tensor in graph.sparse_initializer:
            tensor.values.name = name(tensor.values.name)
    assert len(set(new.values())) == len(new), "two values have one name"
    return copy, new


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Return a graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
                yield from graphs(body)
