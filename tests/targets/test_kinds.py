"""Every kind of target: its score against NumPy, its gradient against finite differences in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import Net
from onnx.reference import ReferenceEvaluator
from safe_operators import SAFE, SHAPE_ARITHMETIC

from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import SCORE_OUTPUT
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import Kind, kinds, write_score
from onnx_gradcam.targets.detections import BOX_FORMS, affine, cells, decoded_boxes, overlap

Array = np.ndarray
N, K, D = 3, 5, 4
CHOOSING = frozenset({"ArgMax", "GatherElements"})  # nodes that pick a class or cell; as class scores do


def double(net: Net, out: str, *dims: int | str) -> onnx.ModelProto:
    return net.model({out: dims}, {out: onnx.TensorProto.DOUBLE})


def classifier(activation: str, classes: int = K, mask: int | None = None) -> onnx.ModelProto:
    """x (N, D) → Tanh → linear → activation; the logit of the class ``mask`` is −∞."""
    net = Net()
    rng = np.random.default_rng(0)
    x = net.input("x", ["N", D], np.float64)
    w = net.array(rng.standard_normal((D, classes)))
    y = net.op("MatMul", net.op("Tanh", x), w, out="y")
    if mask is not None:
        hidden = net.array(np.array([[k == mask for k in range(classes)]]))
        y = net.op("Where", hidden, net.array(np.array(-np.inf)), y, out="masked")
    out = net.op(activation, y, out="p") if activation else y
    return double(net, out, "N", classes)


def gradient_graph(model: onnx.ModelProto, kind: Kind) -> tuple[onnx.ModelProto, Any]:
    prepared = prepare(load(model).model)
    score = find_score(prepared.graph)
    whole = differentiate(*write_score(prepared, score), ["x"], kind=kind)
    return ir.to_proto(whole.model), score


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The reference evaluator warns of branches of a Where that are not taken."""
    with np.errstate(all="ignore"):
        yield


def check(model: onnx.ModelProto, kind: Kind, x: Array, given: Mapping[str, Array], expected: Array) -> None:
    """Score and gradient; and only operators that every provider has."""
    graph, _ = gradient_graph(model, kind)
    evaluator = ReferenceEvaluator(graph)
    feeds = {"target_index": np.full(len(x), 0, np.int64), **given}

    def score(x: Array) -> Array:
        (found,) = evaluator.run([SCORE_OUTPUT], {"x": x, **feeds})
        return np.asarray(found)

    found, gradient = evaluator.run([SCORE_OUTPUT, "grad/x"], {"x": x, **feeds})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.shape == (len(x),)
    assert np.isfinite(gradient).all()
    rng, h = np.random.default_rng(1), 1e-5
    for _ in range(4):
        v = rng.standard_normal(x.shape)
        numeric = (score(x + h * v) - score(x - h * v)) / (2 * h)
        exact = (gradient * v).reshape(len(x), -1).sum(axis=1)
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-8)
    own = {node.op_type for node in graph.graph.node if node.name.startswith("grad/")}
    assert own <= SAFE | SHAPE_ARITHMETIC | CHOOSING | {"ScatterElements"}


def logits(model: onnx.ModelProto, x: Array, name: str = "y") -> Array:
    graph = onnx.ModelProto.FromString(model.SerializeToString())
    graph.graph.output.append(onnx.ValueInfoProto(name=name))
    return np.asarray(ReferenceEvaluator(graph).run([name], {"x": x})[0])


