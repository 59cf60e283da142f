"""An If of torch's: ``squeeze`` of an axis whose length is known at run time only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from onnx import parser

from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

READERS = {
    "Transpose": "y = Transpose <perm = [2, 0, 1]> (s)",
    "RNN": "y = RNN <hidden_size = 4> (s, w, r)",
}


def model(reader: str, dims: str = "N, 3, H, W", axes: str = "2", shape: str = "a, b, c") -> onnx.ModelProto:
    made = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]>
    m (float[{dims}] x) => (float[{shape}] y)
    <int64[1] one = {{1}}, int64 place = {{2}}, int64[1] axes = {{{axes}}}>
    {{ n = Shape(x)\n h = Gather(n, place)\n c = Equal(h, one)
       s = If (c) <then_branch = yes () => (float[p, q, r] t) {{ t = Squeeze(x, axes) }},
                   else_branch = no () => (float[p, q, r] e) {{ e = Identity(x) }}>
       {reader} }}""")
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {"w": (1, 4, 5), "r": (1, 4, 4)}
    arrays = {name: rng.standard_normal(size).astype(np.float32) for name, size in weights.items()}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in arrays.items())
    return made


def operators(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in prepare(load(made).model).graph]


@pytest.mark.parametrize(
    ("name", "dims", "shape"),
    [("Transpose", "N, 3, H, W", "a, b, c"), ("RNN", "N, 3, H, 5", "a, b, c, d")],
)
def test_what_reads_it_tells_the_branch(name: str, dims: str, shape: str) -> None:
    made = model(READERS[name], dims, shape=shape)
    assert operators(made) == ["Squeeze", name]
    x = np.random.default_rng(1).standard_normal((2, 3, 1, 5)).astype(np.float32)
    prepared = ir.to_proto(prepare(load(made).model))
    np.testing.assert_array_equal(run(prepared, {"x": x})["y"], run(made, {"x": x})["y"])


def test_the_other_branch() -> None:
    assert operators(model("y = Transpose <perm = [3, 0, 1, 2]> (s)", shape="a, b, c, d")) == ["Identity", "Transpose"]


@pytest.mark.parametrize("reader", ["y = Neg(s)", "y = Transpose (s)", "y = Transpose <perm = [1, 0]> (s)"])
def test_an_if_stays_where_nothing_tells(reader: str) -> None:
    assert "If" in operators(model(reader))


def test_two_readers_that_differ_tell_nothing() -> None:
    reader = "y = Transpose <perm = [2, 0, 1]> (s)\n z = Transpose <perm = [3, 0, 1, 2]> (s)\n k = Shape(z)"
    made = model(reader)
    made.graph.output.append(onnx.helper.make_tensor_value_info("k", onnx.TensorProto.INT64, [4]))
    assert "If" in operators(made)
