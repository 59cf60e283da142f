"""Write standard ONNX nodes into a graph, each one checked when it is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.names import GRADIENT, claim, names_in, values_by_name
from onnx_gradcam.graph.node_inference import SMALL, infer_outputs

Value = ir.Value

HALF_PRECISION = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
LOWEST = -3e38  # below every number of a network, in float32 and bfloat16


class Builder:
    """Append ai.onnx nodes to ``graph``: ``op.Mul(a, b)`` returns the new value, with dtype and shape inferred.

    Nodes and values are named ``<prefix>/<OpType>_<number>``. An operator or attribute that the graph's opset does not
    have is refused at the call that wrote it.
    """

    def __init__(self, graph: ir.Graph, prefix: str = GRADIENT, taken: set[str] | None = None) -> None:
        self.graph = graph
        self.opset = graph.opset_imports[""]
        self.written: list[ir.Node] = []  # in order
        self._prefix = prefix
        self._taken = names_in(graph) if taken is None else taken
        self._kept_free = {f"{prefix}/{name}" for name in values_by_name(graph)}  # as their gradients are called
        self._count = 0
        self._constants: dict[tuple[object, ...], Value] = {}
        self._shapes: dict[Value, Value] = {}
        self._weights: dict[Value, Value] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Value]:
        if op_type.startswith("_") or not onnx.defs.has(op_type, self.opset):
            raise AttributeError(f"opset {self.opset} has no operator {op_type!r}")
        return functools.partial(self._single, op_type)

    def node(self, op_type: str, *inputs: Value | None, outputs: int, **attributes: Any) -> tuple[Value, ...]:
        """Append a node with several outputs."""
        schema = onnx.defs.get_schema(op_type, self.opset)
        given = {name: value for name, value in attributes.items() if value is not None}
        unknown = given.keys() - schema.attributes.keys()
        if unknown:
            raise TypeError(f"{op_type} of opset {self.opset} has no attribute {sorted(unknown)}")
        name = self._name(op_type)
        names = [name] if outputs == 1 else [self.claim(f"{name}:{i}") for i in range(outputs)]
        values = [ir.val(n) for n in names]
        while inputs and inputs[-1] is None:  # onnxruntime's fusions crash on a LayerNormalization that ends in one
            inputs = inputs[:-1]
        node = ir.node(op_type, inputs, given, outputs=values, name=name)
        self._infer(node, schema)
        self.graph.append(node)
        self.written.append(node)
        return tuple(values)

    def inside(self, hint: str, body: ir.Graph | None = None) -> Builder:
        """Return a builder for the body of a node to come (``body``, else an empty one); no name is taken twice."""
        name = self._name(hint)
        if body is None:
            body = ir.Graph([], [], nodes=[], name=name)
        body.opset_imports.update(self.graph.opset_imports)
        self._taken |= names_in(body)
        return Builder(body, name, self._taken)

    def claim(self, name: str) -> str:
        """Return ``name``, or the one that it steps aside to where the graph has it, for a value that is to be found.

        See ``names.claim``. Nothing that is written later takes it.
        """
        return claim(name, self._taken)

    def request(self, value: Value) -> Value:
        """Return an output of a forward node; one that the model leaves out gets a name, and so is computed."""
        if not value.name:
            value.name = self._name("requested")
        return value

    def const(self, array: object, like: Value) -> Value:
        """Return an initializer with the dtype of ``like``."""
        if like.dtype is None:
            raise TypeError(f"the dtype of {like.name!r} is not known")
        return self.array(np.asarray(array).astype(like.dtype.numpy()))

    def ints(self, *numbers: int) -> Value:
        """Return an int64 vector."""
        return self.array(np.array(numbers, np.int64))

    def array(self, array: np.ndarray) -> Value:
        """Return an initializer as it is; equal small ones are shared."""
        key = (array.dtype, array.shape, array.tobytes()) if array.size <= SMALL else (object(),)
        if key not in self._constants:
            name = self._name("const")
            tensor = ir.tensor(np.asarray(array, order="C"), name=name)
            value = ir.val(name, const_value=tensor, dtype=tensor.dtype, shape=array.shape)
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def shape_of(self, value: Value) -> Value:
        """Return the shape of ``value`` as an int64 vector: a constant where it is static, else one shared
        Shape node."""
        if value not in self._shapes:
            dims = static_dims(value)
            self._shapes[value] = self.Shape(value) if dims is None else self.ints(*dims)
        return self._shapes[value]

    def exact(self, value: Value | None) -> Value | None:
        """Return ``value``; where it is made of a constant by DequantizeLinear, an initializer that holds the same
        numbers.

        onnxruntime fuses DequantizeLinear with the MatMul behind it into one that rounds the other operand, too.
        """
        node = None if value is None else value.producer()
        if value is None or node is None or node.op_type != "DequantizeLinear":
            return value
        if value not in self._weights:
            array = constant(value)
            self._weights[value] = value if array is None else self.array(array)
        return self._weights[value]

    def expand(self, g: Value, like: Value) -> Value:
        """Return ``g`` broadcast to the full shape of ``like``; nothing is written where it has it already."""
        return self.fill(g, like) if is_compact(g, like) else g

    def fill(self, g: Value, like: Value) -> Value:
        """Return ``g`` broadcast to the shape of ``like``, whatever is known of the two shapes."""
        full = self.Expand(g, self.shape_of(like))
        full.shape = like.shape
        return full

    def _single(self, op_type: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.node(op_type, *inputs, outputs=1, **attributes)[0]

    def _name(self, hint: str) -> str:
        self._count += 1
        name = f"{self._prefix}/{hint}_{self._count}"
        if name in self._taken or name in self._kept_free:
            return self._name(hint)
        self._taken.add(name)
        return name

    def _infer(self, node: ir.Node, schema: onnx.defs.OpSchema) -> None:
        """Set dtype and shape of the node's outputs from those of its inputs; who writes a body knows them."""
        try:
            inferred = infer_outputs(node, schema, self.opset)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise self._misfit(node, error) from None
        for value in node.outputs:
            if value.name in inferred:
                value.type, value.shape = inferred[value.name]

    def _misfit(self, node: ir.Node, error: Exception) -> ModelError:
        given = ", ".join(f"{v.name!r} {v.dtype or '?'} {v.shape or ''}" for v in node.inputs if v is not None)
        return ModelError(
            f"{node.op_type} of opset {self.opset} does not take {given}: {' '.join(str(error).split())}",
            where=f"node {node.name!r}, which the gradient needs",
            hint="a model that passes onnx.checker and that onnxruntime runs, or the same with a newer opset",
            op_type=node.op_type,
        )


