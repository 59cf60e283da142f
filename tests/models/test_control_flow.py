"""Whole models with control flow, sequences and optional values: explained and verified, or refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

import onnx_gradcam as ogc
from onnx_gradcam.cli import main
from onnx_gradcam.errors import OnnxGradcamError, UnsupportedGradient
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.jobs.inspect import overview

RNG = np.random.default_rng(1)
X = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)

START = "h0 = Conv <pads = [1, 1, 1, 1]> (x, w0)\n h = Relu(h0)\n"
END = "p = GlobalAveragePool(t)\n f = Flatten(p)\n logits = Gemm <transB = 1> (f, w1)"
BRIGHT = "m = ReduceMax <keepdims = 0> (x)\n c = Greater(m, bound)\n"
BODIES = {
    "If": BRIGHT + """t = If (c) <
        then_branch = yes () => (float[N, 6, H, W] t1) { s = Sigmoid(h)\n t1 = Mul(s, h) },
        else_branch = no () => (float[N, 6, H, W] e1) { q = Conv <pads = [1, 1, 1, 1]> (h, w2)\n e1 = Relu(q) }>""",
    "Loop": """t = Loop (three, , h) <body = b (int64 i, bool go, float[N, 6, 8, 8] v) =>
        (bool more, float[N, 6, 8, 8] u) { more = Identity(go)\n u = Tanh(v) }>""",
    "Loop over rows": """n = Shape <start = 2, end = 3> (x)
        t = Loop (n, , h) <body = b (int64 i, bool go, float[N, 6, 8, 8] v) =>
        (bool more, float[N, 6, 8, 8] u) { more = Identity(go)\n u = Tanh(v) }>""",
    "Loop over images": """n = Shape <end = 1> (x)
        t = Loop (n, , h) <body = b (int64 i, bool go, float[N, 6, 8, 8] v) =>
        (bool more, float[N, 6, 8, 8] u) { more = Identity(go)\n u = Tanh(v) }>""",
    "Scan over channels": """z = ReduceSum <keepdims = 0> (h, second)
        last, turned = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
        body = b (float[N, 8, 8] a, float[N, 8, 8] v) =>
        (float[N, 8, 8] n, float[N, 8, 8] u) { m = Add(a, v)\n n = Tanh(m)\n u = Mul(n, v) }> (z, h)
        t = Identity(turned)""",
    "Scan": """z = ReduceSum <keepdims = 0> (h, first)
        last, turned = Scan <num_scan_inputs = 1, body = b (float[6, 8, 8] a, float[6, 8, 8] v) =>
        (float[6, 8, 8] n, float[6, 8, 8] u) { n = Identity(a)\n u = Tanh(v) }> (z, h)
        t = Identity(turned)""",
    "SequenceAt": "s = SplitToSequence <axis = 1> (h, three)\n t = SequenceAt(s, one)",
    "SequenceAt of a place from the image": """k = Cast <to = 7> (bright)
        s = SplitToSequence <axis = 1> (h, three)\n t = SequenceAt(s, k)""",
    "ConcatFromSequence": "s = SequenceConstruct(h, h)\n t = ConcatFromSequence <axis = 1> (s)",
    "OptionalGetElement": "o = Optional(h)\n t = OptionalGetElement(o)",
}  # fmt: skip
BODIES["SequenceAt of a place from the image"] = (
    BRIGHT.replace("c = Greater(m, bound)", "bright = Greater(m, bound)")
    + BODIES["SequenceAt of a place from the image"]
)
WIDTH = {"SequenceAt": 3, "SequenceAt of a place from the image": 3, "ConcatFromSequence": 12}


def model(kind: str) -> onnx.ModelProto:
    """Conv, Relu, what ``kind`` says, and a head."""
    made = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[N, 3, 8, 8] x) => (float[N, 5] logits)
    <int64 one = {{1}}, int64 three = {{3}}, int64[1] first = {{0}}, int64[1] second = {{1}}, float bound = {{0.5}}>
    {{ {START}{BODIES[kind]}\n {END} }}""")
    shapes = {"w0": (6, 3, 3, 3), "w1": (5, WIDTH.get(kind, 6)), "w2": (6, 6, 3, 3)}
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal(s) / 3).astype(np.float32) for name, s in shapes.items()}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in weights.items())
    return made


