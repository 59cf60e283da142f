"""The slope of the score in float64, carried forwards: it needs no rule, and tells what rounding and kinks hide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from dense_kinds import KINDS, model
from nets import Net
from planted import PLANTED, SMALL, planted, scaled
from quick import quick_first

import onnx_gradcam as ogc
from onnx_gradcam.verify import Report, network, tangent, verify
from onnx_gradcam.verify.report import Scan


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let differences through the runtime settle nothing."""
    monkeypatch.setattr(network, "scan", lambda *_: Scan((), (), None, None))


def gradients(report: Report) -> list[tuple[str, float | None, set[str]]]:
    return [(c.status, c.error, {scan.road for scan in c.scans}) for c in report.checks[2:]]


@pytest.mark.parametrize("write", [lambda: SMALL, *(lambda name=name: model(KINDS[name].write) for name in
                                                     ("yolov5", "detr", "end to end"))])  # fmt: skip
def test_a_right_gradient_is_known_to_a_millionth(write: Callable[[], onnx.ModelProto]) -> None:
    for status, error, roads in gradients(verify(write())):
        assert (status, roads) == ("pass", {"float64"})
        assert error is not None
        assert error < 1e-6


@pytest.mark.parametrize("name", quick_first(PLANTED))
def test_a_planted_error_is_found(name: str) -> None:
    (op_type, wrt), wrong, _, _, at_layer = PLANTED[name]
    layer, image = gradients(verify(SMALL, table=planted(op_type, wrt, wrong)))
    assert layer[0] == ("fail" if at_layer else "pass")
    assert image[0] == "fail"


@pytest.mark.parametrize("op_type", quick_first(["Conv", "GlobalAveragePool", "Relu", "MaxPool"]))
def test_a_factor_is_measured(op_type: str) -> None:
    """Each Conv and Relu on the way multiplies once more; two paths to the image have unlike numbers of them."""
    *_, (status, error, _) = gradients(verify(SMALL, table=planted(op_type, 0, scaled(1.02))))
    assert status == "fail"
    assert error is not None
    times = {"GlobalAveragePool": (1, 1), "MaxPool": (1, 1), "Relu": (3, 3), "Conv": (2, 3)}[op_type]
    assert 1 - 1.02 ** -times[0] - 1e-6 <= error <= 1 - 1.02 ** -times[1] + 1e-6


@pytest.mark.parametrize("kept", [0, 1])
def test_a_missing_path_is_found(kept: int) -> None:
    """Of the two paths around a skip connection one is left out where they are added up."""
    graph = ogc.gradient_model(SMALL, wrt=["x"])
    (total,) = [node for node in graph.graph.node if node.op_type == "Add" and node.name.startswith("grad/")]
    total.op_type = "Identity"
    total.input[:] = [total.input[kept]]
    report = verify(graph)
    assert [(c.status, {scan.road for scan in c.scans}) for c in report.checks] == [("fail", {"float64"})]


def test_where_the_score_stands_still_nothing_is_decided() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 5, out="y")
    net.op("Mul", "y", net.array(np.float32(0)), out="logits")
    report = verify(net.model({"logits": ["N", 5]}))
    assert [status for status, *_ in gradients(report)] == ["undecided", "undecided"]
    assert "no move changes the score" in report.checks[2].message


def test_rounding_of_the_gradient_to_float32_is_not_called_wrong() -> None:
    """1 − y of a Sigmoid near 1 has few bits left: float64 finds the rule right, and the slope that it gives."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    y = net.op("Sigmoid", net.op("Add", net.op("GlobalAveragePool", x), net.array(np.float32(15))))
    net.linear(net.op("Flatten", y), 4, 5, out="logits")
    for status, error, _ in gradients(verify(net.model({"logits": ["N", 5]}), target_layer="relu")):
        assert status == "pass"
        assert error is not None
        assert error < 5e-4


def test_a_mask_of_infinities_moves_nothing() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    y = net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 5)
    net.op("Add", y, net.array(np.array([[0, 0, -np.inf, 0, -np.inf]], np.float32)), out="logits")
    for status, _, roads in gradients(verify(net.model({"logits": ["N", 5]}))):
        assert (status, roads) == ("pass", {"float64"})


def test_fused_operators_are_written_out() -> None:
    """FusedConv is of com.microsoft, which has no reference: the standard operators for it have."""
    net = Net()
    net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv")
    proto = net.model({"logits": ["N", 5]}) if net.head("conv", 4) else None
    assert proto is not None
    node = proto.graph.node[0]
    node.op_type, node.domain = "FusedConv", "com.microsoft"
    node.attribute.append(onnx.helper.make_attribute("activation", "Relu"))
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for status, _, roads in gradients(verify(proto, target_layer="conv")):
        assert (status, roads) == ("pass", {"float64"})


def test_a_reference_that_rounds_is_none() -> None:
    """What moves by less than float32 tells has no slope; a Relu that is dead has one, of zero."""
    x = np.array([0.1, 0.7, -1.3])
    rounded = x.astype(np.float32).astype(np.float64)
    assert tangent._is_rounded(rounded + np.float64(2.0**-20), rounded)
    assert not tangent._is_rounded(x + 1e-7, x - 1e-7)
    assert not tangent._is_rounded(np.maximum(x + 1e-7, 0), np.maximum(x - 1e-7, 0))
    assert not tangent._is_rounded(np.zeros(3), np.zeros(3))
