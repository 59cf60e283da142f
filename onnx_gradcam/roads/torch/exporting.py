"""``nn.Module`` → ONNX model with gradients, by our own rules or by torch's autograd."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from onnx_ir.passes.common import TopologicalSortPass

from onnx_gradcam.anatomy.score import Score, find_score
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.engine.session import IN_MEMORY_LIMIT
from onnx_gradcam.errors import InputError, LayerError, ModelError, ScoreError
from onnx_gradcam.graph.builder import HALF_PRECISION
from onnx_gradcam.graph.names import (
    CLASS_OUTPUT,
    SCORE_OUTPUT,
    TARGET_INDEX,
    GradientNames,
    claim,
    gradient_output,
    values_by_name,
)
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.roads.torch.joint import Chosen, joint
from onnx_gradcam.roads.torch.taps import evaluating, tapped
from onnx_gradcam.roads.torch.translations import TRANSLATIONS
from onnx_gradcam.targets import write_score


@dataclass(frozen=True)
class ExportRequest:
    """What is exported, and how, in the words of ``torch.onnx.export``."""

    module: Any
    example_inputs: tuple[Any, ...]
    dynamic_shapes: Any
    input_names: Sequence[str] | None
    output_names: Sequence[str] | None
    opset_version: int | None


@dataclass(frozen=True)
class Forward:
    """A module's forward pass as ONNX, and the decomposed program that it was translated from.

    ``outputs``: the names of the module's own; the activations of ``layers`` come behind them, in both.
    """

    model: ir.Model
    program: Any
    outputs: tuple[str, ...]
    layers: tuple[str, ...]


class Made(NamedTuple):
    """A model with gradients, and what is called what in it.

    ``outputs``: the names of the module's own; ``layers``: those of the target layers that are no inputs.
    """

    model: ir.Model
    names: GradientNames
    outputs: tuple[str, ...]
    layers: tuple[str, ...]


def by_rules(request: ExportRequest, names: Sequence[str], score: str) -> Made:
    """Return the exported graph, differentiated by the rules of this package."""
    forward = _forward(request, names, optimize=True)
    prepared, found = _scored(forward, score)
    whole = differentiate(*write_score(prepared, found), names)
    return Made(whole.model, whole.names, forward.outputs, forward.layers)


def by_autograd(request: ExportRequest, names: Sequence[str], score: str) -> Made:
    """Return the trace of torch's autograd through the exported program, translated to ONNX.

    What is explained is found on the ONNX graph, as everywhere, and looked up in the program that this came from.
    """
    forward = _forward(request, names, optimize=False)
    prepared, found = _scored(forward, score)
    _refuse_narrow(prepared, [found.value.name or "", *names])
    inputs = [v.name or "" for v in forward.model.graph.inputs]
    shapes = [list(v.shape or ()) for v in forward.model.graph.inputs]
    traced = joint(forward.program, _in_program(forward.model, found), names, inputs)
    called = _gradient_names({*inputs, *forward.outputs, *forward.layers}, names)
    first = request.example_inputs[0]
    model: ir.Model = _export(
        traced,
        (*request.example_inputs, torch.full([len(first)], -1, device=first.device)),
        dynamic_shapes=_named_axes([*shapes, shapes[0][:1]]),
        input_names=[*inputs, called.inputs[TARGET_INDEX]],
        opset_version=request.opset_version,
        custom_translation_table=TRANSLATIONS,
    ).model
    _name(model.graph, model.graph.outputs, [*forward.outputs, *called.outputs, *forward.layers])
    model.graph.outputs.extend(v for v in model.graph.inputs if v.name in names)
    return Made(model, called, forward.outputs, forward.layers)


def _gradient_names(taken: set[str], names: Sequence[str]) -> GradientNames:
    """Return what the parts of a gradient graph are called beside names that are ``taken``."""
    return GradientNames(
        score=claim(SCORE_OUTPUT, taken),
        class_index=claim(CLASS_OUTPUT, taken),
        inputs={TARGET_INDEX: claim(TARGET_INDEX, taken)},
        gradients={name: claim(gradient_output(name), taken) for name in names},
    )


def write(model: ir.Model, names: GradientNames, path: Path) -> Path:
    """Write one file that tells in its metadata what is called what in it, and return its path.

    Where that would exceed what protobuf can hold, the weights are written beside it, in ``<name>.data``.
    """
    model.metadata_props.update(names.as_metadata())
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    is_large = sum(t.nbytes for t in tensors) > IN_MEMORY_LIMIT
    ir.save(model, path, external_data=f"{path.name}.data" if is_large else None)
    return path


def _forward(request: ExportRequest, names: Sequence[str], *, optimize: bool) -> Forward:
    _check_inputs(request)
    parameters = list(request.input_names or _parameters(request.module))[: len(request.example_inputs)]
    layers = [name for name in names if name not in parameters]
    _refuse_taken(layers, [*parameters, *(request.output_names or ())])
    with evaluating(request.module), tapped(request.module, layers):
        with torch.no_grad():
            request.module(*request.example_inputs)  # what is wrong with a layer is said before the export
        found = _export(
            request.module,
            request.example_inputs,
            dynamic_shapes=request.dynamic_shapes,
            input_names=request.input_names,
            output_names=[*request.output_names, *layers] if request.output_names else None,
            opset_version=request.opset_version,
            optimize=optimize,
        )
    values = list(found.model.graph.outputs)
    own = values[: len(values) - len(layers)]
    _name(found.model.graph, values[len(own) :], layers)
    return Forward(found.model, found.exported_program, tuple(v.name or "" for v in own), tuple(layers))


def _name(graph: ir.Graph, values: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Name ``values``; others of these names, which the exporter gave after their operators, get another."""
    known = ir.convenience.create_value_mapping(graph)
    for value, name in zip(values, names, strict=True):
        known.pop(value.name or "", None)
        other = known.pop(name, value)
        if other is not value:
            other.name = next(n for n in (f"{name}_{k}" for k in count(1)) if n not in known)
            known[other.name] = other
        value.name = name
        known[name] = value


