"""Models that onnxruntime's quantizer made of the demo models, in each of its forms, beside the float ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
import pytest
from deployed import FORMS, STATIC, quantize, scenes
from repository import MODELS
from shapes import two_objects

import onnx_gradcam as ogc

DEMOS = ("shapes-resnet", "shapes-vgg", "shapes-inception")
SCENES, CALIBRATION = 100, 30


PAIRS = [(demo, form) for demo in DEMOS for form in FORMS]
PAIRS += [("shapes-resnet", form) for form in STATIC if form not in FORMS]


@pytest.fixture(scope="module", params=PAIRS, ids=" ".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(the float explainer, the quantized model's path, scenes)."""
    demo, form = request.param
    source = MODELS / f"{demo}.onnx"
    explainer = ogc.Explainer(source)
    path = tmp_path_factory.mktemp("quantized") / f"{demo}-{form.replace(' ', '-')}.onnx"
    quantize(source, path, form, explainer.image_input.name, scenes(explainer, CALIBRATION, 1))
    return explainer, path, scenes(explainer, SCENES, 0)


@pytest.mark.slow
def test_maps_are_those_of_the_float_model_where_both_predict_the_same(pair) -> None:  # type: ignore[no-untyped-def]
    explainer, path, x = pair
    expected = explainer.explain(x)
    found = ogc.Explainer(path).explain(x)
    same = (found.class_index == expected.class_index) & ~found.is_blank & ~expected.is_blank
    assert same.mean() > 0.8
    alike = [np.corrcoef(found.heatmap[i].ravel(), expected.heatmap[i].ravel())[0, 1] for i in np.flatnonzero(same)]
    assert np.median(alike) >= 0.95


