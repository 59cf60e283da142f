from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net, run
from reference import evaluator

from onnx_gradcam.anatomy.score import find_heads
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.prepare.prepare import prepare

FORMS = {
    "ceil-into-padding": "MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>",
    "average": "AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>",
    "counting": "AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1, "
    "count_include_pad = 1>",
    "dilated-same": 'MaxPool <kernel_shape = [2, 2], dilations = [2, 2], auto_pad = "SAME_UPPER">',
}


def network(pool: str, *, declared: bool) -> onnx.ModelProto:
    """Two such pools between convolutions; with the wrong shapes in the file, as exporters write them."""
    text = f"""
    <ir_version: 8, opset_import: ["" : 19]>
    net (float[1, 2, 9, 13] x) => (float[1, n] score) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        b = {pool} (a)
        c = Conv <pads = [1, 1, 1, 1]> (b, w)
        d = {pool} (c)
        e = Conv <kernel_shape = [1, 1]> (d, v)
        shape = Constant <value = int64[2] {{1, -1}}> ()
        score = Reshape (e, shape)
    }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, size in (("w", (2, 2, 3, 3)), ("v", (3, 2, 1, 1))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(size).astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model) if declared else model


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("pool", FORMS.values(), ids=FORMS)
def test_a_network_whose_pools_shape_inference_gets_wrong(pool: str, declared: bool) -> None:
    """The shapes are those of the run, the outputs those of the file, the gradient that of finite differences."""
    source = network(pool, declared=declared)
    x = np.random.default_rng(1).standard_normal((1, 2, 9, 13)).astype(np.float32)
    source.graph.output.extend(onnx.ValueInfoProto(name=n) for n in "bd")
    expected = list(run(source, {"x": x}, ["score", "b", "d"]).values())
    model = prepare(ir.from_proto(source))
    values = ir.convenience.create_value_mapping(model.graph)
    assert [list(values[n].shape or ()) for n in ("score", "b", "d")] == [list(y.shape) for y in expected]

    g = np.random.default_rng(2).standard_normal(expected[0].shape).astype(np.float32)
    op, nodes = Builder(model.graph), list(model.graph)
    (gradient,) = pull_back(op, nodes, {values["score"]: op.array(g)}, [values["x"]])
    model.graph.outputs.append(gradient)
    *outputs, found = run(model, {"x": x}, ["score", "b", "d", gradient.name or ""]).values()
    for y, same in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(y, same)
    v = np.random.default_rng(3).standard_normal(x.shape)
    reference = evaluator(_double(source))
    plus, minus = (reference.run(["score"], {"x": x + h * v})[0] for h in (1e-6, -1e-6))
    assert np.vdot(found, v) == pytest.approx(np.vdot(g, plus - minus) / 2e-6, rel=1e-5)


def _double(model: onnx.ModelProto) -> onnx.ModelProto:
    double = onnx.ModelProto()
    double.CopyFrom(model)
    for tensor in double.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        )
    return double


@pytest.mark.parametrize(
    ("length", "samples", "onesided", "expected"),
    [
        ("size", "16", 1, [1, 6, 4, 2]),
        ("size", "16", 0, [1, 6, 6, 2]),
        ("size", "n", 1, [1, None, 4, 2]),
        ("given", "16", 1, [1, None, None, 2]),
    ],
)
def test_half_a_spectrum(length: str, samples: str, onesided: int, expected: list[int | None]) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : 19]>
    net (float[1, {samples}, 1] x, int64 given) => (float[a, b, c, d] y) {{
        s = STFT <onesided = {onesided}> (x, step, , {length})
        y = Relu (s)
    }}"""
    model = onnx.parser.parse_model(text)
    for name, number in (("step", 2), ("size", 6)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number), name))
    values = ir.convenience.create_value_mapping(prepare(ir.from_proto(model)).graph)
    for name in ("s", "y"):
        assert [d if isinstance(d, int) else None for d in values[name].shape] == expected


def test_unknown_lengths_of_an_attention_are_not_zero() -> None:
    """onnx multiplies lengths that it does not know to 0."""
    text = """<ir_version: 10, opset_import: ["": 23]>
        g (float[B, S, D] x) => (float[B, S, E] z) {
            y, k, v, w = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x)
            z = Relu(y)
        }"""
    graph = prepare(ir.from_proto(onnx.parser.parse_model(text))).graph
    assert 0 not in [d for node in graph for v in node.outputs for d in v.shape or ()]


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_an_output_declared_without_dimensions_gets_those_of_its_softmax(opset: int) -> None:
    """As PaddlePaddle's converter leaves it, behind a Reshape of which only the rank is known at first."""
    net = Net(opset=opset)
    x = net.conv(net.input("x", [BATCH, 3, 8, "W"]), (3, 6))
    start = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2))
    steps = net.op("Transpose", net.op("Reshape", x, net.op("Concat", start, net.ints(-1), axis=0)), perm=[0, 2, 1])
    net.op("Softmax", net.op("MatMul", steps, net.random(6, 5), out="logits"), axis=2, out="p")
    graph = prepare(ir.from_proto(net.model({"p": []}))).graph
    (output,) = graph.outputs
    assert [str(d) for d in output.shape or ()][::2] == [BATCH, "5"]
    assert [node.op_type for node in graph if "logits" in [v.name for v in node.inputs if v]] == ["Softmax"]
    (head,) = find_heads(graph)
    assert (head.name, head.count, head.kind) == ("logits", 5, "dense")


def test_names_that_an_earlier_inference_left_make_no_two_sizes_one() -> None:
    """Tools keep some of the names that shape inference gives; those that it gives next begin at unk__0 again."""
    net = Net()
    fine = net.conv(net.input("x", [BATCH, 3, "H", "W"]), (3, 4), stride=2, out="fine")
    coarse = net.conv(net.op("Relu", fine), (4, 4), stride=2, out="coarse")
    net.op("GlobalAveragePool", coarse, out="y")
    proto = net.model({"y": None})
    left = [BATCH, 4, "unk__0", "unk__1"]
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("coarse", onnx.TensorProto.FLOAT, left))
    values = ir.convenience.create_value_mapping(prepare(ir.from_proto(proto)).graph)
    sizes = [str(d) for name in ("fine", "coarse") for d in list(values[name].shape or ())[2:]]
    assert len(set(sizes)) == 4
