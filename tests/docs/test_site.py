"""The pages of the site: what must stand on them, and what the tutorials print."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from repository import DOCS, ROOT

import onnx_gradcam as ogc

RUN = {
    "quickstart.md": (),
    "tutorials/int8.md": (),
    "tutorials/torch.md": ("torch", "onnxscript"),
    "tutorials/detector.md": ("torch", "onnxscript"),
    "tutorials/keras.md": ("torch", "onnxscript", "keras"),
    "recipes/driving.md": ("av",),
    "recipes/inspection.md": (),
    "recipes/medical.md": ("nibabel", "pydicom"),
    "recipes/signals.md": (),
}
FOLDERS = ("tutorials", "recipes")


def test_the_reference_has_every_public_name_once() -> None:
    """Those of the package itself; of the torch road also its function."""
    text = "".join(page.read_text("utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = Counter(re.findall(r"^::: onnx_gradcam\.([\w.]+)$", text, re.MULTILINE))
    assert documented == Counter([*ogc.__all__, "roads.torch.export"])


def test_every_page_can_be_reached() -> None:
    """A page stands in the navigation, but for decision records, which their own page lists."""
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2].partition("\nnot_in_nav:")[0]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(page for page in pages if not page.startswith("decisions/0"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_page_of_a_folder_is_run(folder: str) -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in (DOCS / folder).glob("*.md")}
    assert pages == {page for page in RUN if page.startswith(f"{folder}/")}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_tutorial_prints_what_it_shows(page: str, tmp_path: Path) -> None:
    for package in RUN[page]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}: the page needs it")
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "tutorials.py"), str(DOCS / page)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as many processes run as there are cores
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
