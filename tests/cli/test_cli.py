"""The command line does what its help says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pytest
from brightness import EXPLAIN
from nets import Net
from repository import DOCS

import onnx_gradcam as ogc


def test_a_folder_of_photos(folder: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--target", "0", "-o", "out")
    assert status == 0
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(Path("photos") / n) for n in ("left.png", "right.png")]
    written = sorted(p.name for p in (folder / "out").iterdir())
    assert written == [
        "left.gradcam.0.npy", "left.gradcam.0.png", "manifest.json", "right.gradcam.0.npy", "right.gradcam.0.png",
    ]  # fmt: skip
    for name, column in [("left", 20), ("right", 140)]:
        heatmap = np.load(folder / "out" / f"{name}.gradcam.0.npy")
        assert heatmap.dtype == np.float32
        assert heatmap.shape == (120, 160)
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert abs(y - 60) <= 20
        assert abs(x - column) <= 23
        assert cv2.imread(str(folder / "out" / f"{name}.gradcam.0.png")) is not None


def test_json_is_the_manifest_and_follows_its_schema(folder: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--target", "top2", "--json")
    assert status == 0
    manifest = json.loads(out)
    assert manifest == json.loads((folder / "onnx-gradcam-out" / "model-gradcam" / "manifest.json").read_text("utf-8"))
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert [row["class_index"] for row in manifest["results"][0]["rows"]] == [0, 1]
    assert [row["is_blank"] for row in manifest["results"][0]["rows"]] == [False, True]
    assert manifest["results"][0]["preprocess"]["scale"] == {"value": 1 / 255, "source": "declared: good.json"}
    assert manifest["score"] == "logits"
    assert manifest["layers"] == ["cells"]


def test_a_method_of_the_input(folder: Path, run: Any) -> None:
    options = ["--method", "integrated-gradients", "--option", "steps=3", "--option", "baseline=0.5"]
    status, out, _ = run(*EXPLAIN, *options, "--json")
    assert status == 0
    manifest = json.loads(out)
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert manifest["options"] == {"steps": 3, "baseline": 0.5}
    assert manifest["layers"] == []
    row = manifest["results"][0]["rows"][0]
    attribution = np.load(folder / "onnx-gradcam-out" / "model-integrated-gradients" / row["attribution"])
    with ogc.Explainer(folder / "model.onnx", providers=["cpu"]) as explainer:
        found = explainer.explain_image(
            folder / "photos" / "left.png", None, "integrated-gradients",
            preprocess=folder / "good.json", steps=3, baseline=0.5,
        )  # fmt: skip
    np.testing.assert_array_equal(attribution, found.attribution[0])
    np.testing.assert_array_equal(
        np.load(folder / "onnx-gradcam-out" / "model-integrated-gradients" / row["npy"]), found.heatmap[0]
    )
    assert run("explain", "--from", "onnx-gradcam-out/model-integrated-gradients/manifest.json")[0] == 0


@pytest.mark.parametrize(
    ("options", "name", "recorded"),
    [
        (["--smooth", "aug", "--smooth", "eigen"], "gradcam-aug-eigen", {}),
        (
            ["--smooth", "noise", "--option", "samples=4", "--option", "seed=3"],
            "gradcam-noise",
            {"samples": 4, "noise": 0.15, "seed": 3},
        ),
        (
            ["--method", "smooth-gradcam++", "--option", "samples=2", "--option", "noise=0.3"],
            "smooth-gradcam++",
            {"samples": 2, "noise": 0.3, "seed": 0},
        ),
    ],
    ids=["aug and eigen", "noise", "smooth-gradcam++"],
)
def test_smoothing_is_recorded_and_repeated_to_the_bit(
    run: Any, folder: Path, options: list[str], name: str, recorded: dict[str, Any]
) -> None:
    status, out, _ = run(*EXPLAIN, *options, "--json", "-o", "out")
    assert status == 0
    manifest = json.loads(out)
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert manifest["options"] == recorded
    assert manifest["smooth"] == [s for s in ("aug", "noise", "eigen") if s in options]
    assert manifest["results"][0]["rows"][0]["npy"] == f"left.{name}.0.npy"
    status, out, _ = run("explain", "--from", "out/manifest.json", "--json")
    assert status == 0
    assert [row["difference"] for row in json.loads(out)] == [0, 0]


def test_a_guided_product(folder: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--method", "guided-gradcam", "--json")
    assert status == 0
    manifest = json.loads(out)
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert manifest["rectifiers"] == {"piecewise": {"Relu": 1}, "smooth": {}, "left_alone": {}}
    assert (manifest["layers"], manifest["attributed"]) == (["cells"], "image")
    for entry in manifest["results"]:
        (row,) = entry["rows"]
        assert np.load(folder / "onnx-gradcam-out" / "model-guided-gradcam" / row["attribution"]).shape == (3, 96, 112)
        assert cv2.imread(str(folder / "onnx-gradcam-out" / "model-guided-gradcam" / row["png"])) is not None


@pytest.mark.parametrize("option", ["steps", "steps=", "=3", "steps=many", "stops=3", "baseline=missing.npy"])
def test_an_option_that_is_none(run: Any, option: str) -> None:
    status, _, err = run(*EXPLAIN, "--method", "integrated-gradients", "--option", option)
    assert status == 2
    assert "  try    " in err


def test_the_schema_refuses(run: Any, folder: Path) -> None:
    run(*EXPLAIN)
    manifest = json.loads((folder / "onnx-gradcam-out" / "model-gradcam" / "manifest.json").read_text("utf-8"))
    del manifest["results"][0]["rows"][0]["seen"]
    with pytest.raises(jsonschema.ValidationError, match="seen"):
        jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))


def test_a_manifest_is_repeated(folder: Path, run: Any) -> None:
    run(*EXPLAIN, "--target", "top2")
    assert run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")[0] == 0
    file = folder / "onnx-gradcam-out" / "model-gradcam" / "left.gradcam.0.npy"
    heatmap = np.load(file)
    heatmap[0, 0] += 0.01
    np.save(file, heatmap)
    status, out, _ = run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")
    assert status == 1
    assert "left.gradcam.0.npy  DIFFERS  largest difference 0.01" in out
    assert "right.gradcam.0.npy  same" in out


def test_a_changed_photo_is_noticed(folder: Path, run: Any) -> None:
    run(*EXPLAIN)
    (folder / "photos" / "left.png").write_bytes((folder / "photos" / "right.png").read_bytes())
    status, out, _ = run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json", "--json")
    assert status == 1
    assert [(r["note"], r["same"]) for r in json.loads(out)] == [("the image has changed", False), ("", True)]


def test_equal_stems_do_not_collide(folder: Path, run: Any) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "left.png").write_bytes((folder / "photos" / "right.png").read_bytes())
    status, out, _ = run(
        "explain", "model.onnx", "photos/left.png", "more/left.png", "--preprocess", "good.json", "--json"
    )
    assert status == 0
    names = [r["rows"][0]["npy"] for r in json.loads(out)["results"]]
    assert len(set(names)) == 2
    assert all(len(n) == len("left-12345678.gradcam.0.npy") for n in names)


def test_labels_and_several_targets(folder: Path, run: Any) -> None:
    (folder / "labels.txt").write_text("bright\ndark\n")
    status, out, _ = run(*EXPLAIN, "--labels", "labels.txt", "--target", "dark", "--target", "bright")
    assert status == 0
    assert [line.split("  ")[1] for line in out.splitlines()] == ["dark", "bright"] * 2


def test_guesses_are_said(run: Any, folder: Path) -> None:
    status, _, err = run("explain", "model.onnx", "photos")
    assert status == 0
    assert err.count("--preprocess FILE.json") == 1
    assert "guessed" in err
    manifest = json.loads((folder / "onnx-gradcam-out" / "model-gradcam" / "manifest.json").read_text("utf-8"))
    assert manifest["results"][0]["preprocess"]["mean"]["source"].startswith("guessed: ")


def test_quiet(run: Any, folder: Path) -> None:
    assert run("-q", "explain", "model.onnx", "photos")[2] == ""


def test_arrays(run: Any, folder: Path) -> None:
    x = np.zeros((2, 3, 96, 112), np.float32)
    x[0, :, 16:32, 32:48] = 1
    x[1, :, 80:96, 0:16] = 1
    np.save(folder / "x.npy", x)
    status, out, _ = run("explain", "model.onnx", "x.npy", "--target", "0", "--json")
    assert status == 0
    rows = json.loads(out)["results"][0]["rows"]
    assert [r["image_index"] for r in rows] == [0, 1]
    places = [np.load(folder / "onnx-gradcam-out" / "model-gradcam" / r["npy"]) for r in rows]
    assert [tuple(int(v) // 16 for v in np.unravel_index(p.argmax(), p.shape)) for p in places] == [(1, 2), (5, 0)]


def test_a_blank_map_says_what_to_do(folder: Path, run: Any) -> None:
    status, _, err = run(*EXPLAIN, "--target", "1")
    assert status == 0
    assert "nothing at cells speaks for that class; --counterfactual" in err
    status, _, err = run(*EXPLAIN, "--target", "0", "--counterfactual", "--overwrite")
    assert "nothing at cells speaks against that class" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("explain --method gradc", {"gradcam", "gradcam++"}),
        ("compare --method x", {"xgradcam"}),
        ("explain --preprocess image", {"imagenet", "imagenet-caffe"}),
        ("explain --preprocess au", {"auto"}),
        ("verify --provider c", {"cpu", "cuda", "coreml"}),
    ],
)
def test_the_shell_completes(words: str, offered: set[str]) -> None:
    """What the script of --install-completion asks for."""
    line = f"onnx-gradcam {words}"
    asked = {"_ONNX_GRADCAM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    found = subprocess.run(
        [sys.executable, "-m", "onnx_gradcam"], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert set(found.stdout.split()) == offered


def test_the_completion_is_for_the_command_however_it_was_started() -> None:
    asked = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "onnx_gradcam", "--show-completion", "bash"]
    found = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert "_ONNX_GRADCAM_COMPLETE=complete_bash" in found.stdout
    assert found.stdout.rstrip().endswith("-F _onnx_gradcam_completion onnx-gradcam")


def test_inspect(run: Any, folder: Path) -> None:
    status, out, _ = run("inspect", "model.onnx")
    assert status == 0
    assert "* cells  (batch, 1, 6, 7)  Relu: the end of the last convolutional stage" in out
    assert "logits  2 classes" in out
    status, out, _ = run("inspect", "model.onnx", "--json", "--image", "photos/left.png")
    found = json.loads(out)
    assert [layer["name"] for layer in found["layers"] if layer["chosen"]] == ["cells"]
    assert {"imagenet", "imagenet-caffe", "raw"} <= {p["preset"] for p in found["presets"]}
    best = max(found["presets"], key=lambda p: p["margin"])["preset"]
    assert found["line"] == f"onnx-gradcam explain model.onnx photos/left.png --preprocess {best}"
    assert {o["op_type"]: o["status"] for o in found["operators"]}["Conv"] == "rule"


def test_verify(run: Any, folder: Path) -> None:
    status, out, _ = run("verify", "model.onnx", "--json")
    assert status == 0
    assert {check["status"] for check in json.loads(out)["checks"]} == {"pass"}


def test_version(run: Any) -> None:
    status, out, _ = run("--version")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert names == ["onnx-gradcam", "onnx", "onnx-ir", "numpy", "onnxruntime", "providers"]


def test_interrupt(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_gradcam.jobs.explain.run", interrupted)
    assert run(*EXPLAIN)[0] == 130


@pytest.mark.parametrize("verbose", [False, True])
def test_a_mistake_of_ours_is_no_finding(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, verbose: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BufferError("cannot close\nexported pointers")

    monkeypatch.setattr("onnx_gradcam.jobs.explain.run", broken)
    status, out, err = run(*(["-v"] if verbose else []), *EXPLAIN)
    assert (status, out) == (3, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: a mistake in onnx-gradcam: BufferError: cannot close exported pointers (")
    assert ("Traceback" in err) == verbose
    if not verbose:
        assert err.splitlines() == [last]


def test_demo_explains_the_bundled_photos(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("demo", "--json")
    assert status == 0
    manifest = json.loads(out)
    for result in manifest["results"]:
        expected = set(Path(result["image"]).stem.split("-and-"))
        best = {row["label"] for row in result["rows"][: len(expected)]}
        assert best == expected, result["image"]


def test_verify_says_what_is_undecided(run: Any, folder: Path) -> None:
    """A score that is 0 whatever the image: no difference, and no gradient, says anything."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 5, out="y")
    net.op("Mul", "y", net.array(np.float32(0)), out="logits")
    onnx.save(net.model({"logits": ["N", 5]}), folder / "zeros.onnx")
    status, out, _ = run("verify", "zeros.onnx")
    assert status == 4
    assert "NOT everything could be decided" in out
    assert "what may decide it: another input (--seed, x=)" in out
