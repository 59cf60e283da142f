"""What a user does to a run: Ctrl-C, a closed pipe, a termination, a killed process; and then goes on."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, brightness_model
from repository import DOCS

from onnx_gradcam.results.journal import JOURNAL, MANIFEST, read_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX: signals are those of POSIX"),
]
COUNT = 40
EXPLAIN = ("explain", "model.onnx", "photos", "--preprocess", "good.json", "-o", "out", "--target", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    onnx.save(brightness_model(), folder / "model.onnx")
    (folder / "good.json").write_text(json.dumps({**PREPROCESS, "resize": "stretch"}))
    for number in range(COUNT):
        photo = np.full((40, 50, 3), 30, np.uint8)
        photo[5 + number % 20 : 15 + number % 20, 10:20] = 255
        path = folder / "photos" / f"{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo)
    return folder


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Take Ctrl-C, which tests in the background ignore and hand on to what they start; a handler is not handed on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "onnx_gradcam", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(folder: Path, mode: str, number: int, lines: int) -> tuple[int, str]:
    """Start a run, send a signal after some lines, and return the exit status and what stood on stderr."""
    run = start(folder, *EXPLAIN, *mode.split())
    assert run.stdout is not None
    for _ in range(lines):
        assert run.stdout.readline()
    run.send_signal(number)
    _, printed = run.communicate()
    return run.returncode, printed


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out" / MANIFEST).read_text("utf-8"))
    jsonschema.validate(content, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    return content


def files(folder: Path) -> dict[str, bytes]:
    out = folder / "out"
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != MANIFEST}


def named(content: dict[str, Any]) -> set[str]:
    return {name for result in content["results"] for name in result["files"]}


def whole(folder: Path, *options: str) -> dict[str, bytes]:
    run = start(folder, *EXPLAIN, *options)
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert manifest(folder)["complete"] is True
    assert named(manifest(folder)) == set(files(folder))
    return files(folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "term"])
def test_a_signal_in_the_middle(folder: Path, number: signal.Signals, status: int) -> None:
    result, printed = stop(folder, "--overwrite", number, 5)
    assert result == status
    assert "Traceback" not in printed
    content = manifest(folder)
    assert content["complete"] is False
    assert 5 <= len(content["results"]) < COUNT
    assert named(content) == set(files(folder))
    refused = start(folder, *EXPLAIN)
    _, err = refused.communicate()
    assert refused.returncode == 2
    assert "--resume continues it" in err
    assert len(whole(folder, "--resume")) == 2 * COUNT


def test_a_closed_pipe(folder: Path) -> None:
    """As ``| head -1``: the run ends, and its manifest names what was written."""
    run = start(folder, *EXPLAIN, "--overwrite")
    assert run.stdout is not None
    assert run.stderr is not None
    assert run.stdout.readline().startswith("photos")
    run.stdout.close()
    printed = run.stderr.read()
    run.stderr.close()
    assert run.wait() == 141
    assert printed == ""
    content = manifest(folder)
    assert content["complete"] is False
    assert named(content) == set(files(folder))
    assert len(whole(folder, "--resume")) == 2 * COUNT


def test_killed_at_random_moments(folder: Path) -> None:
    """Nothing is lost: every file is known, and the runs that follow end with all images and nothing else."""
    expected = whole(folder, "--overwrite")
    mine = folder / "out" / "0" / "mine.txt"
    mine.write_text("mine")
    rng = random.Random(0)
    mode = "--overwrite"
    for _ in range(4):
        result, _ = stop(folder, mode, signal.SIGKILL, rng.randrange(1, 6))
        assert result == -signal.SIGKILL
        state = read_state(folder / "out")
        assert state is not None
        strange = set(files(folder)) - set(state.files) - {"0/mine.txt", JOURNAL, ".onnx-gradcam.part"}
        assert not strange
        mode = "--resume" if rng.random() < 0.7 else "--overwrite"
    whole_files = start(folder, *EXPLAIN, "--resume")
    whole_files.communicate()
    assert whole_files.returncode == 0
    assert mine.read_text() == "mine"
    mine.unlink()
    found = files(folder)
    assert set(found) == set(expected) == named(manifest(folder))
    for name in expected:
        if name.endswith(".npy"):  # in other batches, other rounding
            np.testing.assert_allclose(np.load(folder / "out" / name), _array(expected[name]), atol=1e-5)


def _array(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data))
    return array


def test_the_demo_and_then_a_run(folder: Path) -> None:
    """Neither is in the way of the other; the demo may be repeated."""
    for arguments in (("demo",), ("demo",), EXPLAIN[:3]):
        run = start(folder, *arguments)
        _, err = run.communicate()
        assert run.returncode == 0, err
    assert (folder / "onnx-gradcam-out" / "demo" / MANIFEST).exists()
    assert (folder / "onnx-gradcam-out" / "model-gradcam" / MANIFEST).exists()


def test_stdout_that_is_full(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("POSIX: /dev/full is Linux's")
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "onnx_gradcam", *EXPLAIN, "--overwrite"],
            cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ, check=False,
        )  # fmt: skip
    assert run.returncode == 2
    assert "cannot write to stdout" in run.stderr
    assert "Traceback" not in run.stderr
