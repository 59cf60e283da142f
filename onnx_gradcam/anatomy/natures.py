"""What the numbers of a score are: classes, or an embedding, the values of a regression, the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.entries.columns import Entries, columns_in
from onnx_gradcam.anatomy.paths import bottlenecks
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.anatomy.vectors import PASSED_OVER, Vector
from onnx_gradcam.anatomy.wording import (
    CLASS_WORDS,
    EMBEDDING_WORDS,
    FEATURE_WORDS,
    FEW,
    POINT_WORDS,
    VALUE_WORDS,
    names_of,
    word_in,
)
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import CONVOLUTIONS, POOLINGS, PRODUCTS, AxisEffect, operators

CLASSES, PROBABILITIES, EMBEDDING, VALUES = "classes", "probabilities", "embedding", "values"
NORMALISATIONS = frozenset(
    "BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization "
    "RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization".split()
)
# Elementwise functions that no classifier ends in.
FUNCTIONS = frozenset(
    "Abs Atan Celu Clip Cos Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Max Min Mish PRelu Pow QLinearLeakyRelu "
    "QLinearSigmoid QuickGelu Relu Selu Sigmoid Sin Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu".split()
)
SLICES = operators(AxisEffect.CUT) | {"Slice"}
PICKS = operators(AxisEffect.PICKED) | frozenset(
    "Compress NonMaxSuppression NonZero ScatterElements ScatterND TopK".split()
)
BODIES = frozenset("If Loop Scan".split())
GATHERS = frozenset("Gather GatherElements GatherND".split())
REDUCTIONS = operators(AxisEffect.REDUCED)
SUMS_OF_SQUARES = frozenset("ReduceL2 ReduceSumSquare ReduceSum ReduceMean".split())
COLOURS = (1, 3, 4)  # channels of an image
JOINS_NETWORKS = frozenset(("Add", "Mean", "ReduceMean", "Sum"))
WEIGHTED = frozenset("Div Mean Mul ReduceMean".split())  # the first step by which probabilities are averaged
POOLED = POOLINGS | REDUCTIONS
CLASS_MAPS = frozenset(("", "Relu", "Clip", "LeakyRelu"))  # what a convolution with one map for each class goes through
ANGLES = (45.0, 90.0, 180.0, 360.0, 180 / np.pi, np.pi / 2, np.pi, 2 * np.pi)
SIZES = frozenset(k * 2**n for n in range(5, 13) for k in (1, 3) if k * 2**n >= 64)
LINEAR_LAYERS = PRODUCTS | CONVOLUTIONS
CALLED = {"output": "its output is called", "layer": "its linear layer is called"}
NORM_STEPS = 6  # operators between a sum of squares and the division by its root


class Nature(NamedTuple):
    """A name for what numbers are, and the reason why."""

    name: str
    reason: str


def nature_of(vector: Vector, known: Mapping[ir.Value, Entries], inputs: Sequence[ir.Value], labels: int = 0) -> Nature:
    """Return what the numbers of a vector are.

    Args:
        vector: a value with one number, or one for each class, for each image.
        known: the entries of the values of the graph.
        inputs: the inputs of the graph.
        labels: how many labels of classes the model brings.
    """
    if vector.class_axis is None:
        return _of_one_number(vector)
    if vector.activation:
        return _of_squashed(vector, inputs)
    if vector.count == labels:
        return Nature(CLASSES, f"the model brings {labels} labels, one for each number")
    for find in (_mixed_probabilities, _normalised, _ends_in_function, _pooled_features, _called, _sized):
        if (nature := find(vector, known)) is not None:
            return nature
    return Nature(
        CLASSES,
        "one number for each of its columns, from a linear layer: taken for the logits of classes (if they are values "
        "of a regression: --target output:K; if they are an embedding: --target similar:FILE.npy)",
    )


def is_picked(vector: Vector, known: Mapping[ir.Value, Entries]) -> bool:
    """Tell whether the numbers were picked among those of cells: the scores of what a detector keeps."""
    node = _maker(vector.value)
    while node is not None and node.op_type in SLICES and node.inputs[0] is not None:
        node = _maker(node.inputs[0])
    if node is None or node.op_type in PICKS or (node.op_type in GATHERS and _is_picked_index(node.inputs[1])):
        return node is not None
    entries = known.get(node.inputs[0]) if node.op_type == "ReduceMax" and node.inputs[0] is not None else None
    return entries is not None and entries.are_squashed


def _is_picked_index(index: ir.Value | None) -> bool:
    """Tell whether an index was picked among cells: by a suppression, say."""
    while index is not None and (node := _maker(index)) is not None and node.op_type != "Constant":
        if node.op_type in PICKS:
            return True
        index = node.inputs[0] if node.inputs else None
    return False


def _of_one_number(vector: Vector) -> Nature:
    if vector.activation == "Sigmoid":
        return Nature("", "one number for each image, and a Sigmoid makes a probability of it")
    source = _behind_means(vector.value)
    if source is not None and source.op_type in BODIES:
        inside = f"made inside {'an' if source.op_type == 'If' else 'a'} {source.op_type}, which is not looked into"
        return Nature("", f"one number for each image, {inside}: taken for the value of a regression")
    if source is not None and source.op_type.endswith("Sigmoid"):
        return Nature(
            "", "one number for each image, a mean of what a Sigmoid makes: a probability, explained as it is"
        )
    return Nature("", "one number for each image, without a Sigmoid: a regression")


def _behind_means(value: ir.Value) -> ir.Node | None:
    """Return the node that computed a number, before it was averaged over windows, steps or views."""
    node = _maker(value)
    while node is not None and node.op_type in POOLED and node.inputs[0] is not None:
        node = _maker(node.inputs[0])
    return node


def _of_squashed(vector: Vector, inputs: Sequence[ir.Value]) -> Nature:
    if vector.activation != "Sigmoid":
        return Nature(CLASSES, f"a {vector.activation} over its columns makes probabilities of them")
    if (said := word_in((vector.output,), POINT_WORDS)).word:
        return Nature(VALUES, f"its output is called {said.name!r}, and a Sigmoid keeps each number between 0 and 1")
    if any(Sizes({}).numbers(v) == vector.count for v in inputs):
        return Nature(VALUES, "a Sigmoid makes as many numbers as the input has: the image once more")
    return Nature(CLASSES, "a Sigmoid makes a probability of each column by itself")


def is_image(graph: ir.Graph, value: ir.Value, known: Mapping[ir.Value, Entries]) -> bool:
    """Tell whether a map is the input once more, or another image, and not a map of classes.

    It has the shape of an input, or is a multiple as large. Of one channel it may be a mask, too: an image is what goes
    through fewer numbers than it has (an autoencoder), a mask what reaches the output on a finer way as well (the skips
    of a U-Net).
    """
    if value not in known or value.shape is None or len(value.shape) < 4:
        return False
    entries = known[value]
    channels = columns_in(value, entries.axis)
    alike = [v for v in graph.inputs if columns_in(v, entries.axis) == channels]
    if channels not in COLOURS or not alike or any(c.kind[0].endswith("Softmax") for c in entries.columns):
        return False
    sizes = Sizes.of(graph)
    growth = [g for v in alike if (g := _growth(sizes.dims(v), sizes.dims(value), entries.axis)) is not None]
    if not growth or channels != 1 or max(growth) > 1:
        return bool(growth)
    own, narrow = sizes.numbers(value), bottlenecks(list(graph), graph.inputs, [value])
    return own is not None and any((count := sizes.numbers(v)) is not None and count < own for v in narrow)


def _growth(image: Sequence[Dim], made: Sequence[Dim], channel_axis: int) -> int | None:
    """Return by how much a map is larger than an input along each spatial axis; None where it is no such image."""
    if len(image) != len(made):
        return None
    pairs = [(a, b) for k, (a, b) in enumerate(zip(image, made, strict=True)) if k and k != channel_axis]
    if all(a == b for a, b in pairs):
        return 1
    sizes = [b // a if isinstance(a, int) and isinstance(b, int) and a and b % a == 0 else 0 for a, b in pairs]
    return sizes[0] if len(set(sizes)) == 1 and sizes[0] > 1 else None


def _mixed_probabilities(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return classes where the numbers are a mean of probabilities, as of several networks or views."""
    entries = known.get(vector.value)
    if entries is None or any(c.squashed_by is None for c in entries.columns):
        return None
    *scales, first = [n.op_type for n in _behind_affine(vector.value)] or [""]
    if first not in JOINS_NETWORKS:
        return None
    weighted = WEIGHTED if not {"Mul", "Div"} & {*scales} else WEIGHTED | {"Add", "Sum"}
    if any(c.changed_by not in weighted for c in entries.columns):
        return None
    return Nature(PROBABILITIES, f"a mean of what several {entries.columns[0].kind[0]} make: probabilities of classes")


