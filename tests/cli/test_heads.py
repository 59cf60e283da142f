"""Heads on the command line: listed, chosen by name, explained all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import BATCH, Net


@pytest.fixture
def heads(folder: Path) -> Path:
    """Three heads: moods, an age, and an embedding, which has no class to be explained for."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 32, 32]), (3, 6)), out="features")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x), out="flat")
    net.op("LpNormalization", net.linear(flat, 6, 4), axis=1, p=2, out="code")
    net.linear(flat, 6, 1, out="age")
    net.op("Softmax", net.linear(flat, 6, 3, out="logits"), axis=1, out="mood/p")
    onnx.save(net.model({"code": [BATCH, 4], "age": [BATCH, 1], "mood/p": [BATCH, 3]}), folder / "heads.onnx")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32))
    return folder


def test_inspect_lists_them(heads: Path, run: Any) -> None:
    status, out, _ = run("inspect", "heads.onnx")
    assert status == 0
    lines = out[out.index("heads (* is explained)") :].splitlines()[1:4]
    assert lines == [
        "  * mood/p  classes (3): a Softmax over its columns makes probabilities of them",
        "    age  regression (1): one number for each image, without a Sigmoid: a regression",
        "    code  embedding (4): it ends in LpNormalization, as embeddings do: a classifier ends in a linear layer",
    ]
    content = json.loads(run("inspect", "heads.onnx", "--json", "--head", "age")[1])
    assert [(h["name"], h["chosen"]) for h in content["heads"]] == [("mood/p", False), ("age", True), ("code", False)]
    assert content["score"] == "age"


def test_one_by_name(heads: Path, run: Any) -> None:
    status, out, _ = run("explain", "heads.onnx", "x.npy", "--head", "age", "--json")
    assert status == 0
    manifest = json.loads(out)
    assert manifest["score"] == "age"
    assert manifest["request"]["head"] == "age"
    status, _, err = run("explain", "heads.onnx", "x.npy", "--head", "agee", "-o", "other")
    assert status == 2
    assert "no head 'agee' could be explained" in err


def test_all_of_them(heads: Path, run: Any) -> None:
    """A folder for each; the embedding says what it needs, and the others are written all the same."""
    status, out, err = run("explain", "heads.onnx", "x.npy", "--head", "all", "-o", "out", "--json")
    assert status == 2
    assert "error: head 'code': 'code' holds 4 numbers that are no classes" in err
    manifests = json.loads(out)["heads"]
    assert {name: m["score"] for name, m in manifests.items()} == {"mood/p": "logits", "age": "age"}
    assert sorted(p.parent.name for p in (heads / "out").glob("*/manifest.json")) == ["age", "mood-p"]
    assert run("explain", "--from", "out/age/manifest.json")[0] == 0
    status, _, _ = run("explain", "heads.onnx", "x.npy", "--head", "all", "--target", "output:0", "-o", "again")
    assert status == 0, "each of the three has a first number"
    assert sorted(p.parent.name for p in (heads / "again").glob("*/manifest.json")) == ["age", "code", "mood-p"]


def test_inspect_lists_values_where_no_output_has_scores(folder: Path, run: Any) -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 32, 32]), (3, 6)), out="features")
    net.op("Mul", net.conv(x, (6, 1), out="raw"), net.array(np.float32(3)), out="depth")
    onnx.save(net.model({"depth": [BATCH, 1, 32, 32]}), folder / "depth.onnx")
    status, out, _ = run("inspect", "depth.onnx")
    assert status == 0
    lines = out[out.index("the last values before the outputs") :].splitlines()[1:4]
    assert [line.split()[0] for line in lines] == ["depth", "raw", "features"]
    assert lines[1].endswith("(N, 1, 32, 32)  Conv")
    assert json.loads(run("inspect", "depth.onnx", "--json")[1])["values"][1]["name"] == "raw"


def test_inspect_of_all_heads(heads: Path, run: Any) -> None:
    status, out, _ = run("inspect", "heads.onnx", "--head", "all")
    assert status == 0
    assert "* mood/p  classes (3)" in out
