"""The gradient of a model in two halves: forward once, backward for every row of (image, class)."""

from __future__ import annotations

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import feeds, run

from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.engine.program import GradientGraph, differentiate, forward_only, has_rows, split
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import CLASS_OUTPUT, SCORE_OUTPUT, TARGET_INDEX
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score

ALL = {**builders.ARCHITECTURES, **builders.HABITS}
CLASSES = [3, -1, 0, 2]


def whole(proto: onnx.ModelProto, *names: str) -> GradientGraph:
    prepared = prepare(load(proto).model)
    return differentiate(*write_score(prepared, find_score(prepared.graph)), names)


def layer_of(proto: onnx.ModelProto) -> str:
    """The target layer that "auto" takes."""
    graph = prepare(load(proto).model).graph
    return choose(graph, find_score(graph), ["auto"])[0].name


def classes(proto: onnx.ModelProto, count: int) -> np.ndarray:
    """The classes to explain, within what the model has."""
    found = find_score(prepare(load(proto).model).graph).count
    return np.array([c if c < found else 0 for c in CLASSES[:count]], np.int64)


def taken(arrays: dict[str, np.ndarray], rows: list[int], count: int) -> dict[str, np.ndarray]:
    """These rows of all arrays with a batch axis."""
    return {k: v[rows] if v.ndim and len(v) == count else v for k, v in arrays.items()}


@pytest.mark.parametrize("name", [*ALL, "skip"])
def test_two_parts_give_what_the_whole_gives(name: str) -> None:
    """Forward once for all images; backward for rows of (image, class)."""
    proto = builders.residual() if name == "skip" else ALL[name]()
    layers = ["relu2", "inner2"] if name == "skip" else [layer_of(proto)]
    graph = whole(proto, *layers)
    forward, backward, boundary = split(graph)
    fed = feeds(proto, 4)
    count = len(max(fed.values(), key=np.ndim))
    passed = run(ir.to_proto(forward), fed)
    assert set(passed) == {*graph.outputs, *graph.scores, *graph.activations, *boundary}
    free = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value <= 0
    rows = [i for i in range(count) for _ in range(3)] if free else list(range(count))
    wanted = np.tile(classes(proto, 3), count) if free else classes(proto, count)
    found = run(ir.to_proto(backward), {TARGET_INDEX: wanted, **taken({k: passed[k] for k in boundary}, rows, count)})
    assert set(found) == {SCORE_OUTPUT, CLASS_OUTPUT, *graph.gradients}
    expected = run(ir.to_proto(graph.model), {TARGET_INDEX: wanted, **taken(fed, rows, count)})
    np.testing.assert_array_equal(found[CLASS_OUTPUT], expected[CLASS_OUTPUT])
    for key in (SCORE_OUTPUT, *graph.gradients):
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, atol=1e-6 * scale)
        assert scale > 0


def test_the_parts_share_no_work() -> None:
    graph = whole(builders.residual(), "stage2")
    forward, backward, boundary = split(graph)
    assert set(boundary) == {"logits", "stage2"}, "behind global pooling, stage2 is read for its size alone"
    operators = [node.op_type for node in backward.graph]
    assert "Conv" not in operators
    assert "Relu" not in operators
    assert not {node.name for node in forward.graph} & {node.name for node in backward.graph}
    assert TARGET_INDEX not in {v.name for v in forward.graph.inputs}


def test_forward_only_computes_what_was_asked_for() -> None:
    proto = builders.residual()
    graph = whole(proto, "stage2")
    own = graph.names.inputs.values()
    model = ir.to_proto(forward_only(graph.model, ["stage1", "logits", "stage1"], own))
    assert [v.name for v in model.graph.output] == ["stage1", "logits"]
    assert "grad" not in {node.name.split("/")[0] for node in model.graph.node}
    np.testing.assert_allclose(run(model, feeds(proto))["logits"], run(proto, feeds(proto))["logits"], rtol=1e-6)
    early = ir.to_proto(forward_only(graph.model, ["stage1"], own))
    assert "stage2" not in {name for node in early.graph.node for name in node.output}
    assert graph.model.graph.outputs[0].name == "logits", "the whole stays as it is"


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("plain", "relu", True),
        ("residual", "relu2", True),
        ("batch1", "relu", True),
        ("batch4", "relu", False),
        ("view", "relu", True),
        ("any_size", "relu", True),
        ("two_inputs", "relu", True),
        ("scaled_by_an_input", "relu", False),
    ],
)
def test_rows_may_be_taken_where_each_value_has_one_per_image(name: str, layer: str, expected: bool) -> None:
    image = "image" if name == "two_inputs" else "x"
    assert has_rows(split(whole(ALL[name](), layer)), image) == expected