def _normalised(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return an embedding where the numbers are divided by their length, or normalised in another way, at the end."""
    node = _maker(vector.value)
    if node is not None and node.op_type in NORMALISATIONS and not _ends_linear(node):
        return Nature(EMBEDDING, f"it ends in {node.op_type}, as embeddings do: a classifier ends in a linear layer")
    *_, divided = [None, *_behind_affine(vector.value)]
    if divided is None or divided.op_type not in ("Div", "Mul"):
        return None
    for x, d in (divided.inputs[:2], reversed(divided.inputs[:2])):
        if x is not None and d is not None and constant(d) is None and _is_length_of(d, x):
            return Nature(EMBEDDING, "it is divided by its own length, as embeddings are")
    return None


def _is_length_of(length: ir.Value, value: ir.Value) -> bool:
    """Tell whether ``length`` is made of a sum of squares, or of its root, of what ``value`` is made of."""
    pending, seen = [(length, 0)], set[ir.Node]()
    while pending:
        found, steps = pending.pop()
        node = found.producer()
        if node is None or node in seen or steps > NORM_STEPS:
            continue
        seen.add(node)
        if node.op_type in SUMS_OF_SQUARES and _sums_squares(node):
            return value in _near(node)
        pending.extend((v, steps + 1) for v in node.inputs if v is not None and constant(v) is None)
    return False


def _sums_squares(node: ir.Node) -> bool:
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    is_square = before is not None and (
        (before.op_type == "Mul" and before.inputs[0] is before.inputs[1]) or before.op_type == "Pow"
    )
    return node.op_type in ("ReduceL2", "ReduceSumSquare") or is_square


def _near(node: ir.Node) -> set[ir.Value]:
    """Return what ``node`` reads, and what that is made of by at most two operators."""
    values = {v for v in node.inputs if v is not None}
    for _ in range(2):
        values |= {x for v in values if (n := v.producer()) is not None for x in n.inputs if x is not None}
    return values


def _ends_in_function(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return values where a function is the last that is done to the numbers, or a scale and then a shift are."""
    makers = list(_behind_affine(vector.value))
    if not makers:
        return None
    *affine, first = makers
    data = [v for v in first.inputs if v is not None and constant(v) is None]
    if first.op_type in FUNCTIONS and len(data) == 1:
        return Nature(VALUES, f"{first.op_type} is the last that is done to it, and no classifier ends in that")
    if affine and first.op_type in PRODUCTS and len(first.inputs) < 3 and affine[-1].op_type == "Add":
        affine.pop()  # the bias of the linear layer
    scales = [n for n in affine if n.op_type in ("Mul", "Div")]
    if [n in scales for n in affine] == [False, True]:
        return Nature(VALUES, "it is scaled and then shifted, as the values of a regression are")
    factors = [f for n in scales for v in n.inputs if (f := constant(v)) is not None]
    if any(np.unique(f).size > 1 for f in factors):
        return Nature(
            VALUES, "each of its numbers is scaled by a constant of its own, as the values of a regression are"
        )
    turn = next((float(f.flat[0]) for f in factors if np.isclose(np.abs(f.flat[0]), ANGLES, 1e-4).any()), None)
    if turn is not None:
        return Nature(VALUES, f"it is scaled by {turn:.5g}, as angles are")
    return None


def _pooled_features(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return an embedding where features are pooled and no linear layer comes behind; class maps are pooled, too."""
    node, entries = _maker(vector.value), known.get(vector.value)
    if node is None or node.op_type not in POOLED or entries is None:
        return None
    if all(c.changed_by in CLASS_MAPS for c in entries.columns):
        return None
    return Nature(EMBEDDING, "features are pooled, and no linear layer comes behind: it holds features, not classes")


def _called(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return what the names say: that of the output before those of the linear layer."""
    for place, names in names_of(vector.output, _linear(vector.value)).items():
        if word_in(names, CLASS_WORDS).word:
            return Nature(CLASSES, f"{CALLED[place]} {word_in(names, CLASS_WORDS).name!r}, and nothing squashes it")
        readings = {VALUES: POINT_WORDS, EMBEDDING: EMBEDDING_WORDS}
        readings[VALUES] |= VALUE_WORDS if vector.count <= FEW else frozenset()
        readings[EMBEDDING] |= FEATURE_WORDS if place == "output" else frozenset()
        for name, words in readings.items():
            if (said := word_in(names, words)).word:
                return Nature(name, f"{CALLED[place]} {said.name!r}")
    return None


def _sized(vector: Vector, known: Mapping[ir.Value, Entries]) -> Nature | None:
    """Return an embedding where there are as many numbers as embeddings have, and classes hardly ever."""
    if vector.count not in SIZES:
        return None
    return Nature(
        EMBEDDING,
        f"{vector.count} numbers, as many as embeddings have, and nothing squashes them: taken for features, and not "
        "for classes",
    )


def _linear(value: ir.Value) -> ir.Node | None:
    """Return the linear layer that makes a value, before it is scaled, shifted or normalised; None for none."""
    node = next((n for n in _behind_affine(value) if n.op_type in LINEAR_LAYERS | {"BatchNormalization"}), None)
    if node is None or node.op_type != "BatchNormalization" or node.inputs[0] is None:
        return node
    return next((n for n in _behind_affine(node.inputs[0]) if n.op_type in LINEAR_LAYERS), None)


def _ends_linear(node: ir.Node) -> bool:
    """Tell whether it is a BatchNormalization right behind a linear layer, into which it could be folded."""
    value = node.inputs[0]
    return node.op_type == "BatchNormalization" and value is not None and _linear(value) is not None


def _maker(value: ir.Value) -> ir.Node | None:
    """Return the node that computed ``value``, before it was reshaped, transposed or stored."""
    node = value.producer()
    while node is not None and node.op_type in PASSED_OVER and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _behind_affine(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that scaled and shifted ``value`` by constants, the last first, and the one before these."""
    node = _maker(value)
    while node is not None:
        yield node
        data = [v for v in node.inputs if v is not None and constant(v) is None]
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(data) != 1:
            return
        node = _maker(data[0])