def static_dims(value: Value) -> tuple[int, ...] | None:
    """Return all dimensions of ``value`` as integers, or None if one of them is not known before the run."""
    shape = value.shape
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def rank(value: Value) -> int:
    """Return the number of axes of ``value``, which shape inference must have found."""
    if value.shape is None:
        raise ModelError(
            f"the rank of {value.name!r} is not known",
            hint="declare its shape, or simplify the model with onnxruntime's basic optimisations, and try again",
            value=value.name,
        )
    return len(value.shape)


def same_dim(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Tell whether two dimensions are known to be equal (two unknown ones are not)."""
    if isinstance(a, int) or isinstance(b, int):
        return a == b
    return a.value is not None and a.value == b.value


def is_compact(g: Value, like: Value) -> bool:
    """Tell whether ``g`` may still have a size-1 axis that broadcasts to ``like``."""
    if g is like:
        return False
    if g.shape is None or like.shape is None:
        return True
    if len(g.shape) != len(like.shape):
        return len(g.shape) < len(like.shape)  # more axes than like: its rank was declared or inferred wrongly
    return any(a == 1 and b != 1 for a, b in zip(g.shape, like.shape, strict=True))


def ints_of(value: Value | None) -> Sequence[int] | None:
    """Return a constant integer vector as Python integers, or None where it is not constant."""
    array = constant(value)
    return None if array is None else [int(i) for i in array.ravel()]
