"""The sweep, and docs/coverage.md: what is explained stays explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import examine
import numpy as np
import onnx
import pytest
import sweep
from brightness import brightness_model
from examine import Row, Subject, judged
from nets import Net
from onnx import helper, numpy_helper

import onnx_gradcam as ogc

LIMITS = sweep.Limits(seconds=300)


def check(title: str, subjects: list[Subject]) -> None:
    expected = sweep.read_table(sweep.TABLE.read_text("utf-8"), title)
    assert expected, f"docs/coverage.md has no chapter {title!r}"
    known = sweep.expectations()[title.partition(",")[0]]
    found = sweep.sweep(sweep.expecting(subjects, known), LIMITS)
    assert sweep.differences(found, expected) == [], "if this is meant: make sweep"
    assert all(row.expected != "nothing" for row in found), "what to expect stands in tools/expectations.toml"


@pytest.mark.slow
def test_demo_models() -> None:
    check("Demo models", sweep.demos())


def test_zoo(zoo: Path) -> None:
    check("Zoo", sweep.zoo())


@pytest.mark.slow
def test_light_models() -> None:
    """Without verify, which takes half a minute for each; the table has its results, and test_light_verify runs it."""
    check("Light models of the onnx package", [replace(subject, verify=False) for subject in sweep.light()])


@pytest.mark.heavy
def test_light_verify() -> None:
    check("Light models of the onnx package", sweep.light())


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_exported(exporter: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch: not installed")
    check(f"Exported by torch, {exporter}", sweep.exported(tmp_path, exporter))


# --- the tool itself ----------------------------------------------------------------------------------------


def saved(model: onnx.ModelProto, folder: Path, name: str = "model") -> Subject:
    onnx.save(model, folder / f"{name}.onnx")
    return Subject(str(folder / f"{name}.onnx"))


def classifier(middle: Callable[[Net, str], str]) -> onnx.ModelProto:
    """A convolution, what ``middle`` adds, global average pooling and a linear layer."""
    net = Net()
    net.domains = {"com.example": 1, "com.microsoft": 1}
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)))
    net.head(middle(net, x), 4)
    return net.model({"logits": ["N", 5]})


@pytest.mark.slow
def test_one_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    row = sweep.apart(saved(brightness_model(), tmp_path), LIMITS)
    assert (row.model, row.opset, row.format) == ("model", "18", "float32")
    assert (row.layer, row.score, row.verdict, row.message) == ("cells", "logits", "explained", "")
    assert (row.reading, row.expected) == ("classes, 2 classes, 6x7", "nothing")
    assert row.forward_error == 0
    assert row.gradient_error is not None
    assert row.gradient_error < 1e-5
    assert row.time is not None
    assert row.time > 0


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    subject = saved(brightness_model(), tmp_path)
    assert sweep.apart(subject, sweep.Limits(seconds=0.2)).verdict == "timeout"
    starved = sweep.apart(subject, sweep.Limits(gib=0.1))
    assert starved.verdict == "failed"
    assert starved.message


def test_what_is_refused_and_what_is_missing(tmp_path: Path) -> None:
    """A custom operator and a gradient that is zero by definition; an operator that nobody wrote a rule for."""
    custom = classifier(
        lambda net, x: net.op("Reshape", net.op("Magic", x, domain="com.example"), net.ints(-1, 4, 8, 8))
    )
    flat = classifier(lambda net, x: net.op("Round", x))
    missing = classifier(
        lambda net, x: net.op("Reshape", net.op("Unheard", x, domain="com.microsoft"), net.ints(-1, 4, 8, 8))
    )
    rows = [examine.examine(saved(m, tmp_path, str(k))) for k, m in enumerate([custom, flat, missing])]
    assert [row.verdict for row in rows] == ["refused", "refused", "missing"]
    assert "com.example::Magic" in rows[0].message
    assert "Unheard" in rows[2].message


def test_mistakes_of_ours_are_failures() -> None:
    assert judged(ogc.ForwardMismatch("differs"))[0] == "failed"
    assert judged(ogc.ScoreError("no score", where="outputs: y")) == ("missing", "no score: outputs: y")
    assert judged(ogc.UnsupportedGradient("no rule", by_design=True))[0] == "refused"
    assert judged(ogc.UnsupportedGradient("no rule", by_design=False))[0] == "missing"


def test_a_wrong_gradient_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_gradcam.autodiff.registry import RULES

    right = RULES["Relu", 0]
    wrong = replace(right, function=lambda op, g, y, x: op.Mul(right.function(op, g, y, x), op.const(1.1, like=g)))
    monkeypatch.setitem(RULES, ("Relu", 0), wrong)
    row = examine.examine(saved(classifier(lambda net, x: net.op("Relu", net.conv(x, (4, 4)), out="z")), tmp_path))
    assert row.verdict == "failed"
    assert "verify: node by node fail: Relu" in row.message


def test_formats() -> None:
    half = brightness_model()
    for weight in half.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    assert examine.format_of(half) == "float16"
    for op_type, name in [
        ("QLinearConv", "QOperator"),
        ("DequantizeLinear", "QDQ"),
        ("DynamicQuantizeLinear", "dynamic"),
    ]:
        graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", [], [])
        assert examine.format_of(helper.make_model(graph)) == f"int8 {name}"


def test_a_smaller_volume_is_tried(tmp_path: Path) -> None:
    net = Net()
    net.head(net.op("Relu", net.conv(net.input("x", [1, 3, 512, 512]), (3, 4)), out="features"), 4)
    subject = saved(net.model({"logits": [1, 5]}), tmp_path)
    proto = onnx.load(subject.path)
    examine.resize(proto, 16)
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, 16, 16]
    row = examine.examine(replace(subject, side=16))
    assert (row.layer, row.verdict) == ("features", "explained")


ROWS = [
    Row("a", "18", "float32", "x|y", "logits", "classes, 5 classes, 8x8", "yes", 0.0, 1.5e-7, 1.04, "explained"),
    Row("b", "13", message="no rule " + "for this " * 50, verdict="missing"),
]


def test_the_table_is_read_as_it_is_written() -> None:
    page = f"# T\n\n## One\n\n{sweep.table(ROWS)}\n## Two\n\n{sweep.table(ROWS[:1])}"
    read = sweep.read_table(page, "One")
    assert [row["model"] for row in read] == ["a", "b"]
    assert (read[0]["gradient_error"], read[0]["time"], read[1]["layer"]) == ("1.5e-07", "1", "")
    assert sweep.differences(ROWS, read) == []
    assert sweep.differences(ROWS[:1], sweep.read_table(page, "Two")) == []


def test_differences_are_named() -> None:
    read = sweep.read_table(f"## One\n{sweep.table(ROWS)}", "One")
    changed = [replace(ROWS[0], verdict="failed", layer="z", time=7.0, message="why"), Row("c")]
    assert sweep.differences(changed, read) == [
        "a: layer is 'z', was 'x&#124;y' (why)",
        "a: verdict is 'failed', was 'explained' (why)",
        "b is in the table and was not found",
        "c is not in the table",
    ]


def test_maps_that_say_nothing_are_remarked_on() -> None:
    class Layer:
        def __init__(self, *values: float) -> None:
            self.cam = np.array([values])

    class Explanation:
        def __init__(self, *values: float) -> None:
            self.layers = [Layer(*values)]
            self.heatmap = np.array([values])
            self.is_blank = (self.heatmap <= 0).all(1)

    assert examine.remarks("gradcam", Explanation(1, 2, 0)) == []
    assert examine.remarks("gradcam", Explanation(0, -1, 0)) == ["gradcam is blank"]
    assert examine.remarks("gradcam", Explanation(0, 7, 0)) == ["gradcam is all in one place"]
    assert examine.remarks("gradcam", Explanation(0, float("nan"))) == ["gradcam is not finite"]


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    saved(brightness_model(), tmp_path, "good")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    monkeypatch.setattr("sys.argv", ["sweep.py", str(tmp_path), "--json", "--jobs", "2"])
    assert sweep.main() == 1
    assert [(row["model"], row["verdict"]) for row in json.loads(capsys.readouterr().out)] == [
        ("broken", "missing"),
        ("good", "explained"),
    ]


def test_the_coverage_page_needs_the_zoo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_GRADCAM_ZOO", raising=False)
    monkeypatch.setattr("sys.argv", ["sweep.py", "--update"])
    assert sweep.main() == 2
    assert "ONNX_GRADCAM_ZOO is not set" in capsys.readouterr().err