def _export(module: Any, inputs: tuple[Any, ...], **settings: Any) -> Any:
    return torch.onnx.export(module, inputs, dynamo=True, verbose=False, **settings)


def _scored(forward: Forward, score: str) -> tuple[ir.Model, Score]:
    """Return the forward pass in the form that is differentiated, without activations as outputs, and its score."""
    prepared = prepare(forward.model)
    kept = [v for v in prepared.graph.outputs if v.name in forward.outputs]
    prepared.graph.outputs[:] = kept
    _read_through(prepared, forward.layers)
    return prepared, find_score(prepared.graph, score)


def _read_through(model: ir.Model, layers: Sequence[str]) -> None:
    """Let what is behind a layer read the layer's value, where the optimiser made this a copy beside the path."""
    values = values_by_name(model.graph)
    for layer in layers:
        copy = values[layer].producer()
        if copy is None or copy.op_type != "Identity" or (original := copy.inputs[0]) is None:
            continue
        for node, index in tuple(original.uses()):
            if node is not copy:
                node.replace_input_with(index, values[layer])
    TopologicalSortPass()(model)


def _in_program(model: ir.Model, score: Score) -> Chosen:
    """Return the node of the program whose tensor is the score."""
    if score.dense is not None:
        raise ScoreError(
            "autodiff='torch' explains classifiers and regressions, and this model has many scores for each image",
            where=f"score {score.name!r}",
            hint="autodiff='onnx'",
        )
    value = values_by_name(model.graph)[score.value.name or ""]
    maker = value.producer()
    node = None if maker is None else maker.meta.get("node")
    if node is None or not isinstance(node.meta["val"], torch.Tensor):
        raise ScoreError(
            f"the score {score.name!r} is not the result of one operator of torch",
            hint="autodiff='onnx', or another score",
            name=score.name,
        )
    return Chosen(node, score.kind, score.class_axis)


def _check_inputs(request: ExportRequest) -> None:
    for k, x in enumerate(request.example_inputs):
        if not isinstance(x, torch.Tensor):
            raise InputError(
                f"example input {k} is {type(x).__name__}, not a tensor",
                hint="a tuple with the tensors of one call: (torch.zeros(2, 3, 224, 224),)",
            )


def _refuse_taken(layers: Sequence[str], names: Sequence[str]) -> None:
    for name in set(layers).intersection(names):
        raise LayerError(
            f"the layer {name!r} is called like an input or output of the exported model",
            hint="input_names=[…] and output_names=[…] that differ",
            name=name,
        )


def _refuse_narrow(prepared: ir.Model, names: Sequence[str]) -> None:
    values = values_by_name(prepared.graph)
    for name in names:
        if values[name].dtype in HALF_PRECISION:
            raise ModelError(
                f"autodiff='torch' is for float32 and float64, and {name!r} is {values[name].dtype}",
                hint="autodiff='onnx', which scales gradients that 16 bits would round to zero",
                name=name,
            )


def _named_axes(shapes: Sequence[Sequence[Any]]) -> tuple[dict[int, Any], ...]:
    """Return ``dynamic_shapes``: each unknown length by its name where it comes first, and inferred elsewhere."""
    seen: set[str] = set()
    found = []
    for shape in shapes:
        names = {k: str(d) for k, d in enumerate(shape) if not isinstance(d, int)}
        found.append({k: torch.export.Dim.AUTO if name in seen else name for k, name in names.items()})
        seen.update(names.values())
    return tuple(found)


def _parameters(module: Any) -> list[str]:
    """Return the names of the inputs, as the exporter gives them."""
    return list(inspect.signature(module.forward).parameters)
