"""``explain --failures``: lines, JSON, an honest line where there are none, and options that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import LABELS, network, photo, pixels_of
from nets import run as run_model

OUT = Path("onnx-gradcam-out/model-gradcam-failures")
HOW = ("--labels", "labels.txt", "--preprocess", "zero-one,stretch", "--provider", "cpu")
EXPLAIN = ("explain", "model.onnx", "photos", "--failures", *HOW)


def first_class(seed: int) -> int:
    x = pixels_of(seed).transpose(2, 0, 1)[None].astype(np.float32) / 255
    return int(run_model(network(), {"image": x})["logits"].argmax())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.onnx").write_bytes(network().SerializeToString())
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), "utf-8")
    for seed in range(4):
        photo(tmp_path / "photos" / LABELS[(first_class(seed) + (seed > 1)) % 3] / f"{seed}.png", seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_line_for_each_mistake_and_one_page(photos: Path, run: Any) -> None:
    status, out, err = run(*EXPLAIN)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 4
    assert {Path(line.split()[0]).stem for line in lines[:2]} == {"2", "3"}
    assert all(", and it is " in line for line in lines[:2])
    assert lines[2:] == ["2 mistakes on 4 photos (accuracy 0.500)", f"written {OUT / 'failures.json'}"]
    assert {file.name for file in OUT.iterdir()} == {"failures.png", "failures.json"}
    assert run(*EXPLAIN)[0] == 2  # an earlier page stays
    status, out, _ = run(*EXPLAIN, "--limit", "1", "--json", "--overwrite")
    assert status == 0
    assert [row["explained"] for row in json.loads(out)["rows"]] == [True, False]


def test_no_mistake(photos: Path, run: Any) -> None:
    for seed in (2, 3):
        next((photos / "photos").rglob(f"{seed}.png")).unlink()
    status, out, _ = run(*EXPLAIN)
    assert status == 0
    assert out.splitlines() == ["no mistake on 2 photos", f"written {OUT / 'failures.json'}"]


@pytest.mark.parametrize(("options", "text"), [
    (("--target", "0"), "leave --target out"),
    (("--true", "folder"), "leave --true out"),
    (("--both",), "leave --both out"),
    (("--signed",), "leave --signed out"),
    (("--resume",), "leave --resume out"),
    (("--question", "what?"), "leave --question out"),
    (("--caption", "a moon"), "leave --caption out"),
    (("--tile", "64"), "leave --tile out"),
    (("--every", "2"), "leave --every out"),
    (("--sheet",), "leave --sheet and --scale out"),
    (("--scale", "shared"), "leave --sheet and --scale out"),
])  # fmt: skip
def test_options_that_do_not_fit(photos: Path, run: Any, options: tuple[str, ...], text: str) -> None:
    status, out, err = run(*EXPLAIN, *options)
    assert (status, out) == (2, "")
    assert text in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--limit", "--every"])
def test_options_of_something_else(photos: Path, run: Any, option: str) -> None:
    status, out, err = run("explain", "model.onnx", "photos", *HOW, option, "3")
    assert (status, out) == (2, "")
    assert f"{option} is of " in " ".join(err.replace("│", " ").split())
    assert not Path("onnx-gradcam-out").exists()
