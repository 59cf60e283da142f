"""Tiny models of every habit that exporters have, built node by node; weights are seeded.

A model is written with a ``Net``: ``net.op("Relu", x, out="relu")`` appends a node that makes the value ``relu`` and
is itself called ``node_relu``. The classifiers have an input ``x`` and an output ``logits`` unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from nets import BATCH, Dims, Net
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"


# ------------------------------------------------------------------------------------------- architectures


def plain(batch: int | str = BATCH, opset: int = 18, ir_version: int = 8) -> onnx.ModelProto:
    """Conv, Relu, global average pooling, Gemm."""
    net = Net(opset, ir_version)
    relu = net.op("Relu", net.conv(net.input("x", [batch, 3, 8, 8]), (3, 4), out="conv"), out="relu")
    net.head(relu, 4)
    return net.model({"logits": [batch, 5]})


def residual(batch: int | str = BATCH) -> onnx.ModelProto:
    """ResNet: a stem, a block with an identity skip, one with a strided projection."""
    net = Net()
    stem = net.op("Relu", net.conv(net.input("x", [batch, 3, 16, 16]), (3, 4), out="stem"), out="relu0")
    pooled = net.op("MaxPool", stem, out="stem_pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = net.conv(net.op("Relu", net.conv(pooled, (4, 4)), out="relu1"), (4, 4), out="inner1")
    one = net.op("Relu", net.op("Add", inner, pooled), out="stage1")
    inner = net.conv(net.op("Relu", net.conv(one, (4, 6), stride=2), out="relu2"), (6, 6), out="inner2")
    skip = net.conv(one, (4, 6), kernel=1, stride=2, out="projection")
    net.head(net.op("Relu", net.op("Add", inner, skip, out="added"), out="stage2"), 6)
    return net.model({"logits": [batch, 5]})


def vgg() -> onnx.ModelProto:
    """The last convolution's Relu is pooled, then flattened into fully connected layers."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 16, 16]), (3, 4)), out="relu1")
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], out="pool1")
    x = net.op("Relu", net.conv(x, (4, 6), out="conv2"), out="relu2")
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], out="pool2")
    x = net.op("Relu", net.linear(net.op("Flatten", x, out="flat"), 6 * 16, 8), out="fc1")
    net.linear(x, 8, 5, out="logits")
    return net.model({"logits": [BATCH, 5]})


def densenet() -> onnx.ModelProto:
    """Everything made so far is concatenated; the last block is normalised once more."""
    net = Net()
    x = net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4), out="stem")
    for i in range(2):
        normal = net.op("Relu", net.batch_norm(x, 4 + 2 * i))
        x = net.op("Concat", x, net.conv(normal, (4 + 2 * i, 2), out=f"growth{i}"), axis=1, out=f"concat{i}")
    net.head(net.op("Relu", net.batch_norm(x, 8, out="last_norm"), out="last_relu"), 8)
    return net.model({"logits": [BATCH, 5]})


def convnext() -> onnx.ModelProto:
    """Channels last inside the block: depthwise convolution, norm, two pointwise MatMuls, layer scale, skip."""
    net = Net(opset=20, ir_version=9)
    x = net.conv(net.input("x", [BATCH, 3, 16, 16]), (3, 4), kernel=2, stride=2, out="patches")
    for i in range(2):
        y = net.op("Transpose", net.conv(x, (4, 4), group=4), perm=[0, 2, 3, 1], out=f"nhwc{i}")
        y = net.op("LayerNormalization", y, net.random(4), net.random(4), axis=-1)
        y = net.op("Gelu", net.op("Add", net.op("MatMul", y, net.random(4, 8)), net.random(8)), out=f"gelu{i}")
        y = net.op("Add", net.op("MatMul", y, net.random(8, 4)), net.random(4))
        y = net.op("Transpose", y, perm=[0, 3, 1, 2], out=f"nchw{i}")
        x = net.op("Add", net.op("Mul", y, net.random(4, 1, 1), out=f"scaled{i}"), x, out=f"block{i}")
    y = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.linear(net.op("LayerNormalization", y, net.random(4), net.random(4), axis=-1), 4, 5, out="logits")
    return net.model({"logits": [BATCH, 5]})


