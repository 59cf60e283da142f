"""Write a small ONNX model node by node, feed it and run it; for tests that need no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
BATCH = "N"


class Net:
    """A graph that grows: every method adds to it, and returns the name of the value that it added."""

    def __init__(self, opset: int = 18, ir_version: int = 8, seed: int = 0) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.inputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}
        self._rng = np.random.default_rng(seed)

    def input(self, name: str, dims: Dims | None, dtype: Any = np.float32) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def array(self, array: Any, name: str = "") -> str:
        name = name or f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def ints(self, *numbers: int) -> str:
        return self.array(np.array(numbers, np.int64))

    def random(self, *shape: int) -> str:
        """Add weights with about the variance that keeps that of the signal."""
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 4.0
        return self.array((self._rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def op(self, op_type: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        out = out or f"v{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [out], name=f"node_{out}", domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def ops(self, op_type: str, *inputs: str, out: Sequence[str], **attributes: Any) -> Sequence[str]:
        """Append a node with several outputs."""
        self.nodes.append(helper.make_node(op_type, inputs, out, name=f"node_{out[0]}", **attributes))
        return out

    def conv(
        self, x: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1, out: str = "", group: int = 1
    ) -> str:
        """Append a square convolution of (inputs, outputs) channels; stride 1 keeps the size."""
        before, after = channels
        weight = self.random(after, before // group, kernel, kernel)
        pads = [kernel // 2] * 4 if kernel % 2 else [0] * 4
        return self.op("Conv", x, weight, self.random(after), out=out, pads=pads, strides=[stride] * 2, group=group)

    def batch_norm(self, x: str, channels: int, out: str = "") -> str:
        positive = self.array(self._rng.uniform(0.5, 2, channels).astype(np.float32))
        stats = [positive, self.random(channels), self.random(channels), positive]
        return self.op("BatchNormalization", x, *stats, out=out)

    def head(self, x: str, features: int, classes: int = 5, out: str = "logits") -> str:
        """Append global average pooling, then a linear layer."""
        flat = self.op("Flatten", self.op("GlobalAveragePool", x, out="pooled"), out="flat")
        return self.linear(flat, features, classes, out=out)

    def linear(self, x: str, features: int, classes: int, out: str = "") -> str:
        return self.op("Gemm", x, self.random(classes, features), self.random(classes), out=out, transB=1)

    def model(self, outputs: Mapping[str, Dims | None], kinds: Mapping[str, int] | None = None) -> onnx.ModelProto:
        """Return the model; ``outputs``: name → declared shape (None: none), float32 where ``kinds`` does not say."""
        kinds = kinds or {}
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info(k, kinds.get(k, TensorProto.FLOAT), v) for k, v in outputs.items()],
            [numpy_helper.from_array(v, k) for k, v in self.weights.items()],
        )
        imports = [helper.make_opsetid(d, v) for d, v in {"": self.opset, **self.domains}.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version, functions=self.functions)


def declared(i: int, array: np.ndarray) -> Dims | None:
    """Return the shape that ``one_node`` declares for input i: that of its array."""
    return array.shape


def one_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    constants: Collection[int] = (),
    outputs: int | Sequence[str] = 1,
    opset: int = 18,
    domain: str = "",
    ir_version: int = 10,
    dims: Callable[[int, np.ndarray], Dims | None] = declared,
) -> onnx.ModelProto:
    """Return a model of one node, "the_node", with inputs x0, x1, … and outputs y0, y1, … of undeclared types.

    ``inputs``: arrays of the dtypes to declare, None for one that is left out. ``constants``: the positions of those
    that are initializers. ``outputs``: how many, or their names ("" for one that is left out).
    """
    net = Net(opset, ir_version)
    net.domains |= {domain: 1} if domain else {}
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
    for i, array in enumerate(inputs):
        if i in constants and array is not None:
            net.array(array, names[i])
        elif array is not None:
            net.input(names[i], dims(i, array), array.dtype)
    results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
    node = helper.make_node(op_type, names, results, name="the_node", domain=domain or None)
    node.attribute.extend(attribute(name, value) for name, value in (attributes or {}).items())
    net.nodes.append(node)
    model = net.model({})
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in results if name)
    return model


def attribute(name: str, value: Any) -> onnx.AttributeProto:
    """Return an attribute; an empty list is one of integers."""
    return helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS if value == [] else None)


def one_thread(optimized: bool = True) -> ort.SessionOptions:
    """Return session options for small models: a second thread takes longer to start than the work takes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def session(model: onnx.ModelProto | ir.Model | bytes | Path, optimized: bool = True) -> ort.InferenceSession:
    """Open ``model`` on the CPU, with one thread."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    data = proto.SerializeToString() if isinstance(proto, onnx.ModelProto) else proto
    return ort.InferenceSession(data, one_thread(optimized), providers=["CPUExecutionProvider"])


def run(
    model: onnx.ModelProto | ir.Model | bytes | Path,
    feeds: Mapping[str, np.ndarray],
    names: Sequence[str] | None = None,
    optimized: bool = True,
) -> dict[str, Any]:
    """Return the outputs ``names`` (None: all) by name; arrays for inputs that the model has not are left out."""
    opened = session(model, optimized)
    inputs = {x.name for x in opened.get_inputs()}
    names = [o.name for o in opened.get_outputs()] if names is None else list(names)
    return dict(zip(names, opened.run(names, {k: v for k, v in feeds.items() if k in inputs}), strict=True))


def feeds(model: onnx.ModelProto, batch: int = 2, seed: int = 0, below: int = 255) -> dict[str, np.ndarray]:
    """Return random arrays for the inputs that are not initializers; named dimensions get the size ``batch``.

    Integers are ``below`` a number: that of the words, where they stand for words.
    """
    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    arrays = {}
    for info in model.graph.input:
        if info.name not in weights:
            kind = info.type.tensor_type
            shape = [d.dim_value if d.dim_value > 0 else batch for d in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, below, shape)
            arrays[info.name] = array.astype(dtype)
    return arrays
