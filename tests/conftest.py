"""Fixtures for all tests, and an honest account of what was skipped.

A skip names what it lacks before a colon ("zoo: …", "torch: …"). ``ONNX_GRADCAM_REQUIRE=zoo,torch`` makes such skips
failures.
"""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REQUIRED = set(filter(None, os.environ.get("ONNX_GRADCAM_REQUIRE", "").split(",")))
ROOT = Path(__file__).parent.parent


def _skips(reporter: Any) -> collections.Counter[str]:
    reports = reporter.stats.get("skipped", [])
    return collections.Counter(r.longrepr[2].removeprefix("Skipped: ") for r in reports)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest goes first: started last, it would keep one core busy while others idle."""
    items.sort(key=lambda item: item.path.name != "test_sweep.py")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    missing = [r for r in _skips(reporter) if r.partition(":")[0] in REQUIRED] if reporter else []
    if missing and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counted = _skips(terminalreporter)
    terminalreporter.section("skips by reason")
    for reason, count in sorted(counted.items()) or [("none", 0)]:
        verdict = "  NOT ALLOWED HERE" if reason.partition(":")[0] in REQUIRED else ""
        terminalreporter.write_line(f"{count:5} {reason}{verdict}")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real models and photos."""
    folder = os.environ.get("ONNX_GRADCAM_ZOO")
    if not folder:
        pytest.skip("zoo: ONNX_GRADCAM_ZOO is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def zoo_index(zoo: Path) -> dict[str, Any]:
    """What ``zoo.json`` says of every model."""
    index: dict[str, Any] = json.loads((zoo / "zoo.json").read_text("utf-8"))
    return index


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of demo models."""
    return ROOT / "models"


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(0)