def inception() -> onnx.ModelProto:
    """Three branches, one of them through a pool of stride 1, concatenated; twice."""
    net = Net()
    x, width = net.input("x", [BATCH, 3, 8, 8]), 3
    for i in range(2):
        one = net.op("Relu", net.conv(x, (width, 2), kernel=1), out=f"one{i}")
        three = net.op("Relu", net.conv(net.op("Relu", net.conv(x, (width, 2), kernel=1)), (2, 3)), out=f"three{i}")
        pool = net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        pool = net.op("Relu", net.conv(pool, (width, 2), kernel=1), out=f"pool{i}")
        x, width = net.op("Concat", one, three, pool, axis=1, out=f"mixed{i}"), 7
    net.head(x, 7)
    return net.model({"logits": [BATCH, 5]})


def squeeze_excite() -> onnx.ModelProto:
    """A channel gate computed from the pooled value, inside a residual block."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="stem")
    y = net.conv(x, (4, 4), out="body")
    gate = net.op("Relu", net.conv(net.op("GlobalAveragePool", y), (4, 2), kernel=1), out="squeezed")
    gate = net.op("Sigmoid", net.conv(gate, (2, 4), kernel=1, out="excited"), out="gate")
    y = net.op("Mul", gate, y, out="gated")
    net.head(net.op("Relu", net.op("Add", y, x, out="added"), out="last"), 4)
    return net.model({"logits": [BATCH, 5]})


def mobilenet_v3() -> onnx.ModelProto:
    """The head has a convolution on one position, after the pooling."""
    net = Net()
    x = net.op("HardSwish", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4), out="conv"), out="features")
    x = net.conv(net.op("GlobalAveragePool", x), (4, 6), kernel=1, out="head_conv")
    net.linear(net.op("Flatten", net.op("HardSwish", x, out="head_act")), 6, 5, out="logits")
    return net.model({"logits": [BATCH, 5]})


def squeezenet() -> onnx.ModelProto:
    """Fire modules, then one channel per class, pooled: (N, K, 1, 1) into a Softmax."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="stem")
    x = net.op("Relu", net.conv(x, (4, 2), kernel=1), out="squeeze")
    one, three = (net.op("Relu", net.conv(x, (2, 3), kernel=k), out=f"expand{k}") for k in (1, 3))
    x = net.op("Concat", one, three, axis=1, out="fire")
    x = net.op("Relu", net.conv(x, (6, 5), kernel=1, out="class_conv"), out="class_map")
    pooled = net.op("GlobalAveragePool", x, out="logits")
    net.op("Softmax", pooled, axis=1, out="probabilities")
    return net.model({"probabilities": [BATCH, 5, 1, 1]})


def nhwc() -> onnx.ModelProto:
    """tf2onnx: channels last outside, bias and activation after the Transpose back, Softmax on the last axis."""
    net = Net()
    x = net.op("Transpose", net.input("x", [BATCH, 8, 8, 3]), perm=[0, 3, 1, 2])
    x = net.op("Transpose", net.conv(x, (3, 4), out="conv"), perm=[0, 2, 3, 1], out="conv_nhwc")
    x = net.op("Relu", net.op("Add", x, net.random(4)), out="relu")
    x = net.op("ReduceMean", x, net.ints(1, 2), keepdims=1, out="pooled")
    x = net.op("Add", net.op("MatMul", x, net.random(4, 5)), net.random(5), out="logits")
    net.op("Softmax", x, axis=-1, out="probabilities")
    return net.model({"probabilities": [BATCH, 1, 1, 5]})


# -------------------------------------------------------------------------------------- habits of exporters


Step = tuple[str, dict[str, Any]]


def ending(*steps: Step, classes: int = 5, batch: int | str = BATCH, declared: Dims | None = None) -> onnx.ModelProto:
    """``plain`` with ``steps`` after the logits (N, classes); ``shape`` and ``axes`` become inputs of the node.

    The output is called ``out``, with the shape ``declared``.
    """
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [batch, 3, 8, 8]), (3, 4)), out="relu")
    x = net.head(relu, 4, classes, out="logits" if steps else "out")
    for k, (op_type, attributes) in enumerate(steps):
        given = [net.ints(*attributes[name]) for name in ("shape", "axes") if name in attributes]
        kept = {name: value for name, value in attributes.items() if name not in ("shape", "axes")}
        x = net.op(op_type, x, *given, out="out" if k == len(steps) - 1 else f"step{k}", **kept)
    return net.model({"out": declared})


