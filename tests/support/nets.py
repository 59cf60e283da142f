"""Write a tiny ONNX model node by node, feed it and run it; for tests that need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
BATCH = "N"


class Net:
    """A graph that grows: every method returns the name of the value that it made."""

    def __init__(self, opset: int = 18, ir_version: int = 8, seed: int = 0) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.inputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}
        self._rng = np.random.default_rng(seed)

    def input(self, name: str, dims: Dims, dtype: Any = np.float32) -> str:
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
        """Weights with about the variance that keeps that of the signal."""
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 4.0
        return self.array((self._rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def op(self, op_type: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        out = out or f"v{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [out], name=f"node_{out}", domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def ops(self, op_type: str, *inputs: str, out: Sequence[str], **attributes: Any) -> Sequence[str]:
        """A node with several outputs."""
        self.nodes.append(helper.make_node(op_type, inputs, out, name=f"node_{out[0]}", **attributes))
        return out

    def conv(
        self, x: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1, out: str = "", group: int = 1
    ) -> str:
        """A square convolution of (inputs, outputs) channels; stride 1 keeps the size."""
        before, after = channels
        weight = self.random(after, before // group, kernel, kernel)
        pads = [kernel // 2] * 4 if kernel % 2 else [0] * 4
        return self.op("Conv", x, weight, self.random(after), out=out, pads=pads, strides=[stride] * 2, group=group)

    def batch_norm(self, x: str, channels: int, out: str = "") -> str:
        positive = self.array(self._rng.uniform(0.5, 2, channels).astype(np.float32))
        stats = [positive, self.random(channels), self.random(channels), positive]
        return self.op("BatchNormalization", x, *stats, out=out)

    def head(self, x: str, features: int, classes: int = 5, out: str = "logits") -> str:
        """Global average pooling, then a linear layer."""
        flat = self.op("Flatten", self.op("GlobalAveragePool", x, out="pooled"), out="flat")
        return self.linear(flat, features, classes, out=out)

    def linear(self, x: str, features: int, classes: int, out: str = "") -> str:
        return self.op("Gemm", x, self.random(classes, features), self.random(classes), out=out, transB=1)

    def model(self, outputs: Mapping[str, Dims | None], kinds: Mapping[str, int] | None = None) -> onnx.ModelProto:
        """``outputs``: name → declared shape (None: not declared); float32 unless ``kinds`` says otherwise."""
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


def run(model: onnx.ModelProto | bytes, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> Any:
    """Outputs by name, from onnxruntime with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()] if names is None else list(names)
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def feeds(model: onnx.ModelProto, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays for the inputs that are not initializers; named dimensions get the size ``batch``."""
    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    found = {}
    for info in model.graph.input:
        if info.name not in weights:
            kind = info.type.tensor_type
            shape = [d.dim_value if d.dim_value > 0 else batch for d in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 255, shape)
            found[info.name] = array.astype(dtype)
    return found
