"""A model that has forgotten what it learnt: the values of its weights in a random order, layer by layer."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.operators import CONVOLUTIONS, PRODUCTS, REORDERS, STORES
from onnx_gradcam.graph.prepare.branches import RECURRENT

RESCALING = frozenset(
    "BatchNormalization GroupNormalization InstanceNormalization LayerNormalization RMSNormalization".split()
)
LEARNT = CONVOLUTIONS | PRODUCTS | frozenset(RECURRENT)
FLOAT_TYPES = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16))
BYTE_TYPES = frozenset((ir.DataType.INT8, ir.DataType.UINT8))


@dataclass(frozen=True)
class WeightedLayer:
    """A layer with weights.

    Attributes:
        name: the name of the value that the layer computes.
        weights: the names of its initializers, those of normalisations after it included.
    """

    name: str
    weights: tuple[str, ...]


def weighted_layers(source: Source) -> tuple[WeightedLayer, ...]:
    """Return the layers that have weights, the last one first.

    Raises:
        ModelError: the graph of the model has no layer with weights.
    """
    layers: list[WeightedLayer] = []
    taken: set[str] = set()
    for node in _flat_copy(source.model).graph:
        if node.op_type not in LEARNT | RESCALING:
            continue
        names = tuple(name for name in _weights_of(node) if name not in taken)
        taken.update(names)
        if node.op_type in LEARNT and names:
            layers.append(WeightedLayer(node.outputs[0].name or "", names))
        elif names and layers:
            layers[-1] = replace(layers[-1], weights=layers[-1].weights + names)
    if not layers:
        raise ModelError(
            f"{source.name!r} has no layer whose weights stand in the file: there is nothing to make random",
            hint="metrics and comparisons that need no random weights",
        )
    return tuple(reversed(layers))


def with_random_weights(source: Source, layers: Sequence[WeightedLayer], seed: int = 0) -> Source:
    """Return the model in which the values of each weight of ``layers`` stand in a random order.

    Their distribution stays, so that numbers keep their size in every architecture, and in 8-bit models, too. A weight
    always gets the same order, whichever other layers are random.
    """
    model = _flat_copy(source.model)
    for name in (name for layer in layers for name in layer.weights):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        values = value.const_value.numpy()
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(values.size)
        shuffled = np.ascontiguousarray(values.ravel()[order].reshape(values.shape))
        value.const_value = ir.Tensor(shuffled, dtype=value.const_value.dtype, name=name)
    return Source(model, f"{source.name}, random weights", source.sha256)


def _flat_copy(model: ir.Model) -> ir.Model:
    """Return a copy without functions, in which constants are initializers."""
    copy = model.clone()
    InlinePass()(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    return copy


def _weights_of(node: ir.Node) -> Iterator[str]:
    """Yield the names of the initializers that a node has learnt: its 8-bit weights, or else its floats."""
    constants = {
        v.name or "": v.const_value for v in map(_stored, node.inputs) if v is not None and v.const_value is not None
    }
    integers = [name for name, tensor in constants.items() if tensor.dtype in BYTE_TYPES and len(tensor.shape) > 1]
    floats = [name for name, tensor in constants.items() if tensor.dtype in FLOAT_TYPES and tensor.size > 1]
    yield from integers or floats


def _stored(value: ir.Value | None) -> ir.Value | None:
    """Return the value from which another is only moved, cast or dequantized."""
    while value is not None and (node := value.producer()) is not None and node.op_type in STORES | REORDERS:
        value = node.inputs[0]
    return value
