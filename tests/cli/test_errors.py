"""Whatever a user can get wrong: exit status 2, no traceback, the offending name or value, and a way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, SIDE, brightness_model

from onnx_gradcam.cli import main


@dataclass(frozen=True)
class Desk:
    """A folder with a good model and a good photo, and things to break."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def photo(self) -> Path:
        return self.folder / "photo.png"

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def array(self, name: str, array: np.ndarray) -> Path:
        np.save(self.folder / name, array)
        return self.folder / name


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    cv2 = pytest.importorskip("cv2")
    onnx.save(brightness_model(), tmp_path / "model.onnx")
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes())
    (tmp_path / "good.json").write_text(json.dumps({**PREPROCESS, "resize": "stretch"}))
    return Desk(tmp_path)


def run(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnx_gradcam", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """Return the exit status of a run in this process."""
    monkeypatch.setattr(sys, "argv", ["onnx-gradcam", *map(str, arguments)])
    with pytest.raises(SystemExit) as status:
        main()
    return status.value.code


def explain(desk: Desk, *more: object) -> list[object]:
    return ["explain", desk.model, desk.photo, "--preprocess", desk.folder / "good.json", *more]


def tensor(desk: Desk, array: np.ndarray) -> list[object]:
    return ["explain", desk.model, desk.array("x.npy", array)]


IMAGE = np.full((1, 3, SIDE, SIDE + 16), 0.5, np.float32)


def with_nan() -> np.ndarray:
    array = IMAGE.copy()
    array[0, 1, 2, 3] = np.nan
    return array


def without_data(desk: Desk) -> list[object]:
    onnx.save(
        brightness_model(),
        desk.folder / "big.onnx",
        save_as_external_data=True,
        location="big.data",
        size_threshold=0,
    )
    (desk.folder / "big.data").unlink()
    return ["explain", desk.folder / "big.onnx", desk.photo]


def off_path(desk: Desk) -> list[object]:
    model = brightness_model()
    model.graph.node.append(onnx.helper.make_node("Sign", ["conv"], ["aside"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("aside", 1, None))
    onnx.save(model, desk.model)
    return explain(desk, "--layer", "aside")


CASES: dict[str, tuple[Callable[[Desk], list[object]], list[str]]] = {
    "no such model": (lambda d: ["explain", d.folder / "modle.onnx", d.photo], ["modle.onnx", "model.onnx"]),
    "model is a folder": (lambda d: ["explain", d.folder, d.photo], ["is a folder"]),
    "not ONNX": (
        lambda d: ["explain", d.put("x.onnx", b"hello, this is text" * 9), d.photo],
        ["x.onnx", "not an ONNX model"],
    ),
    "empty model": (lambda d: ["explain", d.put("x.onnx", b""), d.photo], ["x.onnx", "empty"]),
    "truncated ONNX": (
        lambda d: ["explain", d.put("x.onnx", d.model.read_bytes()[:-700]), d.photo],
        ["x.onnx", "truncated"],
    ),
    "missing external data": (without_data, ["big.data", "next to the model"]),
    "unknown layer": (lambda d: explain(d, "--layer", "cels"), ["'cels'", "'cells'"]),
    "layer without space": (lambda d: explain(d, "--layer", "flat"), ["'flat'", "no spatial axes"]),
    "layer off the path": (off_path, ["'aside'", "inspect"]),
    "unknown score": (lambda d: explain(d, "--score", "logit"), ["'logit'", "'logits'"]),
    "no labels": (lambda d: explain(d, "--target", "tabby"), ["'tabby'", "--labels"]),
    "unknown label": (
        lambda d: explain(d, "--labels", d.put("l.txt", b"tabby\ntiger"), "--target", "tabbi"),
        ["'tabbi'", "'tabby'"],
    ),
    "ambiguous label": (
        lambda d: explain(d, "--labels", d.put("l.txt", b"crane\ncrane"), "--target", "crane"),
        ["'crane'", "ambiguous", "0", "1"],
    ),
    "class out of range": (lambda d: explain(d, "--target", "2"), ["class 2", "from 0 to 1"]),
    "too many classes": (lambda d: explain(d, "--target", "top5"), ["top-5", "from 1 to 2"]),
    "labels missing": (lambda d: explain(d, "--labels", "nowhere.txt"), ["nowhere.txt"]),
    "wrong shape": (lambda d: tensor(d, IMAGE[:, :, :-1]), ["(1, 3, 95, 112)", "'image'"]),
    "wrong rank": (lambda d: tensor(d, IMAGE[0]), ["(3, 96, 112)", "batch axis"]),
    "wrong dtype": (lambda d: tensor(d, (IMAGE * 255).astype(np.uint8)), ["uint8", "explain_image"]),
    "NaN": (lambda d: tensor(d, with_nan()), ["NaN", "(0, 1, 2, 3)"]),
    "corrupt array": (lambda d: ["explain", d.model, d.put("x.npy", b"\x93NUMPY broken")], ["x.npy"]),
    "no such image": (lambda d: ["explain", d.model, d.folder / "nowhere.png"], ["nowhere.png"]),
    "empty image": (lambda d: ["explain", d.model, d.put("x.png", b"")], ["x.png", "empty"]),
    "corrupt image": (lambda d: ["explain", d.model, d.put("x.png", d.photo.read_bytes()[:40])], ["x.png"]),
    "not an image": (lambda d: ["explain", d.model, d.put("x.jpg", b"GIF no")], ["x.jpg"]),
    "unknown preset": (
        lambda d: ["explain", d.model, d.photo, "--preprocess", "imagnet"],
        ["imagnet", "imagenet"],
    ),
    "bad preprocessing file": (
        lambda d: ["explain", d.model, d.photo, "--preprocess", d.put("p.json", b'{"meen": 1}')],
        ["meen", "mean"],
    ),
    "guessed and strict": (lambda d: ["explain", d.model, d.photo, "--strict"], ["guessed", "--preprocess"]),
    "unknown method": (lambda d: explain(d, "--method", "gradcan"), ["'gradcan'", "'gradcam'"]),
    "method without variant": (
        lambda d: explain(d, "--method", "eigencam", "--signed"),
        ["eigencam", "signed"],
    ),
    "unknown fusion": (
        lambda d: explain(d, "--layer", "cells", "--layer", "conv", "--fusion", "meen"),
        ["'meen'", "'mean'"],
    ),
    "unknown provider": (lambda d: explain(d, "--provider", "cudo"), ["'cudo'", "'cuda'"]),
    "provider not there": (lambda d: explain(d, "--provider", "qnn"), ["QNNExecutionProvider", "cpu"]),
    "bad --input": (lambda d: explain(d, "--input", "scale"), ["'scale'", "NAME=FILE"]),
    "unknown --input": (
        lambda d: explain(d, "--input", f"imge={d.array('y.npy', IMAGE)}"),
        ["'imge'", "'image'"],
    ),
    "output is a file": (lambda d: explain(d, "-o", d.put("taken", b"x")), ["taken", "-o DIR"]),
    "output below a file": (lambda d: explain(d, "-o", d.put("taken", b"x") / "out"), ["taken", "-o DIR"]),
    "bad manifest": (lambda d: ["explain", "--from", d.put("m.json", b"{}")], ["m.json", "manifest.json"]),
    "no arguments": (lambda d: ["explain"], ["MODEL"]),
    "unknown command": (lambda d: ["explian"], ["explian"]),
    "inspect of nothing": (lambda d: ["inspect", d.folder / "nowhere.onnx"], ["nowhere.onnx"]),
    "verify of nothing": (lambda d: ["verify", d.folder / "nowhere.onnx"], ["nowhere.onnx"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(desk: Desk, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, where an exception that is not caught would fail the test."""
    make, expected = CASES[name]
    monkeypatch.chdir(desk.folder)
    status = ended(monkeypatch, *make(desk))
    printed = capsys.readouterr()
    assert status == 2, printed
    for text in expected:
        assert text in printed.err, printed.err
    assert printed.out == ""
    written = desk.folder / "onnx-gradcam-out" / "model-gradcam"
    assert not written.exists() or not list(written.iterdir())


def test_existing_results_are_kept_without_overwrite(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk.folder)
    assert ended(monkeypatch, *explain(desk)) == 0
    manifest = desk.folder / "onnx-gradcam-out" / "model-gradcam" / "manifest.json"
    before = manifest.read_bytes()
    capsys.readouterr()
    assert ended(monkeypatch, *explain(desk)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert manifest.read_bytes() == before
    assert ended(monkeypatch, *explain(desk, "--overwrite")) == 0


def test_one_bad_image_among_several_leaves_the_good_ones(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk.folder)
    bad = desk.put("bad.png", b"no image")
    assert ended(monkeypatch, "explain", desk.model, bad, desk.photo, "--preprocess", desk.folder / "good.json") == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "bad.png" in printed
    out = desk.folder / "onnx-gradcam-out" / "model-gradcam"
    manifest = json.loads((out / "manifest.json").read_text())
    assert [r["image"] for r in manifest["results"]] == [str(desk.photo)]
    assert [e["image"] for e in manifest["errors"]] == [str(bad)]
    heatmap = np.load(out / manifest["results"][0]["rows"][0]["npy"])
    np.testing.assert_allclose(heatmap, 1, atol=1e-6)  # an evenly bright photo


def test_without_a_runtime(desk: Desk) -> None:
    hidden = desk.folder / "hidden"
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    done = run(*explain(desk), cwd=desk.folder, env={"PYTHONPATH": str(hidden)})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert 'pip install "onnx-gradcam[cpu]"' in done.stderr
