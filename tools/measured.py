"""Figures in the documentation: sections of a page that programs write, and measurements that are not made twice.

What stands between ``<!-- measured: NAME -->`` and ``<!-- /measured -->`` comes from a run that takes minutes, so it is
not made again by ``make docs``: ``make evaluation`` runs the programs that ``PROGRAMS`` names, and each writes its own
sections. Figures lie in ``build/evaluation`` until the package, the models or the question change, so a run that is
stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from onnx_gradcam.metrics.interval import Mean

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "evaluation"
PACKAGE = ROOT / "onnx_gradcam"
SECTION = re.compile(r"<!-- measured: ([a-z-]+) -->\n((?:(?!<!-- measured).)*?)<!-- /measured -->", re.DOTALL)
PROGRAMS: Mapping[str, str] = {
    "docs/evaluation.md": "tools/paper_table.py",
    "docs/bias.md": "tools/bias_study.py",
    "docs/attacks.md": "tools/attack_rates.py",
    "docs/tasks.md": "tools/task_pointing.py",
}
"""The pages with measured sections → the program that measures and writes them."""


def write_section(page: Path, name: str, content: str) -> None:
    """Write a section of a page; what stood in it is dropped.

    Args:
        page: the page, which has the markers of the section already.
        name: the name of the section, small letters and hyphens.
        content: Markdown.

    Raises:
        ValueError: the page has no such section.
    """
    text = page.read_text("utf-8")
    match = next((m for m in SECTION.finditer(text) if m[1] == name), None)
    if match is None:
        raise ValueError(f"{page} lacks <!-- measured: {name} --> … <!-- /measured -->")
    section = f"<!-- measured: {name} -->\n\n{content}\n\n<!-- /measured -->"
    page.write_text(f"{text[: match.start()]}{section}{text[match.end() :]}", "utf-8")


def kept(question: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured for a question before, or measure it now and keep it.

    Args:
        question: all that the figures depend on but the package, ready for JSON; of models and data their sha256
            (``digest``).
        measure: measures; what it returns is ready for JSON.
    """
    text = json.dumps({**question, "package": digest_of_package()}, sort_keys=True, allow_nan=False)
    path = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if path.exists():
        figures: dict[str, Any] = json.loads(path.read_text("utf-8"))["figures"]
        return figures
    figures = measure()
    KEPT.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    content = {"question": question, "figures": figures}
    aside.write_text(json.dumps(content, indent=1, allow_nan=False), "utf-8")
    aside.replace(path)
    return figures


@cache
def digest_of_package() -> str:
    """Return 16 hex digits of the sha256 of the source of the package."""
    return digest(*sorted(PACKAGE.rglob("*.py")))


def digest(*files: Path) -> str:
    """Return 16 hex digits of the sha256 of files, one after the other."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def with_interval(mean: Mean, digits: int = 2) -> str:
    """Return a mean as tables have it, "0.31 [0.25, 0.37]"; "-" where there is none."""
    if mean.value is None:
        return "-"
    if mean.low is None or mean.high is None:
        return f"{mean.value:.{digits}f}"
    return f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
