"""The road through onnxruntime-training, in the environment that has it: `make crosscheck`."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import Net, feeds, run
from rule_cases import Case, forward_model, with_gradients
from rule_cases import feeds as feeds_of
from rule_tables import tables

import onnx_gradcam as ogc
from onnx_gradcam.errors import OnnxGradcamError, ProviderError
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.names import CLASS_OUTPUT, SCORE_OUTPUT, TARGET_INDEX, GradientNames, gradient_output
from onnx_gradcam.graph.prepare.inference import infer
from onnx_gradcam.roads import ort_training
from onnx_gradcam.verify import verify

try:
    ort_training.builder()
except ProviderError:
    pytest.skip("ort-training: another ONNX Runtime is installed", allow_module_level=True)

F32 = np.dtype("float32")


def test_the_same_outputs_as_by_rules() -> None:
    proto = builders.plain()
    ours, theirs = (ogc.gradient_model(proto, ["relu", "x"], engine=e) for e in ("rules", "ort-training"))
    assert {v.name for v in theirs.graph.output} == {v.name for v in ours.graph.output}
    assert {v.name for v in theirs.graph.input} == {v.name for v in ours.graph.input}
    names = ["logits", "relu", "grad/relu", "grad/x", SCORE_OUTPUT, CLASS_OUTPUT]
    for index in (np.array([3, -1, 0, 2]), np.full(4, -1)):
        fed = {**feeds(proto, len(index)), TARGET_INDEX: index}
        a, b = run(ours, fed, names), run(theirs, fed, names)
        for name in names:
            assert a[name].shape == b[name].shape
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["shapes-resnet", "shapes-vgg", "shapes-inception"])
def test_the_demo_models(name: str, models: Path) -> None:
    path = models / f"{name}.onnx"
    layers = list(ogc.Explainer(path).target_layers)
    fed = {
        "image": np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(F32),
        TARGET_INDEX: np.array([-1, 1]),
    }
    names = [f"grad/{layer}" for layer in layers]
    ours, theirs = (run(ogc.gradient_model(path, layers, engine=e), fed, names) for e in ("rules", "ort-training"))
    for k in names:
        assert np.linalg.norm(ours[k] - theirs[k]) <= 1e-5 * np.linalg.norm(ours[k])


def test_what_it_does_not_read() -> None:
    newer = builders.plain()
    newer.opset_import[0].version = 22
    with pytest.raises(OnnxGradcamError, match="reads opsets up to 21; this model has 22"):
        ogc.gradient_model(newer, ["relu"], engine="ort-training")


def same_padding() -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="stem"), out="relu")
    w = net.random(5, 4, 3, 3)
    x = net.op("Conv", x, w, out="same", auto_pad="SAME_UPPER", strides=[2, 2])
    net.head(x, 5)
    return net.model({"logits": ["N", 5]})


def average_pool() -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="stem"), out="relu")
    x = net.op("AveragePool", x, out="pooled_once", kernel_shape=[2, 2], strides=[2, 2])
    net.head(x, 4)
    return net.model({"logits": ["N", 5]})


@pytest.mark.parametrize(
    "proto", [same_padding(), average_pool()], ids=["auto_pad=SAME", "AveragePool, symbolic batch"]
)
def test_its_silent_errors_are_caught_by_verify_and_mended_on_our_road(
    proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(ogc.gradient_model(proto, ["relu"], engine="ort-training")).ok
    monkeypatch.setattr(ort_training, "write_out", lambda *_: None)
    report = verify(ogc.gradient_model(proto, ["relu"], engine="ort-training"))
    assert [check.status for check in report.checks] == ["fail"]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", [c for c in tables() if type(c) is Case], ids=str)
def test_what_it_does_not_refuse_is_right(case: Case, dynamic: bool) -> None:
    model = ir.from_proto(forward_model(case, F32, dynamic))
    infer(model)
    fed = feeds_of(case, F32)
    try:
        ys = run(model, fed, optimized=False)
    except Exception:
        pytest.skip("ort-training: onnxruntime 1.19 does not run the operator itself")
    rng = np.random.default_rng(0)
    gs = {f"g{n[1:]}": rng.standard_normal(y.shape).astype(F32) for n, y in ys.items() if y.dtype == F32}
    if not gs:
        pytest.skip("ort-training: no float comes out of the operator")
    op, values = Builder(model.graph), ir.convenience.create_value_mapping(model.graph)
    parts = []
    for name, g in gs.items():
        y = values[f"y{name[1:]}"]
        y.dtype = y.dtype or ir.DataType.FLOAT
        parts.append(op.ReduceSum(op.Mul(y, op.array(g)), keepdims=0))
    score = parts[0]
    for part in parts[1:]:
        score = op.Add(score, part)
    model.graph.outputs.append(score)
    names = [f"x{i}" for i in case.wrt]
    try:
        called = GradientNames(score.name or "", "", {}, {name: gradient_output(name) for name in names})
        proto = ort_training.add_gradients(model, called)
        found = run(proto, fed, [f"grad/{n}" for n in names], optimized=False)
    except OnnxGradcamError:
        return
    except Exception as error:
        pytest.fail(str(error)[-300:])
    mine = run(with_gradients(case, F32, dynamic), fed | gs, [f"grad{i}" for i in case.wrt], optimized=False)
    for a, b in zip(found.values(), mine.values(), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max(initial=0)))
