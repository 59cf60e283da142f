"""Where a model comes from, as far as its file tells: the framework in which it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir as ir

TENSORFLOW, CAFFE = "TensorFlow", "Caffe"
PRODUCERS = (
    (re.compile("caffe", re.I), CAFFE),
    (re.compile("tf2onnx|keras|tensorflow|tflite|onnxmltools", re.I), TENSORFLOW),
)
NAMES = re.compile(r"/Conv2D|BiasAdd|FusedBatchNorm|StatefulPartitionedCall|Keras|/depthwise(/|_|$)|[^:]:0$")
"""What names of nodes and values look like that TensorFlow gave."""
CAFFE_INPUT = re.compile(r"data(_\d+)?$")
CAFFE_NAMES = re.compile(
    r"(conv\d_\d|fire\d/|res\d[a-z]\d*_branch|inception_\d[a-z]/|pool\d$|fc[678]|bn\d[a-z]_branch)"
)
"""How the layers are called in the prototxt files that Caffe's models came with."""


class Origin(NamedTuple):
    """The framework that a model comes from, and by what that is known; both "" where nothing tells."""

    framework: str
    reason: str


def origin(model: ir.Model) -> Origin:
    """Return the framework in which a model was trained: by its producer, else by the names of its nodes."""
    producer = " ".join(filter(None, (model.producer_name, model.domain)))
    for pattern, framework in PRODUCERS:
        if pattern.search(producer):
            return Origin(framework, f"written by {model.producer_name}")
    inputs = {v.name or "" for v in model.graph.inputs}
    if any(map(CAFFE_INPUT.match, inputs)) and (name := next(filter(CAFFE_NAMES.match, names(model.graph)), "")):
        return Origin(CAFFE, f"its layers are called as in Caffe: {name}")
    name = next(filter(NAMES.search, names(model.graph)), "")
    return Origin(TENSORFLOW, f"its nodes are called as in TensorFlow: {name}") if name else Origin("", "")


def names(graph: ir.Graph) -> Iterator[str]:
    """Yield the names of inputs, nodes and values, in the order of the graph."""
    yield from (v.name or "" for v in graph.inputs)
    for node in graph:
        yield node.name or ""
        yield from (v.name or "" for v in node.outputs)
