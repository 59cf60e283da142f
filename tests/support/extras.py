"""Packages that come with extras: a test that needs one says so where it is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def extra(name: str, module: str) -> Any:
    """Return the mark of tests that need the module of an extra."""
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{name}: {module} is not installed")
