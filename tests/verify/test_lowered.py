"""verify on quantized models, in each form of onnxruntime's quantizer: what is right passes, what is wrong is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dense_kinds
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from deployed import FORMS, quantize
from map_kinds import MAPS
from nets import Net
from planted import planted, rolled, scaled, small, unmasked

from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.verify import Report, verify
from onnx_gradcam.verify.surrogate import NoSurrogate, surrogate

SIDE = 16
X = np.random.default_rng(3).standard_normal((24, 3, SIDE, SIDE)).astype(np.float32)
FORM = ("qdq", "qoperator", "dynamic")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("small")
    onnx.save(small(), folder / "float.onnx")
    for form in FORMS:
        quantize(folder / "float.onnx", folder / f"{form}.onnx", form, "x", X)
    return {form: folder / f"{form}.onnx" for form in FORMS}


def status(report: Report) -> list[str]:
    return [check.status for check in report.checks]


def failing(report: Report) -> set[str]:
    return {n.op_type for n in report.nodes if n.status == "fail"}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_right_rules_pass(form: str, models: Mapping[str, Path]) -> None:
    report = verify(models[form], x=X[:1])
    assert report.ok, str(report)
    assert [check.name for check in report.checks][2:] == [
        f"gradient at {name!r}, without rounding" for name in (*report.layers, "x")
    ]
    errors = [node.error for node in report.nodes if node.error is not None]
    assert max(errors) < 1e-5
    assert len(errors) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("image", ["search", "template"])
def test_a_kernel_that_is_computed_from_another_image(image: str, tmp_path: Path) -> None:
    """Both factors of the integer convolution have a scale of their own; only one of them is on the path."""
    tracker = dense_kinds.in_form(dense_kinds.model(MAPS["tracker"].write), "dynamic", tmp_path)
    report = verify(tracker, image_input=image)
    assert report.ok, str(report)
    (matched,) = [n for n in report.nodes if n.node == "node_matched_quant"]
    assert matched.error is not None
    assert matched.error < 1e-5


PLANTED = {
    "sign of Conv": ("Conv", scaled(-1), {"Conv", "QLinearConv", "ConvInteger"}),
    "Conv times 1.01": ("Conv", scaled(1.01), {"Conv", "QLinearConv", "ConvInteger"}),
    "Conv shifted by a pixel": ("Conv", rolled, {"Conv", "QLinearConv", "ConvInteger"}),
    "MaxPool times 1.01": ("MaxPool", scaled(1.01), {"MaxPool"}),
    "saturation passed over": (
        "QuantizeLinear",
        unmasked,
        {"QuantizeLinear", "QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORM)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught_and_its_operator_named(name: str, form: str, models: Mapping[str, Path]) -> None:
    op_type, wrong, operators = PLANTED[name]
    if op_type == "QuantizeLinear" and form == "dynamic":
        assert not any(n.op_type == "QuantizeLinear" for n in onnx.load(models[form]).graph.node)  # nothing to plant in
        return
    report = verify(models[form], x=3 * X[:1], table=planted(op_type, 0, wrong))  # beyond what was calibrated: it clips
    assert not report.ok
    assert failing(report)
    assert failing(report) <= operators


@pytest.mark.parametrize("form", FORMS)
def test_the_surrogate_is_the_model_but_for_rounding(form: str, models: Mapping[str, Path]) -> None:
    """It is nearer to the float model than the quantized one is, and has no QuantizeLinear."""
    smooth = surrogate(prepare(ir.load(models[form])))
    assert not any(n.op_type == "QuantizeLinear" for n in smooth.graph)

    def run(model: bytes) -> np.ndarray:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(["probabilities"], {"x": row[None]})[0] for row in X])

    exact, deployed = run(small().SerializeToString()), run(models[form].read_bytes())
    found = run(ir.to_proto(smooth).SerializeToString())
    assert np.abs(found - exact).mean() < np.abs(deployed - exact).mean()
    assert np.abs(found - deployed).max() < 0.1


def test_a_scale_for_each_channel_of_an_activation_has_no_surrogate() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        channels (float[1, 2, 4] x) => (float[1, 2, 4] y)
        <float[2] scale = {0.1, 0.2}, uint8[2] zero = {3, 4}>
        { q = QuantizeLinear <axis = 1> (x, scale, zero)  y = DequantizeLinear <axis = 1> (q, scale, zero) }"""
    )
    with pytest.raises(NoSurrogate, match="no constant scale"):
        surrogate(prepare(ir.from_proto(model)))


def dead_integers() -> onnx.ModelProto:
    """A branch of integers that are all at their zero point, beside one of real numbers."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    scale, zero = net.array(np.float32(0.05)), net.array(np.uint8(0))
    dead = net.op("Relu", net.op("Sub", x, net.array(np.float32(1000))))
    q = net.op("QuantizeLinear", dead, scale, zero)
    w = net.array(np.random.default_rng(0).integers(-9, 9, (4, 4, 3, 3)).astype(np.int8))
    sums = net.op("ConvInteger", q, w, zero, pads=[1, 1, 1, 1], out="sums")
    real = net.op("Mul", net.op("Cast", sums, to=onnx.TensorProto.FLOAT), net.array(np.float32(0.001)))
    net.head(net.op("Add", x, real), 4)
    return net.model({"logits": ["N", 5]})


def test_integers_that_are_dead_are_checked_at_others() -> None:
    report = verify(dead_integers(), target_layer="relu")
    (found,) = [n for n in report.nodes if n.op_type == "ConvInteger"]
    assert found.status == "pass"
    assert "at normal inputs" in found.message
    assert report.ok, str(report)


def test_a_wrong_rule_behind_dead_integers_is_found() -> None:
    report = verify(dead_integers(), target_layer="relu", table=planted("Conv", 0, scaled(1.1)))
    assert failing(report) == {"ConvInteger", "Conv"}
