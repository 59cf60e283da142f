"""Each format has all functions; text is for readers, JSON holds everything."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest
from brightness import brightness_model
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.jobs.compare import compare
from onnx_gradcam.jobs.explain import ExplainedRow, run
from onnx_gradcam.jobs.inspect import LayerInfo, overview
from onnx_gradcam.jobs.presets import PresetResult, Ranking
from onnx_gradcam.jobs.repeat import Repeat
from onnx_gradcam.jobs.report import RENDERERS, Renderer, text
from onnx_gradcam.jobs.report import json as json_format
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.verify import Check, NodeCheck, Report, Timing

FUNCTIONS = [name for name, item in vars(Renderer).items() if inspect.isfunction(item) and not name.startswith("_")]


@pytest.mark.parametrize("name", RENDERERS)
def test_each_format_has_each_function(name: str) -> None:
    for function in FUNCTIONS:
        asked = list(inspect.signature(getattr(Renderer, function)).parameters)[1:]
        assert list(inspect.signature(getattr(RENDERERS[name], function)).parameters) == asked


def report(nodes: int = 0) -> Report:
    wrong = tuple(NodeCheck(f"n{k}", "Conv", 0, "x", "fail", 0.5) for k in range(nodes))
    unsure = NodeCheck("soft", "Relu", 1, "y", "undecided", None, "it is dead")
    checks = (
        Check("forward pass", "pass", 1e-7, 1e-4, "output 'p', against the untouched model"),
        Check("node by node", "fail" if nodes else "undecided", None, 1e-3),
    )
    nodes_checked, timing = (unsure, *wrong), Timing(3.0, 0.25)
    return Report(
        "m.onnx", "logits", (3, 4), ("relu",), ("CPUExecutionProvider",), checks, nodes_checked, 2, ("a",), timing
    )


def test_checks_stand_in_a_table_and_wrong_nodes_first() -> None:
    assert text.verified(report(1)).splitlines() == [
        "m.onnx: score 'logits', class 3, 4, on CPUExecutionProvider",
        "  pass       forward pass  error 1.0e-07, limit 1e-04  output 'p', against the untouched model",
        "  fail       node by node  error       -, limit 1e-03",
        "  fail       Conv 'n0', input 0 ('x'): relative error 0.5",
        "  undecided  Relu 'soft', input 1 ('y') (it is dead)",
        "  note       a",
        "  time       3.0 s, as 12 runs of the network (0.25 s)",
        "NOT everything passed",
    ]


def test_of_many_nodes_the_first_are_shown() -> None:
    lines = text.verified(report(25)).splitlines()
    assert sum("Conv" in line for line in lines) == 20
    assert "  ...        and 6 more inputs of nodes" in lines
    assert len(json.loads(json_format.verified(report(25)))["nodes"]) == 26


def test_a_report_says_its_verdict() -> None:
    assert str(report(1)) == "m.onnx: NOT everything passed: node by node (fail)"
    assert str(ogc.verify(brightness_model())) == "the model given in memory: everything passed"


def test_a_comparison() -> None:
    found = compare(brightness_model(), brightness_model(), MODELS / "images" / "cross.png", require=["agreement>=1"])
    lines = text.compared(found).splitlines()
    assert lines[2] == "top-1 agreement 1.0000 (1 of 1)"
    assert lines[3].split() == ["median", "worst", "p05", "p95"]
    assert lines[4].split()[0] == "pearson"
    assert lines[-1] == "agreement>=1: met, measured 1"
    assert json.loads(json_format.compared(found)) == json.loads(json.dumps(found.as_dict()))
    name = "the model given in memory"
    assert str(found) == f"{name} and {name}: top-1 agreement 1.0000 over 1 maps"
    assert [json_format.compared_pair(pair) for pair in found.pairs] == [""]


def test_rows() -> None:
    row = ExplainedRow("a.png", "cat", 0.25, "out/a.png", (), (3, 4))
    assert text.explained_row(row) == "a.png  cat  0.250  cell 3,4  out/a.png"
    assert text.explained_row(ExplainedRow("a.png", "y", float("nan"), "out/a.png", ())) == "a.png  y  out/a.png"
    assert json_format.explained_row(row) == ""
    rows = [Repeat("a.png", "a.npy", 0.0, ""), Repeat("b.png", "b.npy", 0.5, ""), Repeat("c.png", "c.npy", 0, "gone")]
    assert text.repeated(rows).splitlines() == [
        "a.npy  same  largest difference 0",
        "b.npy  DIFFERS  largest difference 0.5",
        "c.npy  DIFFERS  gone",
    ]
    assert [row["same"] for row in json.loads(json_format.repeated(rows))] == [True, False, False]


def test_a_run(tmp_path: Path) -> None:
    request = Request(str(MODELS / "shapes-resnet.onnx"), (str(MODELS / "images" / "cross.png"),))
    outcome = run(request, tmp_path / "out")
    assert text.explained(outcome) == ""
    assert json_format.explained(outcome) + "\n" == outcome.manifest.read_text("utf-8")


def test_an_overview() -> None:
    found = overview(brightness_model())
    ranking = Ranking((PresetResult("raw", "cat", 0.5, 0.625, 0.25),), "onnx-gradcam explain m a --preprocess raw")
    lines = text.inspected(found, ranking).splitlines()
    assert lines[:2] == ["model", "  the model given in memory  (ai.onnx 18)"]
    assert "  * cells  (batch, 1, 6, 7)  Relu: the end of the last convolutional stage" in lines
    assert lines[-3:] == [
        "  raw                          0.500     0.625   0.250   0.250  cat",
        "to copy",
        "  onnx-gradcam explain m a --preprocess raw",
    ]
    content = json.loads(json_format.inspected(found, ranking))
    assert content["presets"] == [
        {
            "preset": "raw",
            "label": "cat",
            "probability": 0.5,
            "mirrored": 0.625,
            "scrambled": 0.25,
            "declared": False,
            "margin": 0.25,
        }
    ]
    assert content["line"] == ranking.line
    assert [layer["name"] for layer in content["layers"] if layer["chosen"]] == ["cells"]


def test_of_many_layers_the_first_are_shown() -> None:
    layers = tuple(LayerInfo(f"v{k}", ("N", 8, 4, 4), "Relu", k == 0, "it ends a stage") for k in range(15))
    lines = text.inspected(replace(overview(brightness_model()), layers=layers), None).splitlines()
    assert "    v11  (N, 8, 4, 4)  Relu: it ends a stage" in lines
    assert "    and 3 more, further up: --json lists them all" in lines
