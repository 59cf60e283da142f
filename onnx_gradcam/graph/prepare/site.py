"""The means to rewrite one node in place, for the adapters that raise an opset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.names import RAISED

Value = ir.Value

OPSET = 18
INSERTED = "made by raising the opset"  # key in ``meta`` of values that the deployed file does not have
REQUIRED = object()


@dataclass(frozen=True)
class Site:
    """A node that is being raised, and the opset it was written for.

    The node itself stays and becomes the last of those that replace it, so its outputs stay the same values.
    ``taken`` are the names in the whole model.
    """

    node: ir.Node
    opset: int
    taken: set[str]

    def attr(self, name: str, default: Any = REQUIRED) -> Any:
        """Take an attribute off the node."""
        found = self.node.attributes.pop(name, None)
        if found is None and default is REQUIRED:
            self.refuse(f"its attribute {name!r} is missing")
        return default if found is None else found.value

    def given(self, index: int) -> Value | None:
        """Return an input, or None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def input(self, index: int = 0) -> Value:
        """Return an input that must be there."""
        value = self.given(index)
        if value is None:
            self.refuse(f"its input {index} is missing")
        return value

    def rank(self, index: int = 0) -> int:
        """Return the number of axes of an input, where an adapter cannot do without."""
        shape = self.input(index).shape
        if shape is None:
            self.refuse(f"the rank of its input {self.input(index).name!r} is not known")
        return len(shape)

    def put(self, op_type: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Write a new node in front of the node; its output."""
        value = ir.val(self._name(op_type))
        value.meta[INSERTED] = True
        new = ir.node(op_type, inputs, attributes, outputs=[value], name=value.name)
        self._graph.insert_before(self.node, new)
        return value

    def array(self, array: np.ndarray) -> Value:
        """Return a new initializer."""
        name = self._name("const")
        tensor = ir.Tensor(array, name=name)
        value = ir.val(name, dtype=tensor.dtype, shape=tensor.shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def ints(self, numbers: Sequence[int]) -> Value:
        """Return a new int64 initializer."""
        return self.array(np.array(numbers, np.int64))

    def floats(self, numbers: Any, like: Value) -> Value:
        """Return a new initializer with the dtype of ``like``, cast to it in the graph where it is not known."""
        if like.dtype is None:
            return self.put("CastLike", self.array(np.array(numbers, np.float32)), like)
        return self.array(np.array(numbers, like.dtype.numpy()))

    def become(self, op_type: str, *inputs: Value | None, **attributes: Any) -> None:
        """Give the node this operator and these inputs; attributes not yet taken off stay."""
        self.node.op_type = op_type
        self.node.resize_inputs(len(inputs))
        for i, value in enumerate(inputs):
            self.node.replace_input_with(i, value)
        for name, content in attributes.items():
            self.node.attributes[name] = ir.convenience.convert_attribute(name, content)

    def keep_outputs(self, count: int) -> None:
        """Drop the outputs after the first ``count``, which must not be used."""
        for value in self.node.outputs[count:]:
            if value.uses() or value.is_graph_output():
                self.refuse(f"its output {value.name!r} is used")
        self.node.resize_outputs(min(count, len(self.node.outputs)))

    def refuse(self, why: str) -> NoReturn:
        """Raise the ``ModelError`` which says that opset 18 cannot express this node."""
        node, op_type = self.node.name or self.node.outputs[0].name, self.node.op_type
        raise ModelError(
            f"cannot raise {op_type} from opset {self.opset} to {OPSET}: {why}",
            where=f"node {node!r}",
            hint=f"export the model again with opset {OPSET}",
            node=node,
            op_type=op_type,
            opset=self.opset,
        )

    @property
    def _graph(self) -> ir.Graph:
        graph = self.node.graph
        if not isinstance(graph, ir.Graph):
            self.refuse("it stands in a model-local function")
        return graph

    def _name(self, hint: str) -> str:
        number = len(self.taken)
        while (name := f"{RAISED}/{hint}_{number}") in self.taken:
            number += 1
        self.taken.add(name)
        return name
