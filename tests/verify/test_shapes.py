"""Open sizes, fixed batches, several inputs and stale shapes are verified, or refused in one line."""

from __future__ import annotations

import dense_kinds
import numpy as np
import onnx
import pytest
from dense_kinds import KINDS, open_sizes
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.jobs.report import text
from onnx_gradcam.verify import verify


def stale() -> onnx.ModelProto:
    """A Reshape to a computed shape: nothing says how many classes there are, and what is declared is wrong."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    y = net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 5)
    shape = net.op("Concat", net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1)), net.ints(-1), axis=0)
    net.op("Softmax", net.op("Reshape", net.op("Reshape", y, net.ints(-1)), shape), out="p", axis=-1)
    return net.model({"p": ["a", "b"]})


def two_open_inputs() -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, "H", "W"]), (3, 4)), out="relu")
    y = net.head(x, 4, out="y")
    net.op("Add", y, net.linear(net.input("tabular", ["N", 7]), 7, 5), out="logits")
    return net.model({"logits": ["N", 5]})


def test_nodes_in_float64() -> None:
    """The head is computed in float64 between two Casts."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    y = net.op("Cast", net.op("Flatten", net.op("GlobalAveragePool", x)), to=onnx.TensorProto.DOUBLE)
    w = net.array(np.random.default_rng(0).standard_normal((4, 5)))
    net.op("Cast", net.op("Tanh", net.op("MatMul", y, w), out="tanh"), to=onnx.TensorProto.FLOAT, out="logits")
    report = verify(net.model({"logits": ["N", 5]}))
    assert report.ok, str(report)
    assert {n.status for n in report.nodes if n.op_type in ("MatMul", "Tanh")} == {"pass"}


def test_a_row_of_classes_that_the_first_run_shows() -> None:
    assert verify(stale()).ok


def test_several_inputs_of_open_size() -> None:
    report = verify(two_open_inputs())
    assert report.ok
    assert report.layers == ("relu",)


def sequence() -> onnx.ModelProto:
    """The mean over a height that is open, then one column of logits for each step."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, "H", "W"]), (3, 8)), out="relu")
    y = net.conv(net.op("ReduceMean", x, net.ints(2), keepdims=1), (8, 7), kernel=1)
    net.op("Squeeze", net.op("Transpose", y, perm=[0, 3, 1, 2]), net.ints(3), out="steps")
    return net.model({"steps": [1, "T", 7]})


def test_a_sequence_whose_height_is_open() -> None:
    """The gradient of a mean over an axis of one element reaches all that it is the mean of."""
    assert verify(sequence()).ok
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
    with ogc.Explainer(sequence(), "relu", providers=["cpu"]) as explainer:
        found = explainer.explain(x)
        assert found.gradient.shape == found.activation.shape
        rows = found.gradient[0].transpose(1, 0, 2)
        assert np.abs(rows).max() > 0
        assert all(np.array_equal(row, rows[0]) for row in rows)


@pytest.mark.parametrize("name", ["raw v8", "raw, apart", "ctc"])
def test_networks_of_open_size(name: str) -> None:
    assert verify(open_sizes(dense_kinds.model(KINDS[name].write))).status == "pass"


@pytest.mark.parametrize("name", ["yolov5", "yunet", "end to end", "detr", "mask"])
def test_a_network_that_no_size_fits_is_refused_in_a_sentence(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Its reshapes are of one size, whatever it declares; what the runtime says of each try is not printed."""
    with pytest.raises(OnnxGradcamError, match=r"--score|x="):
        verify(open_sizes(dense_kinds.model(KINDS[name].write)))
    assert capfd.readouterr() == ("", "")


def test_the_report_says_what_was_decided_where_and_how() -> None:
    report = verify(dense_kinds.model(KINDS["yolov5"].write), target_layer="level0")
    assert [check.level for check in report.checks] == ["forward", "nodes", "layer", "image"]
    assert [sum(check.roads.values()) for check in report.checks] == [0, 0, 3, 3]
    timing = report.as_dict()["timing"]
    assert timing["inferences"] == pytest.approx(timing["seconds"] / timing["inference"])
    lines = text.verified(report).splitlines()
    assert lines[-1] == "everything passed"
    assert lines[-2].startswith("  time ")
    assert "runs of the network" in lines[-2]
    assert sum("directions: " in line for line in lines) == 2
