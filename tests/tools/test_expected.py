"""A model that is read otherwise than an expert reads it has failed, however right its gradients are."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import dense_kinds
import examine
import expected
import onnx
import pytest
import sweep
from brightness import brightness_model
from examine import Subject
from expected import Expectation, Reading, differences
from repository import ROOT

from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.explain import network

BRIGHTNESS = Expectation("classes", 2, ("6x7",))
YOLOV5 = Expectation("detector", 3, ("8x8", "4x4"), 2)


def saved(model: onnx.ModelProto, folder: Path) -> Subject:
    onnx.save(model, folder / "model.onnx")
    return Subject(str(folder / "model.onnx"), verify=False)


def with_expectation(subject: Subject, expectation: Expectation) -> Subject:
    (changed,) = sweep.expecting([subject], {subject.model: expectation})
    return changed


def test_the_readings_of_an_expert(tmp_path: Path) -> None:
    row = examine.examine(with_expectation(saved(brightness_model(), tmp_path), BRIGHTNESS))
    assert (row.reading, row.expected, row.verdict) == ("classes, 2 classes, 6x7", "yes", "explained")
    detector = saved(dense_kinds.model(dense_kinds.KINDS["yolov5"].write), tmp_path)
    row = examine.examine(with_expectation(detector, YOLOV5))
    assert (row.reading, row.expected, row.verdict) == (
        "detector, 3 classes, 2 levels, 8x8 4x4",
        "yes",
        "explained",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "detector"}, "kind: expected detector, read classes"),
        ({"classes": 3}, "classes: expected 3, read 2"),
        ({"levels": 3}, "levels: expected 3, read 1"),
        ({"grids": ("4x4",)}, "layers on: expected 4x4, read 6x7"),
        ({"top1": (7,)}, "top-1: expected 7, read "),
    ],
)
def test_a_planted_wrong_expectation_is_a_failure(change: dict[str, object], message: str, tmp_path: Path) -> None:
    wrong = Expectation(**{**asdict(BRIGHTNESS), **change})
    row = examine.examine(with_expectation(saved(brightness_model(), tmp_path), wrong))
    assert (row.verdict, row.expected) == ("failed", "no")
    assert message in row.message


def test_a_planted_wrong_finder_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finder that takes the numbers of boxes for classes: its gradients and maps are right, its score is not."""
    subject = saved(dense_kinds.model(dense_kinds.KINDS["raw, apart, without objectness"].write), tmp_path)
    expectation = Expectation("detector", 3, ("8x8", "4x4"), 2)
    assert examine.examine(with_expectation(subject, expectation)).verdict == "explained"
    monkeypatch.setattr(network, "find_heads", lambda graph, *_: (find_score(graph, ["box0", "box1"]),))
    row = examine.examine(with_expectation(subject, expectation))
    assert (row.verdict, row.expected) == ("failed", "no")
    assert "classes: expected 3, read 4" in row.message
    assert examine.examine(subject).verdict == "explained", "nothing but the expectation tells"


def test_the_place_of_the_maximum() -> None:
    expectation = Expectation("detector", 80, ("13x13",), places={"1": [0, 0, 0.5, 0.5], "16": [0.5, 0.5, 1, 1]})
    found = Reading("detector", 80, 1, ("13x13",), 16, (0.7, 0.6))
    assert differences(expectation, found) == []
    assert differences(expectation, replace(found, top1=1)) == [
        "maximum: expected in [0, 0, 0.5, 0.5], read at (0.70, 0.60)"
    ]
    assert differences(expectation, replace(found, top1=3)) == ["top-1: expected 1 or 16, read 3"]


def test_every_model_of_the_page_has_an_expectation() -> None:
    known = expected.expectations()
    page = sweep.TABLE.read_text("utf-8")
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    for title in titles:
        section = known[title.partition(",")[0]]
        assert {row["model"] for row in sweep.read_table(page, title)} == set(section), title


@pytest.mark.slow
def test_the_grids_of_the_exports_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    architectures, token_nets, token_truth = map(
        importlib.import_module, ("architectures", "token_nets", "token_truth")
    )
    grids = {name: token_truth.truth(name)["activation"].shape[2:] for name in token_nets.NETS}
    for name, arguments in architectures.SMALL.items():
        network = architectures.ARCHITECTURES[name](**arguments).eval()
        shapes: list[tuple[int, ...]] = []
        network.get_submodule(network.last_stage).register_forward_hook(lambda _m, _x, y, s=shapes: s.append(y.shape))
        network(torch.zeros(1, 3, arguments["size"], arguments["size"]))
        grids[name] = shapes[-1][2:]
    section = expected.expectations()[sweep.EXPORTED]
    assert {name: e.grids for name, e in section.items()} == {k: ("x".join(map(str, g)),) for k, g in grids.items()}


PLAIN = """
import builtins, json, sys
sys.path[:0] = ["tools", {root!r}]
seen, real = [], builtins.__import__
def spy(name, *rest):
    top = name.partition(".")[0]
    if top not in seen and (not rest or len(rest) < 4 or rest[3] == 0):
        seen.append(top)
    return real(name, *rest)
builtins.__import__ = spy
import examine
row = examine.examine(examine.Subject({path!r}, verify=False))
print(row.verdict, min(map(seen.index, ["onnx", "onnxruntime", "numpy"])) > seen.index("onnx_gradcam"), "torch" in seen)
"""


@pytest.mark.slow
def test_the_product_is_loaded_before_what_it_loads(tmp_path: Path) -> None:
    subject = saved(brightness_model(), tmp_path)
    code = PLAIN.format(root=str(ROOT), path=subject.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["explained", "True", "False"]
