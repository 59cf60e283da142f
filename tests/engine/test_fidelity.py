"""What is accepted between the outputs of the rewritten model and those of the deployed one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.engine.fidelity import OutputDifference

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


def model(selects: bool) -> onnx.ModelProto:
    """A classifier, beside whose logits the places that its map ranks first may stand."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 4)), out="stage")
    net.head(x, 4)
    rows = net.op("Reshape", net.op("ReduceMean", x, net.ints(1)), net.ints(1, 64))
    if selects:
        net.ops("TopK", rows, net.ints(5), out=["best", "places"])
    else:
        net.op("Slice", rows, net.ints(0), net.ints(5), net.ints(1), out="best")
    return net.model({"logits": [1, 5], "best": [1, 5]})


@pytest.mark.parametrize(("selects", "own", "accepted"), [(True, 0.02, True), (True, 0.0, False), (False, 0.02, False)])
def test_what_optimisations_make_of_a_selection_is_accepted(
    selects: bool, own: float, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two nearly equal entries is ranked first is decided by rounding: here 0.01 of the largest output."""
    apart = [OutputDifference("best", 0.01, 1e-4)]
    monkeypatch.setattr("onnx_gradcam.engine.evaluation.differences", lambda *_: apart)
    monkeypatch.setattr("onnx_gradcam.engine.evaluation.own_difference", lambda *_: own)
    with ogc.Explainer(model(selects), providers=["cpu"]) as explainer:
        if accepted:
            explanation = explainer.explain(X)
            assert any("by up to 0.01 of the largest" in warning for warning in explanation.warnings)
        else:
            with pytest.raises(ogc.ForwardMismatch, match="'best' differs"):
                explainer.explain(X)
