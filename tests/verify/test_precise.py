"""A whole network in float64, without the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from brightness import brightness_model
from nets import Net, feeds, run
from repository import ROOT

from onnx_gradcam.engine.session import Options
from onnx_gradcam.explain.network import open_network
from onnx_gradcam.verify import precise
from onnx_gradcam.verify.float64 import NoReference
from onnx_gradcam.verify.precise import Float64Graph

MODELS = [brightness_model(), ROOT / "models" / "shapes-resnet.onnx"]


def proto_of(model: onnx.ModelProto | Path) -> onnx.ModelProto:
    return model if isinstance(model, onnx.ModelProto) else onnx.load(model)


@pytest.mark.parametrize("model", MODELS, ids=["brightness", "resnet"])
def test_outputs_are_the_runtimes(model: onnx.ModelProto | Path) -> None:
    prepared = open_network(model).scored_model
    fed = feeds(proto_of(model))
    names = [v.name or "" for v in prepared.graph.outputs]
    found = Float64Graph(prepared, fed, Options()).run(names, fed)
    expected = run(proto_of(model), fed)
    for name, array in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_an_operator_of_another_domain_has_no_reference() -> None:
    net = Net()
    x = net.op("Relu", net.input("x", ["N", 3]), out="y")
    model = ir.from_proto(net.model({"y": None}))
    next(iter(model.graph)).domain = "com.example"
    with pytest.raises(NoReference, match=r"com\.example::Relu"):
        precise._function(next(iter(model.graph)), {x: (1, 3)})
