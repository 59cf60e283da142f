"""verify on a gradient graph that is given: right ones pass, planted errors are caught at the value that has them."""

from __future__ import annotations

from collections.abc import Callable

import builders
import numpy as np
import onnx
import pytest
from nets import run

from onnx_gradcam.errors import InputError
from onnx_gradcam.graph.names import CLASS_OUTPUT, SCORE_OUTPUT, TARGET_INDEX
from onnx_gradcam.jobs.report import text
from onnx_gradcam.roads.engines import gradient_model
from onnx_gradcam.verify import verify


def written() -> onnx.ModelProto:
    return gradient_model(builders.residual("N"), ["stage1", "x"])


def test_a_right_graph_passes() -> None:
    report = verify(written())
    assert report.ok
    assert [check.name for check in report.checks] == ["gradient at 'stage1'", "gradient at 'x'"]
    assert (report.score, report.layers, report.nodes) == (SCORE_OUTPUT, ("stage1",), ())
    assert "the forward pass" in report.notes[0]


def producer(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if name in node.output)


def put(proto: onnx.ModelProto, name: str, op_type: str, *more: np.ndarray) -> None:
    """In place of the Identity that gives the output ``name``: another operator, with further inputs."""
    node = producer(proto, name)
    given = [f"planted/{i}" for i in range(len(more))]
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for a, n in zip(more, given, strict=True))
    node.op_type = op_type
    node.input.extend(given)


def scaled(proto: onnx.ModelProto) -> None:
    put(proto, "grad/x", "Mul", np.array(1.01, np.float32))


def empty(proto: onnx.ModelProto) -> None:
    """As onnxruntime-training's AveragePool has it where the batch is symbolic."""
    put(proto, "grad/x", "Slice", np.array([0]), np.array([0]), np.array([0]))


@pytest.mark.parametrize("plant", [scaled, empty])
def test_a_wrong_one_fails_where_it_is_wrong(plant: Callable[[onnx.ModelProto], None]) -> None:
    proto = written()
    plant(proto)
    report = verify(proto)
    assert not report.ok
    assert {check.name: check.status for check in report.checks} == {
        "gradient at 'stage1'": "pass",
        "gradient at 'x'": "fail",
    }


def test_an_empty_gradient_is_told_by_its_shape() -> None:
    proto = written()
    empty(proto)
    assert "the gradient has shape (0, 3, 16, 16), the value (1, 3, 16, 16)" in text.verified(verify(proto))


def test_the_users_input_is_taken() -> None:
    x = np.random.default_rng(3).standard_normal((2, 3, 16, 16)).astype(np.float32)
    proto = written()
    (index,) = verify(proto, x=x).class_index
    assert index == int(run_class(proto, x[:1])[0])
    with pytest.raises(InputError):
        verify(proto, x=x[:, :2])


def run_class(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = run(proto, {"x": x, TARGET_INDEX: np.array([-1])}, [CLASS_OUTPUT])[CLASS_OUTPUT]
    return found