def zipmap() -> onnx.ModelProto:
    """scikit-learn's converters: a label, and a sequence of maps made of the Softmax."""
    net = Net()
    net.domains[ML] = 2
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    probabilities = net.op("Softmax", net.head(relu, 4, 3), axis=1, out="probabilities")
    net.op("ArgMax", probabilities, axis=1, keepdims=0, out="label")
    net.op("ZipMap", probabilities, out="maps", domain=ML, classlabels_strings=["cat", "dog", "bird"])
    model = net.model({"label": [BATCH]}, {"label": TensorProto.INT64})
    maps = model.graph.output.add()
    maps.name = "maps"
    entry = maps.type.sequence_type.elem_type.map_type
    entry.key_type = TensorProto.STRING
    entry.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def two_outputs() -> onnx.ModelProto:
    """An embedding, boxes that do not depend on the image, and class probabilities, in this order."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    net.op("Softmax", net.head(relu, 4), axis=1, out="probabilities")
    net.op("Relu", net.array(np.arange(12, dtype=np.float32).reshape(3, 4)), out="anchors")
    return net.model({"anchors": [3, 4], "flat": [BATCH, 4], "probabilities": [BATCH, 5]})


def labels_only() -> onnx.ModelProto:
    """The only output is the class index."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    net.op("ArgMax", net.head(relu, 4), axis=1, keepdims=0, out="label")
    return net.model({"label": [BATCH]}, {"label": TensorProto.INT64})


def with_function() -> onnx.ModelProto:
    """torch's dynamo exporter: blocks as model-local functions; the output's type is declared."""
    net = Net()
    net.domains["local"] = 1
    body = [
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["c"]),
    ]
    net.functions.append(helper.make_function("local", "Block", ["a", "w"], ["c"], body, [helper.make_opsetid("", 18)]))
    x = net.op("Block", net.input("x", [BATCH, 3, 8, 8]), net.random(4, 3, 3, 3), domain="local", out="block1")
    x = net.op("Block", x, net.random(4, 4, 3, 3), domain="local", out="block2")
    net.head(x, 4)
    return net.model({"logits": [BATCH, 5]})


