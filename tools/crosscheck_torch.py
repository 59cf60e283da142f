"""The gradients of an ONNX file or a module by torch's autograd, for `tools/crosscheck.py`."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from crosscheck_training import by_turns, ratio, session_of
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.graph.load import load

Feeds = Mapping[str, Mapping[str, np.ndarray]]
Gradients = dict[str, dict[str, np.ndarray]]  # seed → {"layer": …, "image": …}


class Unconverted(Exception):
    """A converter does not take the model, or what it makes does not run."""


def converter() -> Callable[[Any], Any]:
    """onnx2torch's. It imports torchvision for operators that no classifier here has; that has no build for the CPU
    alone, and so is stood in for while it does."""
    absent = [f"torchvision{part}" for part in ("", ".transforms", ".transforms.functional", ".ops")]
    for name in absent:
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
        sys.modules[name] = module
    try:
        from onnx2torch import convert
    finally:
        for name in absent:
            del sys.modules[name]
    found: Callable[[Any], Any] = convert
    return found


def through_onnx2torch(
    path: str, layer: str, score: str, feeds: Feeds, image: str, classes: Mapping[str, np.ndarray]
) -> tuple[Gradients, float]:
    """Gradients, and the time as a multiple of the module's own inference.

    A further input is added to the layer, so that its gradient is the layer's; ``classes`` are those explained.
    """
    import torch

    convert = converter()
    try:
        shape = activation_shape(path, layer, next(iter(feeds.values())))
        proto, names = with_delta(path, layer, score, shape)
        module = convert(proto).eval()
        found = {}
        for seed, fed in feeds.items():
            given = {n: torch.from_numpy(np.array(fed[n])) for n in names if n != "delta"}
            given[image].requires_grad_()
            given["delta"] = torch.zeros(shape, requires_grad=True)
            y = score_of(module(*(given[n] for n in names)), classes[seed])
            wanted = [given["delta"], given[image]]
            gradients = torch.autograd.grad(y.sum(), wanted)
            found[seed] = {k: g.numpy() for k, g in zip(("layer", "image"), gradients, strict=True)}
    except Exception as error:  # a foreign converter: whatever it raises, it does not convert this model
        raise Unconverted(reason(error)) from error
    fixed = {n: t.detach() for n, t in given.items()}

    def explain() -> None:
        delta = fixed["delta"].requires_grad_()
        logits = module(*({**fixed, "delta": delta}[n] for n in names))
        torch.autograd.grad(score_of(logits, classes[seed]).sum(), [delta])

    def infer() -> None:
        with torch.no_grad():
            module(*(fixed[n] for n in names))

    return found, by_turns(explain, infer)


def reason(error: Exception) -> str:
    """In a few words."""
    operator = re.search(r"operation_type='(\w+)', version=(\d+)", str(error))
    if operator:
        return f"no {operator[1]} of opset {operator[2]}"
    return "its module does not run: " + " ".join(str(error).split())[:80]


def with_delta(path: str, layer: str, score: str, shape: Sequence[int]) -> tuple[Any, list[str]]:
    """The model as it is, with ``delta`` added to the layer and the score tensor as its only output; its inputs."""
    model = load(path).model.clone()
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    value = values[layer]
    moved, delta = ir.val("moved"), ir.val("delta", dtype=ir.DataType.FLOAT, shape=shape)
    for node, i in list(value.uses()):
        node.replace_input_with(i, moved)
    producer = value.producer()
    assert producer is not None
    graph.insert_after(producer, ir.node("Add", [value, delta], outputs=[moved], name="moved"))
    graph.inputs.append(delta)
    out = values[score]
    out.dtype = out.dtype or ir.DataType.FLOAT
    graph.outputs[:] = [out]
    RemoveUnusedNodesPass()(model)
    names = [v.name or "" for v in graph.inputs if v.name not in graph.initializers]
    return ir.to_proto(model), names


def activation_shape(path: str, layer: str, feeds: Mapping[str, np.ndarray]) -> Sequence[int]:
    """Of the layer, from a run."""
    model = load(path).model.clone()
    value = ir.convenience.create_value_mapping(model.graph)[layer]
    value.dtype = ir.DataType.FLOAT
    model.graph.outputs[:] = [value]
    session = session_of(ir.to_proto(model).SerializeToString())
    given = {v.name: feeds[v.name] for v in session.get_inputs()}
    shape: Sequence[int] = session.run([layer], given)[0].shape
    return shape


def score_of(logits: Any, classes: np.ndarray) -> Any:
    """The score of each image's class; of one logit, itself for class 1 and its negative for class 0."""
    import torch

    y = logits.reshape(len(classes), -1)
    if y.shape[1] == 1:
        return y[:, 0] * torch.from_numpy(2.0 * classes - 1).to(y.dtype)
    return y.gather(1, torch.from_numpy(classes)[:, None])[:, 0]


def through_the_torch_road(module: Any, feeds: Feeds, plain: str, folder: Path) -> tuple[Gradients, float]:
    """Of a module of tools/architectures.py, by torch's autograd, exported and run by onnxruntime."""
    import torch

    import onnx_gradcam as ogc

    quiet = importlib.import_module("exports").quiet  # of tests/support
    layer = module.last_stage
    x = torch.zeros(2, 3, module.size, module.size)

    def exported(layers: Sequence[str], name: str) -> bytes:
        shapes = ({0: torch.export.Dim("N")},)
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
        with quiet():
            path = ogc.roads.torch.export(
                module, (x,), folder / name, layers, dynamic_shapes=shapes, autodiff="torch", **names
            )
        return path.read_bytes()

    try:
        whole, alone = exported([layer, "x"], "torch.onnx"), exported([layer], "layer.onnx")
    except torch.onnx.OnnxExporterError as error:
        operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
        said = f"no {operator[1]}" if operator else str(error).splitlines()[0]
        raise Unconverted(f"torch's exporter: {said}") from error
    session, outputs = session_of(whole), [f"grad/{layer}", "grad/x"]
    found = {}
    for seed, fed in feeds.items():
        gradients = session.run(outputs, dict(fed))
        found[seed] = dict(zip(("layer", "image"), gradients, strict=True))
    return found, ratio(plain, alone, outputs[:1], dict(next(iter(feeds.values()))))