def run(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(made.SerializeToString()).run(["logits"], {"x": x})[0]
    return found


@pytest.mark.parametrize("kind", BODIES)
def test_the_models_run(kind: str) -> None:
    assert run(model(kind), X).shape == (2, 5)


@pytest.mark.parametrize("kind", BODIES)
def test_prepare_changes_nothing(kind: str) -> None:
    """Nothing is known of what stands in the bodies, or between sequences."""
    bare = model(kind)
    del bare.graph.value_info[:]
    prepared = ir.to_proto(prepare(load(bare).model))
    np.testing.assert_allclose(run(prepared, X), run(model(kind), X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bright", [True, False])
def test_an_if_is_explained(bright: bool) -> None:
    """The gradient is that of the branch that the image takes, also where the graph is cut in two."""
    x = X if bright else np.minimum(X, 0.4)
    made = model("If")
    taken = parser.parse_model(onnx.printer.to_text(made))
    alone = next(n for n in taken.graph.node if n.op_type == "If")
    place = list(taken.graph.node).index(alone)
    branch = next(a.g for a in alone.attribute if a.name == ("then_branch" if bright else "else_branch"))
    nodes = [*taken.graph.node[:place], *branch.node, *taken.graph.node[place + 1 :]]
    for node in nodes:
        node.output[:] = ["t" if name in ("t1", "e1") else name for name in node.output]
    del taken.graph.node[:]
    taken.graph.node.extend(nodes)
    with ogc.Explainer(made, target_layer="h") as explainer, ogc.Explainer(taken, target_layer="h") as plain:
        found, expected = explainer.explain(x), plain.explain(x)
        assert np.abs(expected.gradient).max() > 1e-3
        np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-5, atol=1e-7)
        several = explainer.explain(x, target=ogc.TopK(3))
        np.testing.assert_allclose(several.gradient, plain.explain(x, target=ogc.TopK(3)).gradient, atol=1e-6)


@pytest.mark.parametrize("name", ["s", "t1"])
def test_a_value_in_a_branch_is_none_of_the_model(name: str) -> None:
    for use in (lambda: ogc.Explainer(model("If"), target_layer=name), lambda: ogc.gradient_model(model("If"), [name])):
        with pytest.raises(ogc.LayerError, match=f"the model has no value.* '{name}'"):
            use()
    with pytest.raises(ogc.ScoreError, match=f"the model has no value '{name}'"):
        ogc.Explainer(model("If"), score=name)


REFUSED = ["Loop over images", "Scan", "SequenceAt of a place from the image"]  # the run decides how often, or where
UNROLLED = [kind for kind in BODIES if kind not in REFUSED and kind != "If"]


@pytest.mark.parametrize("kind", UNROLLED)
def test_what_is_known_before_the_run_is_verified(kind: str) -> None:
    """The whole network, and the Loop or Scan by itself, against differences in float64."""
    report = ogc.verify(model(kind), target_layer=["h"], x=X[:1])
    bodies = [check for check in report.nodes if check.op_type in ("Loop", "Scan")]
    assert {check.op_type for check in bodies} == {kind.split()[0]} & {"Loop", "Scan"}
    assert [check for check in [*bodies, *report.checks] if check.status != "pass"] == []
    with ogc.Explainer(model(kind), target_layer="h") as explainer:
        one, several = explainer.explain(X), explainer.explain(X, target=ogc.TopK(2))
        assert np.abs(one.gradient).max() > 1e-4
        np.testing.assert_allclose(several.gradient[::2], one.gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "status"), [("Loop", "lowered"), ("Loop over images", "missing"), ("Scan", "missing")]
)
def test_inspect_tells_which_are_unrolled(kind: str, status: str) -> None:
    operators = overview(model(kind)).operators
    assert [o.status for o in operators if o.op_type == kind.split()[0]] == [status]


def test_an_if_is_verified() -> None:
    report = ogc.verify(model("If"), target_layer=["h"], x=X[:1])
    assert [check.status for check in report.nodes if check.op_type == "If"] == ["pass"]
    assert [check.status for check in report.checks if "'h'" in check.name] == ["pass"]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_gradient_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedGradient, match=kind.split()[0]) as caught:
        ogc.gradient_model(model(kind), ["h"])
    assert "target layer after this node" in caught.value.hint
    assert caught.value.by_design


@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind != "If"])
def test_what_lies_before_the_layer_does_not_matter(kind: str) -> None:
    made = ogc.gradient_model(model(kind), ["t"])
    feeds = {"x": X, "target_index": np.array([1, 2])}
    (gradient,) = ort.InferenceSession(made.SerializeToString()).run(["grad/t"], feeds)
    weight = onnx.numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == "w1"))
    np.testing.assert_allclose(gradient, np.broadcast_to(weight[[1, 2], :, None, None] / 64, gradient.shape), rtol=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("command", ["explain", "verify"])
def test_the_command_line_says_so(
    kind: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and a reason, never a traceback."""
    monkeypatch.chdir(tmp_path)
    onnx.save(model(kind), "model.onnx")
    cv2.imwrite("photo.png", np.full((8, 8, 3), 90, np.uint8))
    image = ["photo.png"] if command == "explain" else []
    monkeypatch.setattr(sys, "argv", ["onnx-gradcam", command, "model.onnx", *image, "--layer", "h"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert kind.split()[0] in capsys.readouterr().err


def test_every_error_is_ours() -> None:
    """An output that is a sequence or an optional value is no score."""
    for text in (
        "g (float[N, 4] x) => (seq(float[N, k]) y) { y = SplitToSequence <axis = 1> (x) }",
        "g (float[N, 4] x) => (optional(float[N, 4]) y) { y = Optional(x) }",
    ):
        made = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
        with pytest.raises(OnnxGradcamError):
            ogc.gradient_model(made, ["x"])
        with pytest.raises(OnnxGradcamError):
            ogc.Explainer(made)