@pytest.mark.slow
def test_outputs_are_the_deployed_models(pair) -> None:  # type: ignore[no-untyped-def]
    _, path, x = pair
    with ogc.Explainer(path) as explainer:
        found = explainer.explain(x[:4])
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row[None]})[0][0] for row in x[:4]]
    (output,) = found.outputs.values()
    # without integer kernels for 16 bits, sums of floats decide the last of them
    tolerance = 1e-4 * np.abs(rows).max() if "bits" in path.name else 0
    np.testing.assert_allclose(output, rows, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_integer_kernels_stay(pair) -> None:  # type: ignore[no-untyped-def]
    """The optimised gradient graph multiplies integers wherever the optimised deployed model does.

    But for the last ones where activations are signed: onnxruntime makes these unsigned, as its kernels want them, only
    where a single node reads them; from the target layer on the backward pass reads them, too. That is the layer's
    own convolution and two linear layers at most.
    """
    _, path, _ = pair
    if "bits" in path.name:
        pytest.skip("onnxruntime has no integer kernels for 16-bit activations and 4-bit weights")
    rewritten = ogc.gradient_model(path, ogc.Explainer(path).target_layers)
    before, after = (integer_kernels(data, path) for data in (path.read_bytes(), rewritten.SerializeToString()))
    assert before > 0
    assert before - after in (range(4) if "qdq-per-channel" in path.name else [0])


def integer_kernels(model: bytes, beside: Path) -> int:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(beside.with_suffix(".optimised"))
    options.log_severity_level = 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    return sum(
        n.op_type in ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
        for n in nodes
    )


@pytest.mark.slow
def test_top5_takes_the_same_gradients(pair) -> None:  # type: ignore[no-untyped-def]
    _, path, x = pair
    with ogc.Explainer(path) as explainer:
        several = explainer.explain(x[:2], ogc.TopK(3))
        alone = [explainer.explain(x[i : i + 1], int(c)) for i in range(2) for c in several.class_index[3 * i :][:3]]
    for row, one in enumerate(alone):
        np.testing.assert_allclose(several.cam[row], one.cam[0], rtol=1e-4, atol=1e-5)


def tied() -> onnx.ModelProto:
    """Sums of products lie halfway between two steps of the output: how they round depends on which kernel does it."""
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        tied (float[1, 3, 4, 4] x) => (float[1, 4] y)
        <float sx = {0.3}, uint8 zx = {128}, int8[4, 3, 1, 1] w = {8, 3, 1, -4, -4, -9, -8, -9, -6, 6, 3, 8},
         float sw = {0.05}, int8 zw = {0}, float sy = {0.03}, uint8 zy = {128}>
        {
            xq = QuantizeLinear(x, sx, zx)
            xd = DequantizeLinear(xq, sx, zx)
            wd = DequantizeLinear(w, sw, zw)
            c = Conv(xd, wd)
            cq = QuantizeLinear(c, sy, zy)
            cd = DequantizeLinear(cq, sy, zy)
            p = GlobalAveragePool(cd)
            y = Flatten(p)
        }"""
    )


X = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)


def test_outputs_stay_the_deployed_models_where_exposing_a_value_moves_them() -> None:
    """Exposing c, the input of a QuantizeLinear, takes the integer kernel apart."""
    session = ort.InferenceSession(tied().SerializeToString(), providers=["CPUExecutionProvider"])
    deployed = [session.run(None, {"x": X[i : i + 1]})[0][0] for i in range(2)]
    with ogc.Explainer(tied(), target_layer="c") as explainer:
        for k in range(2):
            found = explainer.explain(X)
            np.testing.assert_array_equal(found.outputs["y"], deployed, err_msg=f"run {k}")
            np.testing.assert_array_equal(found.class_index, np.argmax(deployed, axis=1))
            assert any(
                "outputs and prediction are those of the deployed model" in warning for warning in found.warnings
            )
    with ogc.Explainer(tied(), target_layer="cd") as explainer:
        found = explainer.explain(X)
        np.testing.assert_array_equal(found.outputs["y"], deployed)
        assert not any("reading inner values" in warning for warning in found.warnings)


def test_a_difference_that_optimisations_do_not_make_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_gradcam.engine.evaluation.own_difference", lambda *_: 0.0)
    with ogc.Explainer(tied(), target_layer="c") as explainer, pytest.raises(ogc.ForwardMismatch, match="'y'"):
        explainer.explain(X)


def test_classes_that_quantization_cannot_tell_apart_are_warned_of() -> None:
    """Both scores saturate at qmax: the second is the higher one, the first is taken."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        saturated (float[1, 1, 2, 2] x) => (float[1, 2] y)
        <float[2, 1, 1, 1] w = {3, 4}, float scale = {0.01}, uint8 zero = {0}>
        {
            c = Conv(x, w)
            p = GlobalAveragePool(c)
            f = Flatten(p)
            q = QuantizeLinear(f, scale, zero)
            y = DequantizeLinear(q, scale, zero)
        }"""
    )
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2)
    with ogc.Explainer(model) as explainer:
        found = explainer.explain(x)
        assert found.class_index.tolist() == [0]
        assert any("cannot tell these classes apart" in warning for warning in found.warnings)
        # the gradient of the score is that before the saturation: 1/4 at each place, for channel 0
        np.testing.assert_allclose(found.gradient[0], np.array([0.25, 0]).reshape(2, 1, 1) * np.ones((2, 2, 2)))
        assert not any("apart" in warning for warning in explainer.explain(x / 10).warnings)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qdq", "qoperator", "dynamic"])
def test_a_broken_quantization_fails_the_comparison(form: str, tmp_path: Path) -> None:
    """The scale of one layer's weights × 4."""
    source, path = MODELS / "shapes-vgg.onnx", tmp_path / "quantized.onnx"
    explainer = ogc.Explainer(source)
    quantize(source, path, form, explainer.image_input.name, scenes(explainer, CALIBRATION, 1))
    rng = np.random.default_rng(5)
    photos = [two_objects(rng).image for _ in range(20)]
    broken = onnx.load(path)
    scales = [t for t in broken.graph.initializer if t.name.endswith("weight_scale")]
    scale = scales[len(scales) // 2]
    scale.CopyFrom(onnx.numpy_helper.from_array(4 * onnx.numpy_helper.to_array(scale), scale.name))
    clause = "pearson:p05>=0.9"
    assert ogc.compare(source, path, photos, require=[clause]).ok
    assert not ogc.compare(source, broken, photos, require=[clause]).ok