def softmax(y: Array, axis: int = 1) -> Array:
    e = np.exp(y - y.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(5).standard_normal((N, D))


@pytest.mark.parametrize("activation", ["Softmax", "", "Sigmoid"])
def test_probability(activation: str, x: Array) -> None:
    model = classifier(activation)
    y = logits(model, x)
    p = sigmoid(y) if activation == "Sigmoid" else softmax(y)
    chosen = np.array([4, 0, 2])
    expected = p[np.arange(N), chosen]
    check(model, kinds.PROBABILITY, x, {"target_index": chosen}, expected)
    check(model, kinds.LOG_PROBABILITY, x, {"target_index": chosen}, np.log(expected))
    check(model, kinds.PROBABILITY, x, {"target_index": np.full(N, -1)}, p.max(axis=1))


def test_probability_of_one_sigmoid_logit(x: Array) -> None:
    model = classifier("Sigmoid", 1)
    p = sigmoid(logits(model, x)[:, 0])
    chosen = np.array([1, 0, 1])
    expected = np.where(chosen == 1, p, 1 - p)
    check(model, kinds.PROBABILITY, x, {"target_index": chosen}, expected)
    check(model, kinds.LOG_PROBABILITY, x, {"target_index": chosen}, np.log(expected))


@pytest.mark.parametrize("kind", [kinds.PROBABILITY, kinds.LOG_PROBABILITY])
def test_masked_classes_make_no_nan(kind: Kind, x: Array) -> None:
    model = classifier("Softmax", mask=2)
    y = np.delete(logits(model, x), 2, axis=1)
    p = softmax(y)[:, 0]
    check(model, kind, x, {}, p if kind is kinds.PROBABILITY else np.log(p))


def test_probability_of_a_masked_class_is_zero(x: Array) -> None:
    graph, _ = gradient_graph(classifier("Softmax", mask=2), kinds.PROBABILITY)
    feeds = {"x": x, "target_index": np.full(N, 2)}
    p, gradient = ReferenceEvaluator(graph).run([SCORE_OUTPUT, "grad/x"], feeds)
    np.testing.assert_array_equal(p, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_log_probability_of_large_logits_is_exact(activation: str) -> None:
    """±1000, where exp overflows and p rounds to 0 or 1."""
    net = Net()
    net.input("x", ["N", 2], np.float64)
    y = net.op("Mul", "x", net.array(np.array([[1.0, 1.0]])), out="y")
    model = double(net, net.op(activation, y, out="p"), "N", 2)
    graph, _ = gradient_graph(model, kinds.LOG_PROBABILITY)
    x = np.array([[-1000.0, 1000], [0, 0], [1000, -1000]])
    value, gradient = ReferenceEvaluator(graph).run(
        [SCORE_OUTPUT, "grad/x"], {"x": x, "target_index": np.zeros(3, np.int64)}
    )
    if activation == "Softmax":
        np.testing.assert_allclose(value, [-2000, np.log(0.5), 0])
        np.testing.assert_allclose(gradient, [[1, -1], [0.5, -0.5], [0, 0]])
    else:
        np.testing.assert_allclose(value, [-1000, np.log(0.5), 0])
        np.testing.assert_allclose(gradient, [[1, 0], [0.5, 0], [0, 0]])


def test_linear(x: Array) -> None:
    model = classifier("Softmax", mask=1)
    weights = np.array([[1, 0, -1, 0, 0], [0, 0, 0.5, 1, -0.5], [1, 0, 0, 0, 0]], np.float32)
    y = logits(model, x)
    check(model, kinds.LINEAR, x, {"target/weights": weights}, (np.where(weights == 0, 0, weights * y)).sum(axis=1))


def test_linear_of_a_regression_and_of_one_logit(x: Array) -> None:
    model = classifier("", 1)
    weights = np.array([[1], [-1], [2]], np.float32)
    check(model, kinds.LINEAR, x, {"target/weights": weights}, (weights * logits(model, x)).sum(axis=1))
    model = classifier("Sigmoid", 1)
    z = logits(model, x)[:, 0]
    weights = np.array([[0, 1], [1, -1], [0, -1]], np.float32)
    check(model, kinds.LINEAR, x, {"target/weights": weights}, np.array([z[0], -2 * z[1], -z[2]]))


def test_similarity(x: Array) -> None:
    model = classifier("")
    q = np.random.default_rng(2).standard_normal((N, K)).astype(np.float32)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    e = logits(model, x)
    expected = (e * q).sum(axis=1) / np.linalg.norm(e, axis=1)
    check(model, kinds.SIMILARITY, x, {"target/embedding": q}, expected)


def test_similarity_of_nothing_is_zero() -> None:
    graph, _ = gradient_graph(classifier(""), kinds.SIMILARITY)
    q = np.eye(1, K, dtype=np.float32)
    feeds = {"x": np.zeros((1, D)), "target_index": np.zeros(1, np.int64), "target/embedding": q}
    value, gradient = ReferenceEvaluator(graph).run([SCORE_OUTPUT, "grad/x"], feeds)
    assert value[0] == 0
    assert np.isfinite(gradient).all()


def test_custom(x: Array) -> None:
    def energy(op: Builder, outputs: Mapping[str, Value]) -> Value:
        return op.ReduceSum(op.Mul(outputs["p"], outputs["p"]), op.ints(1), keepdims=0)

    model = classifier("Softmax")
    kind = kinds.custom(energy)
    assert kind == kinds.custom(energy)
    check(model, kind, x, {}, (softmax(logits(model, x)) ** 2).sum(axis=1))


# --- many scores per image --------------------------------------------------------------------------------------


def dense(activation: str = "Softmax", classes: int = 3) -> onnx.ModelProto:
    """x (N, 2, 4, 5) → Conv → activation over the classes."""
    net = Net()
    rng = np.random.default_rng(3)
    net.input("x", ["N", 2, 4, 5], np.float64)
    w = net.array(rng.standard_normal((classes, 2, 3, 3)))
    y = net.op("Conv", net.op("Tanh", "x"), w, out="y", pads=[1, 1, 1, 1])
    out = net.op(activation, y, out="p", **({"axis": 1} if activation == "Softmax" else {}))
    return double(net, out, "N", classes, 4, 5)


@pytest.fixture
def image() -> Array:
    return np.random.default_rng(4).standard_normal((2, 2, 4, 5))


def test_region(image: Array) -> None:
    model = dense()
    y = logits(model, image).reshape(2, 3, 20)
    mask = np.zeros((2, 20), np.float32)
    mask[0, [3, 7]], mask[1, 5] = 0.5, 1
    expected = np.array([(y[0, 2, 3] + y[0, 2, 7]) / 2, y[1, 1, 5]])
    check(model, kinds.REGION, image, {"target_index": np.array([2, 1]), "target/mask": mask}, expected)


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_probability_at_the_best_cell(activation: str, image: Array) -> None:
    model = dense(activation)
    y = logits(model, image).reshape(2, 3, 20)
    p = sigmoid(y) if activation == "Sigmoid" else softmax(y)
    expected = np.array([p[0, 2].max(), p[1, 0].max()])
    check(model, kinds.PROBABILITY, image, {"target_index": np.array([2, 0])}, expected)
    check(model, kinds.LOG_PROBABILITY, image, {"target_index": np.array([2, 0])}, np.log(expected))


def test_a_difference_is_taken_at_the_cell_of_the_class(image: Array) -> None:
    model = dense("Sigmoid")
    y = logits(model, image).reshape(2, 3, 20)
    at = [int(y[i, 1].argmax()) for i in range(2)]
    weights = np.tile(np.array([0, 1, -1], np.float32), (2, 1))
    expected = np.array([y[i, 1, at[i]] - y[i, 2, at[i]] for i in range(2)])
    check(model, kinds.LINEAR, image, {"target_index": np.array([1, 1]), "target/weights": weights}, expected)


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_tokens(activation: str, image: Array) -> None:
    model = dense(activation)
    y = logits(model, image).reshape(2, 3, 20)
    log_p = np.log(sigmoid(y) if activation == "Sigmoid" else softmax(y))
    weights = np.zeros((2, 3, 20), np.float32)
    weights[0, 1, 0] = weights[0, 2, 1] = weights[1, 0, 4] = 1
    expected = np.array([log_p[0, 1, 0] + log_p[0, 2, 1], log_p[1, 0, 4]])
    check(model, kinds.TOKENS, image, {"target/tokens": weights}, expected)


@pytest.mark.parametrize(
    "name", ["corners", "corners y first", "centre", "centre, of the cell", "centre, of cell and input", "distances"]
)
def test_overlap(image: Array, name: str) -> None:
    """Of the boxes of two cells with given ones, by each way in which numbers become boxes."""
    model = boxes(4)
    form, size = BOX_FORMS[name], (40, 50)
    where = cells(np.array([[20, 4, 5]]), size, False)
    matrix, origin = affine(form, where, size)
    raw = logits(model, image, "box").reshape(2, 4, 20)
    every = np.stack([decoded_boxes(form, raw[i], where, size) for i in range(2)])
    wide = (every[:, :, 2:] > every[:, :, :2]).all(axis=2)
    places = wide.argmax(axis=1)
    found = every[[0, 1], places]
    sides = np.tile(found[:, 2:] - found[:, :2], 2)
    assert (sides > 0).all()
    given = (found + sides * [[0.3, -0.2, 0.1, -0.3], [-0.1, 0.2, -0.4, 0.2]]).astype(np.float32)
    expected = np.array([overlap(found[i : i + 1], given[i].astype(np.float64))[0] for i in range(2)])
    assert (expected > 0.2).all()
    parameters = {
        "target/mask": np.eye(20, dtype=np.float32)[places],
        "target/matrix": matrix[places].astype(np.float32),
        "target/origin": origin[places].astype(np.float32),
        "target/box": given,
    }
    check(model, kinds.iou(*form.functions), image, parameters, expected)


def test_overlap_of_distributions(image: Array) -> None:
    model, place = boxes(12), 8
    form, size = BOX_FORMS["distributions of distances"], (40, 50)
    where = cells(np.array([[20, 4, 5]]), size, False)
    matrix, origin = affine(form, where, size)
    raw = logits(model, image, "box").reshape(2, 12, 20)
    found = np.stack([decoded_boxes(form, raw[i], where, size)[place] for i in range(2)])
    given = (found + np.array([[3, 2, 4, -1], [-2, 1, 1, 2]])).astype(np.float32)
    expected = np.array([overlap(found[i : i + 1], given[i].astype(np.float64))[0] for i in range(2)])
    assert (expected > 0.1).all()
    parameters = {
        "target/mask": np.eye(20, dtype=np.float32)[[place, place]],
        "target/matrix": matrix[[place, place]].astype(np.float32),
        "target/origin": origin[[place, place]].astype(np.float32),
        "target/box": given,
    }
    check(model, kinds.iou(*form.functions), image, parameters, expected)


def boxes(columns: int) -> onnx.ModelProto:
    """Two classes with a Sigmoid, and beside them ``columns`` numbers for a box, as outputs of their own."""
    net = Net()
    rng = np.random.default_rng(3)
    net.input("x", ["N", 2, 4, 5], np.float64)
    t = net.op("Tanh", "x")
    box = net.op("Conv", t, net.array(rng.standard_normal((columns, 2, 1, 1))), out="box")
    p = net.op("Sigmoid", net.op("Conv", t, net.array(rng.standard_normal((2, 2, 1, 1)))), out="p")
    shapes = {p: ["N", 2, 4, 5], box: ["N", columns, 4, 5]}
    return net.model(shapes, dict.fromkeys(shapes, onnx.TensorProto.DOUBLE))


def test_probability_with_an_objectness(image: Array) -> None:
    """p = σ(objectness) · σ(class): both get a gradient."""
    net = Net()
    rng = np.random.default_rng(3)
    net.input("x", ["N", 2, 4, 5], np.float64)
    t = net.op("Tanh", "x")
    parts = []
    for name, count in (("object", 1), ("class", 3)):
        w = net.array(rng.standard_normal((count, 2, 1, 1)))
        parts.append(net.op("Sigmoid", net.op("Conv", t, w, out=name)))
    out = net.op("Concat", *parts, out="p", axis=1)
    model = double(net, out, "N", 4, 4, 5)
    o, c = (sigmoid(logits(model, image, name)).reshape(2, -1, 20) for name in ("object", "class"))
    expected = (o * c)[:, 1].max(axis=1)
    check(model, kinds.PROBABILITY, image, {"target_index": np.array([1, 1])}, expected)
    mask = np.eye(20, dtype=np.float32)[[3, 9]]
    z = logits(model, image, "object").reshape(2, 20)
    check(model, kinds.OBJECTNESS, image, {"target/mask": mask}, z[[0, 1], [3, 9]])
