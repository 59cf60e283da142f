"""What `inspect --provider cuda` says, from the checked-in table of kernels."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from repository import MODELS
from safe_operators import lint

from onnx_gradcam import cli
from onnx_gradcam.jobs import cuda_kernels
from onnx_gradcam.jobs.inspect import overview
from onnx_gradcam.jobs.report import text


def node(text: str, opset: int) -> tuple[str, ...]:
    """What is said of one node, written as the text form of a model has it, with the types of its inputs."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> g '
    graph = ir.from_onnx_text(header + text).graph
    return cuda_kernels.without_kernel(graph, graph.opset_imports)


@pytest.mark.parametrize(
    ("opset", "named"),
    [(8, ()), (9, ()), (12, ()), (18, ()), (21, ()), (22, ("MaxPool of opset 22 in float",))],
)
def test_opsets(opset: int, named: tuple[str, ...]) -> None:
    """MaxPool's last kernel is of opset 12, which holds until the operator was written anew in 22."""
    text = "(float[1,3,8,8] x) => (float[1,3,4,4] y) { y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }"
    assert node(text, opset) == named


@pytest.mark.parametrize(
    ("kind", "named"), [("float", ()), ("float16", ()), ("int64", ()), ("int16", ("Where of opset 16 in bool",))]
)
def test_types(kind: str, named: tuple[str, ...]) -> None:
    text = f"(bool[N] c, {kind}[N] a, {kind}[N] b) => ({kind}[N] y) {{ y = Where(c, a, b) }}"
    assert node(text, 18) == named


def test_the_types_of_outputs_count() -> None:
    assert node("(float[N] x) => (float16[N] y) { y = Cast <to = 10> (x) }", 21) == ()
    assert node("(float[N] x) => (int4[N] y) { y = Cast <to = 22> (x) }", 21) == ("Cast of opset 21 in float",)


def test_domains() -> None:
    assert node("(float[N] x) => (float[N] y) { y = com.microsoft.QuickGelu(x) }", 18) == ()
    text = "(uint8[N] x) => (uint8[N] y) { y = com.microsoft.QLinearSigmoid(x) }"
    assert node(text, 18) == ("com.microsoft::QLinearSigmoid of opset 1 in uint8",)


def test_constants_are_not_named() -> None:
    assert node("() => (float16[1] y) { y = Constant <value = float16[1] {1}> () }", 18) == ()


@pytest.mark.parametrize("opset", [21, 22])
def test_rules_may_not_add_what_has_none(opset: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]> g (float[1,3,8,8] x) => (float[1,3,7,7] y) {{
        [relu] r = Relu(x)
        ["grad/pool"] y = MaxPool <kernel_shape = [2, 2]> (r)
    }}"""
    expected = pytest.raises(AssertionError, match="beside CUDA") if opset == 22 else nullcontext()
    with expected:
        lint(ir.from_onnx_text(text))


def pooled(opset: int) -> bytes:
    """A convolution, a MaxPool and a head."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("MaxPool", ["a"], ["p"], "pool", kernel_shape=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["y"], "flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 1, 1), [0.5] * 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(model.SerializeToString())


def test_overview_asks_where_cuda_is_asked_for() -> None:
    model = pooled(22)
    found = overview(model, providers=["CUDAExecutionProvider", "cpu"])
    assert "MaxPool of opset 22 in float" in found.without_kernel
    assert "  MaxPool of opset 22 in float" in text.inspected(found, None)
    assert f"no CUDA kernel in onnxruntime {cuda_kernels.version()}" in text.inspected(found, None)
    assert overview(model).without_kernel == ()
    assert overview(model, providers=["cpu"]).without_kernel == ()
    assert "CUDA" not in text.inspected(overview(model), None)


@pytest.mark.parametrize("name", ["shapes-resnet", "shapes-vgg", "shapes-inception"])
def test_every_operator_of_the_demo_models_has_a_kernel(name: str) -> None:
    assert overview(MODELS / f"{name}.onnx", providers=["cuda"]).without_kernel == ()


def test_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pooled.onnx"
    path.write_bytes(pooled(22))
    monkeypatch.setattr(sys, "argv", ["onnx-gradcam", "inspect", str(path), "--provider", "cuda", "--json"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    assert "MaxPool of opset 22 in float" in json.loads(capsys.readouterr().out)["without_kernel"]