def initializers_in_inputs() -> onnx.ModelProto:
    """IR version 3: every initializer is a graph input, too."""
    model = plain(opset=9, ir_version=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def constant_weights() -> onnx.ModelProto:
    """Weights in Constant nodes, one of them behind an Identity."""
    model = plain()
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    constants = [helper.make_node("Constant", [], [t.name], name=f"node_{t.name}", value=t) for t in tensors]
    constants[0].output[0] = "hidden"
    constants.append(helper.make_node("Identity", ["hidden"], [tensors[0].name], name="node_identity"))
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def literal_minus_one() -> onnx.ModelProto:
    """Paddle: −1 where a dimension is not known."""
    model = plain()
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = -1
    return model


def decided_if(batch: int | str = BATCH, size: int = 1, clash: bool = False) -> onnx.ModelProto:
    """torch's TorchScript exporter: ``squeeze`` where the exporter did not know the shape, twice, one after the other.

    ``size``: the number of rows that the pooling leaves; only 1 is squeezed. ``clash``: both Ifs use the same inner
    names.
    """
    net = Net(opset=17)
    relu = net.op("Relu", net.conv(net.input("x", [batch, 3, 8, 8]), (3, 4)), out="relu")
    x = net.op("ReduceMean", relu, axes=[3] if size > 1 else [2, 3], out="pooled", keepdims=1)
    for k, axis in enumerate((3, 2)):
        dim = net.op("Gather", net.op("Shape", x), net.array(np.array(axis)), axis=0)
        one = net.op("Equal", dim, net.array(np.array(1)))
        branches = {}
        for name, op_type in (("then_branch", "Squeeze"), ("else_branch", "Identity")):
            number = "" if clash else str(k)
            out, axes, copy = (f"{op_type}_{what}{number}" for what in ("out", "axes", "copy"))
            inner = [
                helper.make_node("Constant", [], [axes], value=numpy_helper.from_array(np.array([axis]))),
                helper.make_node("Identity", [x], [copy]),
                helper.make_node(op_type, [copy, axes] if op_type == "Squeeze" else [copy], [out]),
            ]
            branches[name] = helper.make_graph(inner, name, [], [helper.make_empty_tensor_value_info(out)])
        x = net.op("If", one, out=f"squeezed{k}", **branches)
    net.linear(net.op("Flatten", x, out="flat"), 4 * size, 5, out="logits")
    return net.model({"logits": [batch, 5]})


def two_inputs() -> onnx.ModelProto:
    """An image and a vector of further features."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("image", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    flat = net.op("Flatten", net.op("GlobalAveragePool", relu))
    joined = net.op("Concat", flat, net.input("age", [BATCH, 2]), axis=1)
    net.linear(joined, 6, 5, out="logits")
    return net.model({"logits": [BATCH, 5]})


def uint8_input() -> onnx.ModelProto:
    """The model takes bytes, channels last, and scales them itself."""
    net = Net()
    x = net.op("Cast", net.input("x", [BATCH, 8, 8, 3], np.uint8), to=TensorProto.FLOAT, out="floats")
    x = net.op("Transpose", net.op("Div", x, net.array(np.float32(255))), perm=[0, 3, 1, 2])
    net.head(net.op("Relu", net.conv(x, (3, 4)), out="relu"), 4)
    return net.model({"logits": [BATCH, 5]})


def view(batch: int | str = BATCH) -> onnx.ModelProto:
    """torch's ``x.view(x.size(0), -1)``: the new shape is computed from the old one."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [batch, 3, 8, 8]), (3, 4), stride=4), out="relu")
    size = net.op("Gather", net.op("Shape", relu), net.array(np.array(0)), axis=0)
    shape = net.op("Concat", net.op("Unsqueeze", size, net.ints(0)), net.ints(-1), axis=0)
    net.linear(net.op("Reshape", relu, shape, out="flat"), 16, 5, out="logits")
    return net.model({"logits": [batch, 5]})


def computed_pads() -> onnx.ModelProto:
    """torch's TorchScript exporter: F.pad(x, (1, 2, 3, 4)), turned around at run time."""
    net = Net()
    x = net.input("x", [BATCH, 3, 5, 5])
    fill = net.op("ConstantOfShape", net.ints(4), value=numpy_helper.from_array(np.array([0])))
    pairs = net.op("Reshape", net.op("Concat", net.ints(1, 2, 3, 4), fill, axis=0), net.ints(-1, 2))
    pairs = net.op("Slice", pairs, net.ints(-1), net.ints(-(2**62)), net.ints(0), net.ints(-1))
    pads = net.op("Reshape", net.op("Transpose", pairs, perm=[1, 0]), net.ints(-1), out="pads")
    padded = net.op("Pad", x, pads, out="padded")
    net.head(net.op("Relu", net.conv(padded, (3, 4)), out="relu"), 4)
    return net.model({"logits": [BATCH, 5]})


def any_size() -> onnx.ModelProto:
    """Height and width are not known before the run, either."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, "H", "W"]), (3, 4), stride=2), out="stem")
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = net.op("Add", net.conv(net.op("Relu", net.conv(x, (4, 4))), (4, 4), out="inner"), x)
    net.head(net.op("Relu", x, out="relu"), 4)
    return net.model({"logits": [BATCH, 5]})


def scaled_by_an_input() -> onnx.ModelProto:
    """A second input without a batch axis."""
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    net.op("Mul", net.head(relu, 4, out="unscaled"), net.input("scale", []), out="logits")
    return net.model({"logits": [BATCH, 5]})


ARCHITECTURES: dict[str, Callable[[], onnx.ModelProto]] = {
    "plain": plain,
    "residual": residual,
    "vgg": vgg,
    "densenet": densenet,
    "convnext": convnext,
    "inception": inception,
    "squeeze_excite": squeeze_excite,
    "mobilenet_v3": mobilenet_v3,
    "squeezenet": squeezenet,
    "nhwc": nhwc,
}
HABITS: dict[str, Callable[[], onnx.ModelProto]] = {
    "batch1": lambda: plain(1),
    "batch4": lambda: plain(4),
    "opset7": lambda: plain(opset=7, ir_version=4),
    "sigmoid": lambda: ending(("Sigmoid", {}), classes=1),
    "regression": lambda: ending(classes=1),
    "zipmap": zipmap,
    "two_outputs": two_outputs,
    "labels_only": labels_only,
    "with_function": with_function,
    "initializers_in_inputs": initializers_in_inputs,
    "constant_weights": constant_weights,
    "literal_minus_one": literal_minus_one,
    "decided_if": decided_if,
    "decided_if_batch1": lambda: decided_if(1),
    "decided_if_clash": lambda: decided_if(clash=True),
    "decided_if_else": lambda: decided_if(size=8),
    "two_inputs": two_inputs,
    "uint8_input": uint8_input,
    "view": view,
    "view_batch2": lambda: view(2),
    "computed_pads": computed_pads,
    "any_size": any_size,
    "scaled_by_an_input": scaled_by_an_input,
}
