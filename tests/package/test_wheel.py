"""The wheel is complete: installed by itself, without the source tree and without a network, it runs the demo."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path, PurePosixPath

import jsonschema
import pytest
from repository import DOCS, MODELS, ROOT

import onnx_gradcam

PARTS = ("pyproject.toml", "README.md", "LICENSE", "onnx_gradcam", "models", "tests", "tools")
SCRIPTS = "Scripts" if os.name == "nt" else "bin"

NO_SOCKETS = """
import socket

class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise OSError("no sockets here")

socket.socket = Refused
"""


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Never from the source tree: the current folder is on the path of ``python -m`` and ``-c``."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ONNX_GRADCAM"))}
    found = subprocess.run(command, cwd=cwd, env=keep | env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{' '.join(map(str, command))}\n{found.stdout}\n{found.stderr}"
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would take up what an earlier build left beside the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    isolation = ["--no-isolation"] if setuptools_is_recent() else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def setuptools_is_recent() -> bool:
    """Whether the installed one does (pyproject.toml asks for 77); if not, build fetches one."""
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with the dependencies that are installed here.

    They come from a path that a .pth file adds: .pth files found there, as that of an editable install, do not count.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / SCRIPTS / ("python.exe" if os.name == "nt" else "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    asked = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    site = Path(asked.stdout.strip())
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(here)) + "\n", "utf-8")
    return python


@pytest.mark.slow
def test_contents(wheel: Path) -> None:
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    tops = {name.parts[0] for name in names}
    assert len(tops) == 2
    assert {top for top in tops if not top.endswith(".dist-info")} == {"onnx_gradcam"}
    carried = {str(name) for name in names}
    assert "onnx_gradcam/py.typed" in carried
    assert "onnx_gradcam/models/shapes-resnet.onnx" in carried
    assert "onnx_gradcam/models/imagenet-1k.txt" in carried
    models = [p for p in MODELS.rglob("*") if p.suffix in (".onnx", ".txt", ".md", ".png")]
    assert any(p.suffix == ".png" for p in models)
    assert {f"onnx_gradcam/models/{p.relative_to(MODELS).as_posix()}" for p in models} <= carried
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "onnx_gradcam").rglob("*.py")}
    assert modules <= carried
    assert not [name for name in names if {"tests", "tools"} & set(name.parts) or name.suffix == ".pyc"]


@pytest.mark.slow
def test_the_installed_package_is_the_wheels(python: Path, tmp_path: Path) -> None:
    code = "import onnx_gradcam, importlib.metadata as m; print(onnx_gradcam.__file__, m.version('onnx-gradcam'))"
    file, version = run(python, "-c", code, cwd=tmp_path).stdout.split()
    assert Path(file).is_relative_to(python.parent.parent)
    assert version == onnx_gradcam.__version__


@pytest.mark.slow
def test_demo_without_a_network(python: Path, tmp_path: Path) -> None:
    """In an empty folder, for a user who has the wheel and nothing else."""
    blocked, empty = tmp_path / "blocked", tmp_path / "empty"
    blocked.mkdir()
    empty.mkdir()
    (blocked / "sitecustomize.py").write_text(NO_SOCKETS, "utf-8")
    env = {"PYTHONPATH": str(blocked)}
    attempt = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error)"
    assert run(python, "-c", attempt, cwd=empty, **env).stdout.strip() == "no sockets here"

    found = run(python.parent / "onnx-gradcam", "demo", cwd=empty, **env)

    assert [p.name for p in empty.iterdir()] == ["onnx-gradcam-out"]
    out = empty / "onnx-gradcam-out" / "demo"
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    rows = [row for result in manifest["results"] for row in result["rows"]]
    photos = list((MODELS / "images").glob("*.png"))
    assert len(manifest["results"]) == len(photos) > 0
    assert len(rows) == 2 * len(photos)
    assert all(Path(result["image"]).is_relative_to(python.parent.parent) for result in manifest["results"])
    assert manifest["errors"] == []
    assert "warning" not in found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert (out / row["png"]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert (out / row["npy"]).is_file()
        assert row["label"] in line
        assert row["png"] in line
